"""`vclip embed`: the file it writes, alone and after a kill, and what it refuses."""

import csv
import json
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

import vclip_jax
from vclip_jax import datasets
from vclip_jax.console import commands
from vclip_jax.files.csv_lines import from_cell
from vclip_jax.predict.embed import __main__ as embed
from vclip_jax.predict.embed import command, parts

NAME = "synthetic/messidor_like-32px-12-s1"
PHOTOGRAPHS = 22
"""Enough for five parts of four and a rest, bad ones included."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder of photographs with two that cannot be read."""
    root = tmp_path_factory.mktemp("photographs")
    for name in ("eyes", "more"):
        (root / name).mkdir()
    rng = np.random.default_rng(0)
    for number in range(PHOTOGRAPHS):
        pixels = np.kron(rng.integers(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(root / ("eyes", "more")[number % 2] / f"{number:02}.png")
    for name in ("eyes/06.png", "=formula.jpg"):
        (root / name).write_bytes(b"\xff\xd8 no picture")
    return root


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data")
    datasets.prepare(NAME, "", str(path))
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "ROWS", 4)


@pytest.fixture(scope="module")
def clip(portable_folder) -> vclip_jax.Pretrained:
    return vclip_jax.load(portable_folder)


@pytest.fixture(scope="module", autouse=True)
def loaded_once(clip, portable_folder):
    """Spare each run the seconds of compiling the same model."""

    def load(model, *, step):
        same = model == str(portable_folder) and step == "latest"
        return clip if same else vclip_jax.load(model, step=step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "load", load)
        yield


@pytest.fixture
def run(capsys, portable_folder):
    def call(*words, model=portable_folder) -> tuple[int, str, str]:
        status = embed.main([str(word) for word in (model, *words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def whole(tmp_path_factory, folder, portable_folder, loaded_once) -> Path:
    """The file of the folder, written without interruption."""
    target = tmp_path_factory.mktemp("whole") / "whole.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "ROWS", 4)
        assert embed.main([str(portable_folder), str(folder), "--out", str(target)]) == 1
    return target


def about(path: Path) -> dict:
    return json.loads(pyarrow.parquet.read_schema(path).metadata[b"vclip_jax"])


# --- The file.


def test_the_rows_of_a_folder_are_what_the_model_says(whole, folder, clip):
    table = pyarrow.parquet.read_table(whole)
    paths = [path for path in sorted(folder.rglob("*.png")) if path.name != "06.png"]
    assert table["key"].to_pylist() == [str(path.relative_to(folder)) for path in paths]
    vectors = np.stack(table["vector"].to_pylist())
    np.testing.assert_allclose(vectors, clip.encode_image(paths), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert table["gate"].to_pylist() == ["; ".join(reasons) for reasons in clip.gate(paths)]
    for name in ("split", "label", "patient", "eye"):
        assert table[name].null_count == len(paths)


def test_photographs_that_cannot_be_read_are_listed_counted_and_exit_1(run, folder, tmp_path):
    target = tmp_path / "new" / "x.parquet"
    status, out, err = run(folder, "--out", target)
    assert status == 1
    assert out == f"{target}: {PHOTOGRAPHS - 1} photographs, vectors of 10 numbers\n"
    first, *others = err.splitlines()
    assert first == f"note: embedding {PHOTOGRAPHS + 1} photographs of the folder {folder}"
    assert others[-1] == (
        f"2 of the images could not be read: see {target.with_suffix('')}.rejects.csv"
    )
    assert "21 of 21 photographs are refused" in err
    rows = list(csv.DictReader(target.with_suffix(".rejects.csv").open()))
    assert [from_cell(row["key"]) for row in rows] == ["=formula.jpg", "eyes/06.png"]
    assert all(row["reason"].startswith("cannot read the image") for row in rows)
    assert str(folder) not in target.with_suffix(".rejects.csv").read_text()
    names = sorted(path.name for path in target.parent.iterdir())
    assert names == ["x.parquet", "x.rejects.csv"]


def test_the_metadata_name_the_model_and_no_place(whole, clip, portable_folder, folder):
    found = about(whole)
    assert len(found.pop("photographs_sha256")) == 64
    assert found == {
        "made_by": f"vclip_jax {metadata.version('vclip_jax')}",
        "model": portable_folder.name,
        "model_sha256": clip.weights_digest,
        "step": None,
        "dtype": "float32",
        "preprocessing": clip.config["data"],
        "dataset": None,
    }
    for place in (folder, portable_folder.parent):
        assert str(place).encode() not in whole.read_bytes()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("retina-small", "retina-small"),
        ("/home/somebody/runs/w/", "w"),
        ("hub:owner/name@v1", "hub:owner/name@v1"),
    ],
)
def test_a_model_is_named_without_its_place(model, name):
    assert command.name_of(model) == name


def test_a_dataset_has_its_columns_and_captions_only_if_asked_for(run, data_dir, tmp_path):
    records = list(datasets.open_source(NAME, data_dir, "test"))
    for options in ([], ["--captions"]):
        target = tmp_path / f"{len(options)}.parquet"
        status, _, err = run(NAME, "--data-dir", data_dir, "--out", target, *options)
        assert status == 0
        assert f"note: embedding 12 photographs of the built dataset {NAME}, test\n" in err
        table = pyarrow.parquet.read_table(target)
        assert table["key"].to_pylist() == [record["key"] for record in records]
        assert ("caption" in table.column_names) == bool(options)
        assert records[0]["caption"].encode() not in target.read_bytes() or options
    assert table["caption"].to_pylist() == [record["caption"] for record in records]
    source = datasets.open_source(NAME, data_dir, "test")
    assert table["label"].to_pylist() == [source.class_names[r["label"]] for r in records]
    assert table["eye"].to_pylist() == [r.get("facts", {}).get("eye") for r in records]
    for name in source.finding_names:
        rated = [r["findings"][name] for r in records]
        assert table[f"finding:{name}"].to_pylist() == [None if v < 0 else v for v in rated]
    found = about(target)
    assert (found["dataset"], found["split"]) == (NAME, "test")
    assert found["dataset_sha256"] == source.digest()
    assert found["classes"] == list(source.class_names)


# --- A command that is killed.

KILLED = """
import os, signal, sys
from vclip_jax.predict.embed import __main__ as embed, parts
parts.ROWS = 4
write = parts.Parts.write

def dying(self, number, rows):
    write(self, number, rows)
    if number == 1:
        (self.folder / "000002-half.parquet.1.tmp").write_bytes(b"half a part")
        os.kill(os.getpid(), signal.SIGKILL)

parts.Parts.write = dying
embed.main(sys.argv[1:])
"""


def test_a_command_that_is_killed_resumes_and_writes_the_same_file(
    run, whole, folder, portable_folder, tmp_path, monkeypatch
):
    target = tmp_path / "x.parquet"
    words = [str(portable_folder), str(folder), "--out", str(target)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], stdin=subprocess.DEVNULL)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()
    finished = sorted(path.name for path in (tmp_path / "x.parquet.parts").glob("*.parquet"))
    assert len(finished) == 2

    made = []
    write = parts.Parts.write
    monkeypatch.setattr(
        parts.Parts, "write", lambda self, n, rows: (made.append(n), write(self, n, rows))
    )
    status, _, _ = run(folder, "--out", target)
    assert status == 1
    assert made == [2, 3, 4, 5]
    assert target.read_bytes() == whole.read_bytes()
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["x.parquet", "x.rejects.csv"]


@pytest.mark.parametrize("step", ["pictures", "join", "remove"])
def test_a_command_that_is_stopped_at_the_end_resumes_too(
    run, whole, folder, tmp_path, monkeypatch, step
):
    target = tmp_path / "x.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, step, _interrupted)
        assert run(folder, "--out", target)[0] == commands.INTERRUPTED
    assert target.exists() == (step == "remove")
    (damaged,) = (tmp_path / "x.parquet.parts").glob("000003-*")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    status, _, err = run(folder, "--out", target)
    assert status == 1
    assert "note: 1 damaged parts are made again\n" in err
    assert target.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "x.parquet.parts").exists()


def _interrupted(*_):
    raise KeyboardInterrupt


def test_a_full_disk_is_one_line_and_what_is_finished_stays(run, folder, tmp_path, monkeypatch):
    write = parts.Parts.write

    def full(self, number, rows):
        if number == 2:
            raise OSError(28, "No space left on device")
        write(self, number, rows)

    monkeypatch.setattr(parts.Parts, "write", full)
    status, out, err = run(folder, "--out", tmp_path / "x.parquet")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == "error: [Errno 28] No space left on device"
    assert len(list((tmp_path / "x.parquet.parts").glob("*.parquet"))) == 2


def test_rows_of_other_photographs_or_options_are_not_mixed(run, data_dir, tmp_path, monkeypatch):
    target = tmp_path / "x.parquet"
    words = [NAME, "--data-dir", data_dir, "--out", target]
    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "join", _interrupted)
        run(*words)
    for other, what in ((["--split", "test[:50%]"], "photographs"), (["--captions"], "captions")):
        status, _, err = run(*words, *other)
        assert status == 1
        assert err.splitlines()[-1] == (
            f"error: {target}.parts has rows of an unfinished file with another {what}: name "
            "another --out, or remove the folder"
        )
    assert run(*words)[0] == 0


