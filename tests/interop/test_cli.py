"""`vclip weights`: there and back, and one line for what goes wrong."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from vclip_jax.files import packaged
from vclip_jax.interop import actions, folder, names
from vclip_jax.interop.__main__ import main
from vclip_jax.interop.export import hub
from vclip_jax.interop.source import load_weights
from vclip_jax.interop.systems import cn_clip
from vclip_jax.interop.weights import Weights

from .conftest import assert_same
from .systems.test_hf_bert import CONFIG


@pytest.fixture(scope="module")
def weights(tiny_weights):
    return tiny_weights()


@pytest.fixture
def checkpoint(tmp_path, weights, tokenizer):
    """A checkpoint of Chinese-CLIP with its vocabulary beside."""
    (tmp_path / "source").mkdir()
    cn_clip.save(tmp_path / "source" / "rn.pt", weights)
    tokenizer.save(tmp_path / "source" / "vocab.txt")
    return tmp_path / "source" / "rn.pt"


def run(command: str, *paths) -> int:
    return main([*command.split(), *map(str, paths)])


def test_import_and_export_give_back_the_file(tmp_path, checkpoint, weights, capsys):
    work, target = tmp_path / "w", tmp_path / "back.pt"
    assert run("import --format cn_clip --source", checkpoint, "--out", work) == 0
    assert capsys.readouterr().out == f"{work}: {weights.count:,} parameters\n"
    assert_same(folder.load(work)[0], weights)
    assert "rn.pt (cn_clip)" in (work / "README.md").read_text()
    assert run("export --format cn_clip --model", work, "--out", target) == 0
    assert target.read_bytes() == checkpoint.read_bytes()
    assert "note: no config of cn_clip has these sizes" in capsys.readouterr().out


def test_folders_and_files_of_ours_are_copied(tmp_path, checkpoint, weights, tokenizer):
    work, copy, other = tmp_path / "w", tmp_path / "copy", tmp_path / "other"
    assert run("import --format cn_clip --source", checkpoint, "--out", work) == 0
    assert run("import --format safetensors --source", work, "--out", copy) == 0
    assert_same(folder.load(copy)[0], weights)
    vocab = work / "vocab.txt"
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes((work / "model.safetensors").read_bytes())
    command = "import --format safetensors --source"
    assert run(command, alone, "--vocab", vocab, "--out", other) == 0
    assert_same(folder.load(other)[0], weights)
    assert run("export --format safetensors --model", other, "--out", tmp_path / "out") == 0
    assert folder.load(tmp_path / "out")[1] == tokenizer


def test_half_the_bytes_hold_the_same_weights_to_11_bits(tmp_path, weights, tokenizer, capsys):
    full, half, again = tmp_path / "full", tmp_path / "half", tmp_path / "again"
    folder.save(full, weights, tokenizer)
    command = "export --format safetensors --dtype float16 --model"
    assert run(command, full, "--out", half) == 0
    read, _ = folder.load(half)
    size = 0
    for name, array in weights.arrays.items():
        assert read.arrays[name].dtype == np.float32
        exact = array if array.ndim < 2 else array.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(read.arrays[name], exact, name)
        size += array.nbytes if array.ndim < 2 else array.nbytes // 2
    content = (half / "model.safetensors").read_bytes()
    assert len(content) - 8 - int.from_bytes(content[:8], "little") == size  # without the header
    line = f"- {weights.count:,} parameters, stored as float16 (vectors as float32), loaded as "
    assert line in (half / "README.md").read_text()
    assert run("export --format safetensors --model", half, "--out", again) == 0
    assert (again / "README.md").read_text() == (full / "README.md").read_text()
    assert_same(folder.load(again)[0], read)


def test_a_packed_folder_is_loaded_by_its_name(tmp_path, weights, tokenizer, capsys, monkeypatch):
    monkeypatch.setattr(packaged, "ROOT", tmp_path / "packaged")
    folder.save(tmp_path / "m", weights, tokenizer)
    assert run("pack --as tiny --model", tmp_path / "m") == 0
    assert f"packaged/tiny: {weights.count:,} parameters, 1.5 MiB" in capsys.readouterr().out
    assert_same(load_weights("tiny")[0], weights)
    assert run("pack --model", tmp_path) == 1
    assert "not a portable folder" in capsys.readouterr().err
    assert packaged.names() == ["tiny"]


def test_float16_is_only_for_weights_that_it_can_hold(tmp_path, weights, tokenizer, capsys):
    wide = dict(weights.arrays, text_projection=weights.arrays["text_projection"] + 7e4)
    folder.save(tmp_path / "m", Weights(weights.config, wide), tokenizer)
    command = "export --dtype float16 --out"
    for form, message in (
        ("safetensors", "text_projection has the value 7e+04, beyond the range of float16"),
        ("cn_clip", "--dtype float16 is for --format safetensors, not cn_clip"),
        ("onnx", "--dtype float16 is for --format safetensors, not onnx"),
    ):
        out = tmp_path / "out"
        assert run(command, out, "--format", form, "--model", tmp_path / "m") == 1
        assert message in capsys.readouterr().err
        assert not out.exists()


def test_a_bert_becomes_a_text_tower(tmp_path, tiny_weights, tokenizer):
    weights = tiny_weights("text")
    source = tmp_path / "bert"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(CONFIG))
    state = names.to_reference(weights.arrays)
    save_file({n: np.ascontiguousarray(a) for n, a in state.items()}, source / "model.safetensors")
    tokenizer.save(source / "vocab.txt")
    assert run("import --format hf_bert --source", source, "--out", tmp_path / "w") == 0
    assert_same(folder.load(tmp_path / "w")[0], weights)


def test_targets_are_kept_unless_told_otherwise(tmp_path, checkpoint, capsys):
    work, target = tmp_path / "w", tmp_path / "back.pt"
    commands = (
        ("import --format cn_clip --source", checkpoint, "--out", work),
        ("export --format cn_clip --model", work, "--out", target),
        ("export --format safetensors --model", work, "--out", tmp_path / "out"),
    )
    for command in commands:
        assert run(*command) == 0
        assert run(*command) == 1
        assert "pass --overwrite" in capsys.readouterr().err
        assert run(*command, "--overwrite") == 0
    folder_as_file = ("export --format cn_clip --overwrite --model", work, "--out", work)
    assert run(*folder_as_file) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("import --format cn_clip --source {t}/none.pt --out {t}/w", "there is no"),
        ("import --format cn_clip --source {t}/a.pt --out {t}/w", "not a zip"),
        ("import --format cn_clip --source {t} --out {t}/w", "directory"),
        ("import --format hf_bert --source {t} --out {t}/w", "no config.json"),
        ("import --format safetensors --source {t}/a.pt --out {t}/w", "damaged"),
        ("import --format safetensors --source {t} --out {t}/w", "not a portable folder"),
        ("export --format cn_clip --model {t} --out {t}/b.pt", "not a training run's workdir"),
        ("export --format safetensors --model {t}/a.pt --out {t}/w", "workdir: it lacks"),
    ],
)
def test_errors_are_one_line(tmp_path, tokenizer, capsys, arguments, message):
    tokenizer.save(tmp_path / "vocab.txt")
    (tmp_path / "a.pt").write_bytes(b"junk")
    assert main(arguments.format(t=tmp_path).split()) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "w").exists()


def test_a_missing_vocabulary_is_asked_for(tmp_path, checkpoint, capsys):
    (checkpoint.parent / "vocab.txt").unlink()
    assert run("import --format cn_clip --source", checkpoint, "--out", tmp_path / "w") == 1
    assert "--vocab" in capsys.readouterr().err


def test_it_runs_as_a_module_without_pytorch(tmp_path, checkpoint):
    program = (
        "import sys; sys.modules['torch'] = None; "
        "from vclip_jax.interop.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    work = tmp_path / "w"
    arguments = ["import", "--format=cn_clip", f"--source={checkpoint}", f"--out={work}"]
    for command in (["-c", program], ["-m", "vclip_jax.interop"]):
        completed = subprocess.run(
            [sys.executable, *command, *arguments, "--overwrite"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert completed.returncode == 0, completed.stderr
    assert (work / "model.safetensors").exists()


def test_a_card_that_is_a_link_to_something_else_is_not_copied(
    tmp_path, weights, tokenizer, capsys
):
    folder.save(tmp_path / "m", weights, tokenizer)
    (tmp_path / "secret").write_text("a key")
    (tmp_path / "m/README.md").unlink()
    (tmp_path / "m/README.md").symlink_to(tmp_path / "secret")
    command = "export --format safetensors --model"
    assert run(command, tmp_path / "m", "--out", tmp_path / "out") == 1
    assert "README.md is a link to a file outside the folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    for name in ("README.md", "tokenizer.json"):
        (tmp_path / "m/README.md").unlink(missing_ok=True)
        (tmp_path / "m" / name).symlink_to(tmp_path / "secret")
        with pytest.raises(ValueError, match=r"is a link to a file outside|is not JSON"):
            hub._files(tmp_path / "m")


@pytest.mark.parametrize(("content", "message"), [(b"\xff", "not UTF-8"), (b"x" * 9, "more than")])
def test_a_card_that_is_no_text_is_refused(
    tmp_path, weights, tokenizer, capsys, monkeypatch, content, message
):
    monkeypatch.setattr(actions, "MOST_CARD", 8)
    folder.save(tmp_path / "m", weights, tokenizer)
    (tmp_path / "m/README.md").write_bytes(content)
    assert run("export --format safetensors --model", tmp_path / "m", "--out", tmp_path / "o") == 1
    assert message in capsys.readouterr().err
