"""Towers that run without this package: as StableHLO, and as ONNX where its packages are there."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from safetensors.numpy import load_file

import vclip_jax
from vclip_jax.interop import folder
from vclip_jax.interop.__main__ import main
from vclip_jax.interop.export import onnx, stablehlo, towers

has_onnx = all(importlib.util.find_spec(name) for name in ("jax2onnx", "onnxruntime"))
with_onnx = pytest.mark.skipif(not has_onnx, reason="needs the [onnx] extra")
FORMATS = [pytest.param("stablehlo"), pytest.param("onnx", marks=with_onnx)]
LOADERS = {"stablehlo": stablehlo.load, "onnx": onnx.load}
ROOT = Path(__file__).parents[3]


def run(source: Path, kind: str, target: Path, *more: str) -> int:
    arguments = ["--format", kind, "--model", str(source), "--out", str(target), *more]
    return main(["export", *arguments])


@pytest.fixture(scope="module")
def exported(portable_folder, tmp_path_factory):
    """FORMAT -> a folder with the towers of `portable_folder`, exported once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "out"
            assert run(portable_folder, kind, made[kind]) == 0
        return made[kind]

    return get


@pytest.mark.parametrize("kind", FORMATS)
def test_any_number_of_inputs_gives_the_models_own_vectors(portable_folder, exported, kind):
    clip = vclip_jax.load(portable_folder, dtype="float32")
    loaded = LOADERS[kind](exported(kind))
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (5, 64, 64, 3), np.uint8)
    texts = ["青光眼", "正常", "视网膜病变正常青光眼", "病", "光"]
    tokens = clip.tokenizer.encode(texts, loaded.info["tokenizer"]["context_length"])
    for n in (2, 5):
        np.testing.assert_allclose(
            loaded.encode_image(images[:n]), clip.encode_image(list(images[:n])), atol=1e-5
        )
        np.testing.assert_allclose(
            loaded.encode_text(tokens[:n]), clip.encode_text(texts[:n]), atol=1e-5
        )


@pytest.mark.parametrize("kind", FORMATS)
def test_the_json_says_how_to_call_the_towers(portable_folder, exported, kind):
    info = json.loads((exported(kind) / f"{kind}.json").read_text())
    image, text = info["towers"]["image"], info["towers"]["text"]
    assert (image["input"]["shape"], image["input"]["type"]) == (["batch", 64, 64, 3], "uint8")
    assert (text["input"]["shape"], text["input"]["type"]) == (["batch", 40], "int32")
    for tower in (image, text):
        assert tower["output"]["shape"] == ["batch", 10]
        assert 0 <= tower["parity"]["max_abs_error"] < 1e-5
        assert tower["parity"]["batches"] == [1, 3]
        assert (exported(kind) / tower["file"]).is_file()
    assert info["preprocessing"]["image_size"] == 64
    assert info["preprocessing"]["fit"] == "squash"
    assert info["tokenizer"]["file"] == "vocab.txt"
    scale = vclip_jax.load(portable_folder, dtype="float32").logit_scale
    assert info["logit_scale"] == pytest.approx(np.exp(scale))
    assert info["weights"]["sha256"] == towers.sha256(exported(kind) / "model.safetensors")


def test_stablehlo_is_for_three_platforms_and_takes_the_weights_that_it_names(exported):
    source = exported("stablehlo")
    info = json.loads((source / "stablehlo.json").read_text())
    for name, tower in info["towers"].items():
        module = export.deserialize(bytearray((source / f"{name}.stablehlo").read_bytes()))
        assert list(module.platforms) == tower["platforms"] == ["cpu", "cuda", "tpu"]
        assert len(tower["arguments"]) == len(module.in_avals) == len(module.module_kept_var_idx)
        assert tower["arguments"][-1] == tower["input"]["name"]
        assert (source / f"{name}.stablehlo").stat().st_size < 300_000  # no weights within
    image, text = (set(info["towers"][name]["arguments"][:-1]) for name in ("image", "text"))
    assert all(name.startswith("visual.") for name in image)
    assert not image & text
    assert image | text == set(load_file(source / "model.safetensors")) - {"logit_scale"}


