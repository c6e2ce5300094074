"""Packaged models: what a name means, and files that differ from those that were packed."""

import logging
import shutil
import subprocess

import pytest

from vclip_jax.files import packaged


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder of packaged models with one, retina-small, of two files."""
    monkeypatch.setattr(packaged, "ROOT", tmp_path / "packaged")
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"weights")
    (source / "README.md").write_text("card")
    (source / ".hidden").write_text("not for others")
    assert packaged.pack(source, "retina-small") == tmp_path / "packaged/retina-small"
    return tmp_path / "packaged"


def test_a_name_is_the_packaged_model_and_everything_else_a_path(root):
    assert packaged.names() == ["retina-small"]
    assert packaged.path_of("retina-small") == packaged.default() == root / "retina-small"
    assert str(packaged.path_of("runs/mine")) == "runs/mine"
    assert str(packaged.path_of("retina-large")) == "retina-large"


def test_a_folder_of_the_same_name_comes_first_and_the_log_says_so_once(root, caplog):
    (root.parent / "retina-small").mkdir()
    with caplog.at_level(logging.WARNING, "vclip_jax"):
        for _ in range(2):
            assert not packaged.path_of("retina-small").is_absolute()
    message = "retina-small is a folder here: it is used, not the packaged model"
    assert [record.message for record in caplog.records] == [message]
    assert packaged.default() == root / "retina-small"  # what a command takes unasked


@pytest.mark.parametrize("by", ["name", "path"])
def test_a_file_that_differs_is_named(root, by):
    model = "retina-small" if by == "name" else root / "retina-small"
    packaged.path_of(model)
    (root / "retina-small/model.safetensors").write_bytes(b"weightz")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged .*install the package"):
        packaged.path_of(model)
    (root / "retina-small/model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks model\.safetensors: install the package"):
        packaged.path_of(model)


def test_a_file_that_was_not_packed_is_refused(root):
    (root / "retina-small/calibration.json").write_text("{}")
    with pytest.raises(ValueError, match=r"not its own, calibration\.json: remove them"):
        packaged.path_of("retina-small")


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        (None, "has no SHA256SUMS that can be read"),
        (b"", "SHA256SUMS is damaged"),
        (b"\xff\xfe", "has no SHA256SUMS that can be read"),
        (b"0123  README.md\n", "SHA256SUMS is damaged"),
        (b"%s  ../../secret\n" % (b"0" * 64), "SHA256SUMS is damaged"),
        (b"%s  README.md\n" % (b"0" * 64), r"not its own, model\.safetensors"),
    ],
)
def test_damaged_sums_are_one_line(root, sums, message):
    path = root / "retina-small" / packaged.SUMS
    path.unlink() if sums is None else path.write_bytes(sums)
    with pytest.raises(ValueError, match=message) as caught:
        packaged.path_of("retina-small")
    assert "\n" not in str(caught.value)


def test_the_sums_are_those_of_sha256sum(root):
    if shutil.which("sha256sum") is None:
        pytest.skip("sha256sum is not installed")
    command = ["sha256sum", "--check", "--strict", packaged.SUMS]
    subprocess.run(command, cwd=root / "retina-small", check=True, capture_output=True)


def test_packing_replaces_a_model_even_by_itself(root, tmp_path):
    again = packaged.pack(root / "retina-small", "retina-small")
    assert {path.name for path in again.iterdir()} == {
        "README.md",
        "model.safetensors",
        packaged.SUMS,
    }
    (again / "README.md").write_text("another card")
    packaged.pack(again, "retina-small")
    packaged.path_of("retina-small")
    assert [path.name for path in root.iterdir()] == ["retina-small"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "Retina", ".hidden", "a b"])
def test_other_names_are_refused(root, tmp_path, name):
    with pytest.raises(ValueError, match="not a name of small letters, digits and hyphens"):
        packaged.pack(tmp_path / "source", name)


def test_without_packaged_models_a_name_is_a_path(tmp_path, monkeypatch):
    monkeypatch.setattr(packaged, "ROOT", tmp_path / "none")
    assert packaged.names() == []
    assert str(packaged.path_of("retina-small")) == "retina-small"
    with pytest.raises(ValueError, match="has no model retina-small: name a model with --model"):
        packaged.default()