# --- What is refused.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{folder}", "--out", "x.csv"], "the name of the file must end in .parquet"),
        (["nowhere", "--out", "x.parquet"], "there is no such file or folder here"),
        (["{folder}", "--captions", "--out", "x.parquet"], "files have no captions"),
        (["{folder}", "--out", "there.parquet"], "exists: name another --out"),
        (["{folder}", "--step", "3", "--out", "x.parquet"], "has one model and no step 3"),
        (["{folder}", "--out", "there.parquet/x.parquet"], "Not a directory"),
    ],
)
def test_mistakes_are_one_line(run, folder, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("there.parquet").write_bytes(b"mine")
    status, out, err = run(*(word.format(folder=folder) for word in words))
    assert (status, out) == (1, "")
    (line,) = [line for line in err.splitlines() if not line.startswith("note: ")]
    assert line.startswith("error: ")
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["there.parquet"]
    assert Path("there.parquet").read_bytes() == b"mine"


def test_a_model_that_is_not_there_is_one_line(run, folder, tmp_path):
    status, _, err = run(folder, "--out", tmp_path / "x.parquet", model=tmp_path / "nowhere")
    assert status == 1
    assert "error: there is no " in err.splitlines()[-1]


# --- Batches.


def test_the_batches_of_a_part_begin_with_the_part(clip, monkeypatch):
    monkeypatch.setattr(clip, "batch_size", 3)
    sizes = []
    monkeypatch.setattr(
        clip, "embed", lambda squares: (sizes.append(len(squares)), np.zeros((len(squares), 10)))[1]
    )
    square = np.zeros((64, 64, 3), np.uint8)
    seen = [command.Seen({"key": str(i)}, square=None if i == 4 else square) for i in range(8)]
    counted = []
    rows, vectors = command.embed(clip, seen, counted.append)
    assert (sizes, counted) == ([3, 2, 2], [3, 3, 2])
    assert len(vectors) == 7
    assert all(row.square is None for row in rows)
    assert len(rows) == 8