@pytest.mark.parametrize("kind", FORMATS)
def test_the_documented_program_needs_none_of_this_package(exported, kind, monkeypatch):
    text = (ROOT / "docs" / "export.md").read_text("utf-8")
    (program,) = (code for code in re.findall(r"```python\n(.*?)```", text, re.S) if kind in code)
    assert "vclip_jax" not in program
    monkeypatch.chdir(exported(kind))
    rng = np.random.default_rng(1)
    given = {
        "images": rng.integers(0, 256, (2, 64, 64, 3), np.uint8),
        "tokens": rng.integers(1, 10, (3, 40), np.int32),
    }
    found = dict(given)
    exec(program, found)
    loaded = LOADERS[kind](exported(kind))
    vectors = loaded.encode_image(given["images"]), loaded.encode_text(given["tokens"])
    logits = loaded.info["logit_scale"] * vectors[0] @ vectors[1].T
    np.testing.assert_allclose(found["probabilities"], jax.nn.softmax(logits), atol=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_exported_folder_is_a_portable_one(portable_folder, exported, kind):
    weights, tokenizer = folder.load(exported(kind))
    own, own_tokenizer = folder.load(portable_folder)
    assert weights.config == own.config
    assert tokenizer == own_tokenizer
    assert (exported(kind) / "README.md").read_text() == (portable_folder / "README.md").read_text()
    assert not list(exported(kind).glob("*.part"))


def test_what_is_there_is_kept_unless_told_otherwise(exported, portable_folder, capsys):
    source = exported("stablehlo")
    before = (source / "image.stablehlo").stat().st_mtime_ns
    assert run(portable_folder, "stablehlo", source) == 1
    assert "pass --overwrite" in capsys.readouterr().err
    assert (source / "image.stablehlo").stat().st_mtime_ns == before


def test_towers_of_other_weights_are_refused(exported, tmp_path, tiny_weights, tokenizer):
    for path in exported("stablehlo").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    folder.save(tmp_path, tiny_weights(seed=5), tokenizer, origin="a test", overwrite=True)
    with pytest.raises(ValueError, match="made from other weights") as caught:
        stablehlo.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "image.stablehlo").write_bytes(b"junk"), "damaged"),
        (lambda path: (path / "text.stablehlo").unlink(), "there is no"),
        (lambda path: (path / "stablehlo.json").write_text("{"), "damaged"),
        (lambda path: (path / "stablehlo.json").unlink(), "export --format stablehlo"),
        (lambda path: (path / "model.safetensors").unlink(), "there is no"),
    ],
)
def test_damaged_folders_are_told_in_one_line(exported, tmp_path, damage, message):
    for path in exported("stablehlo").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        stablehlo.load(tmp_path)
    assert "\n" not in str(caught.value)


def elsewhere(source: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Load a folder in another process."""
    program = (
        "import sys; from vclip_jax.interop.export import stablehlo\n"
        "try: stablehlo.load(sys.argv[1], trust=len(sys.argv) > 2)\n"
        "except ValueError as error: sys.exit(str(error))"
    )
    command = [sys.executable, "-c", program, str(source), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_programs_of_another_process_run_on_request_alone(exported):
    found = elsewhere(exported("stablehlo"))
    assert found.returncode == 1
    assert "pass trust=True" in found.stderr.splitlines()[-1]
    assert elsewhere(exported("stablehlo"), "trust").returncode == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_a_tower_that_was_changed_is_refused_by_its_digest(exported, tmp_path, kind):
    for path in exported(kind).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tower = tmp_path / f"text.{kind}"
    content = bytearray(tower.read_bytes())
    content[len(content) // 2] ^= 1
    tower.write_bytes(content)
    with pytest.raises(ValueError, match=rf"text\.{kind} is damaged or not the one") as caught:
        LOADERS[kind](tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", FORMATS)
def test_towers_hold_no_path_of_the_machine_that_made_them(exported, kind):
    for path in towers.files(exported(kind), kind):
        content = path.read_bytes()
        assert not re.findall(rb"[\w./-]*\.py\b", content), path
        for place in (Path(jax.__file__).parent, ROOT, Path.home(), exported(kind)):
            assert str(place).encode() not in content


def test_towers_that_differ_are_not_exported(portable_folder, tmp_path):
    weights, tokenizer = folder.load(portable_folder)

    def wrong(part: Path):
        (part / "image.stablehlo").write_bytes(b"")
        return dict.fromkeys(("image", "text"), lambda inputs: np.zeros((len(inputs), 10)))

    with pytest.raises(ValueError, match="image tower differs from the model by"):
        towers.save(
            tmp_path / "out", "stablehlo", weights, tokenizer, wrong, ("jax",), card="a card"
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("left", ["link", "folder"])
def test_what_lies_under_the_name_of_an_unfinished_export_is_not_used(
    portable_folder, tmp_path, left
):
    """A link was followed: what it led to was moved or deleted."""
    weights, tokenizer = folder.load(portable_folder)
    mine, target = tmp_path / "mine", tmp_path / "m"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    target.mkdir()
    if left == "link":
        (target / ".new.part").symlink_to(mine)
    else:
        (target / ".new.part").mkdir()
        (target / ".new.part/text.stablehlo").write_text("of a killed export")

    def seen(part: Path):
        assert list(part.iterdir()) == []
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        towers.save(target, "stablehlo", weights, tokenizer, seen, (), card="")
    assert [path.name for path in mine.iterdir()] == ["thesis.txt"]
    assert not (target / ".new.part").exists()


def test_a_text_tower_alone_is_refused(tiny_weights, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="text tower alone"):
        stablehlo.save(tmp_path / "out", tiny_weights("text"), tokenizer, card="a card")
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(monkeypatch, tmp_path, portable_folder, capsys):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert run(portable_folder, "onnx", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "pip install 'vclip_jax[onnx]'" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
