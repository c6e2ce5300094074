"""`vclip datasets`: what it prints and how it fails."""

import json
import subprocess
import sys

import numpy as np
import pytest

from vclip_jax.datasets import DatasetError, SourceNeededError, open_source, prepare
from vclip_jax.datasets.__main__ import main
from vclip_jax.datasets.ingest import data_card as card

from ..audit.photographs import jpeg


def test_build_list_and_show(tmp_path, write_idrid, capsys):
    source = write_idrid(tmp_path / "source", train=10, test=3)
    data_dir = str(tmp_path / "data")
    assert main(["build", "idrid", "--source", str(source), "--data-dir", data_dir]) == 0
    printed = capsys.readouterr().out
    assert "test: 3 records" in printed
    assert f"built in {data_dir}" in printed

    assert main(["build", "idrid", "--source", str(source), "--data-dir", data_dir]) == 0
    assert "was built before" in capsys.readouterr().out

    assert main(["list", "--data-dir", data_dir]) == 0
    printed = capsys.readouterr().out
    assert "synthetic" in printed
    assert "idrid/512px-q92 2.0.0" in printed

    assert main(["show", "idrid", "--data-dir", data_dir]) == 0
    printed = capsys.readouterr().out
    assert "test: 3 records" in printed
    assert "0 no diabetic retinopathy: 1, such as test/IDRiD_001: " in printed


def test_what_was_left_out_is_printed(tmp_path, write_idrid, capsys):
    source = write_idrid(tmp_path / "source", train=10)
    images = source / "B. Disease Grading" / "1. Original Images" / "a. Training Set"
    (images / "IDRiD_004.jpg").write_bytes(b"junk")
    arguments = ["build", "idrid", "--source", str(source), "--data-dir", str(tmp_path / "data")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "10 listed = 9 kept + 1 rejected" in printed
    assert "rejected, not an image: 1" in printed


def test_a_miniature_is_written_built_and_exported(tmp_path, capsys):
    folder, data = tmp_path / "fives", str(tmp_path / "data")
    assert main(["fixture", "fives", str(folder)]) == 0
    assert main(["fixture", "fives", str(folder)]) == 1
    assert "is not empty" in capsys.readouterr().err
    build = ["build", "fives", "--source", str(folder), "--data-dir", data]
    assert main([*build, "--max-side", "64", "--crop", "--anonymous"]) == 0
    assert (tmp_path / "data/fives/64px-q92-crop-anonymous/2.0.0/card.md").is_file()
    arguments = ["export", "fives", "--data-dir", data, "--split", "train+test"]
    assert main([*arguments, "--out", str(tmp_path / "tars"), "--shard-size", "10"]) == 0
    assert "16 records in 2 shards" in capsys.readouterr().out
    assert main(["build", "generic", "--source", str(tmp_path / "tars"), "--data-dir", data]) == 0
    assert "16 listed = 16 kept + 0 rejected" in capsys.readouterr().out


def test_ready_squares_are_built(tmp_path, capsys):
    folder, data = tmp_path / "fives", str(tmp_path / "data")
    assert main(["fixture", "fives", str(folder)]) == 0
    build = ["build", "fives", "--source", str(folder), "--data-dir", data, "--seed", "2"]
    assert main([*build, "--ready", "48"]) == 1
    assert "fit must be one of squash, pad, fundus" in capsys.readouterr().err
    assert main([*build, "--ready", "48", "--fit", "fundus", "--raw"]) == 0
    record = open_source("fives/ready48px-fundus-raw-seed2", data, "train")[0]
    assert record["fitted"] == "fundus"
    assert record["image"].startswith(b"P6\n48 48\n255\n")
    assert len(record["image"]) == 13 + 3 * 48**2


def test_a_run_can_name_ready_squares_that_are_yet_to_be_built(tmp_path):
    folder, data = tmp_path / "fives", str(tmp_path / "data")
    assert main(["fixture", "fives", str(folder)]) == 0
    name = "fives/ready40px-pad-q90"
    with pytest.raises(DatasetError, match="--ready 40 --fit pad --data-dir"):
        open_source(name, data, "train")
    with pytest.raises(SourceNeededError, match=r"config\.data\.source"):
        prepare(name, "", data)
    prepare(name, folder, data)
    assert open_source(name, data, "train")[0]["fitted"] == "pad"
    for other in ("fives/ready40px-round-q90", "fives/40px"):
        with pytest.raises(DatasetError, match="no dataset is called"):
            prepare(other, folder, data)


def test_a_dataset_of_a_wrong_name_is_told_what_is_built(tmp_path):
    folder, data = tmp_path / "own", str(tmp_path / "data")
    assert main(["fixture", "generic", str(folder)]) == 0
    build = ["build", "generic", "--source", str(folder), "--name", "mine", "--data_dir", data]
    assert main(build) == 0
    with pytest.raises(DatasetError, match=r"'mien', did you mean mine\? use .* built .*\(mine\)"):
        prepare("mien", "", data)


def test_a_synthetic_dataset_is_built_and_shown(tmp_path, capsys):
    build = "build synthetic --size 32 --count 12 --seed 5 --workers 1 --data-dir"
    assert main([*build.split(), str(tmp_path)]) == 0
    name = "synthetic/synfundus_like-32px-12-s5"
    assert main(["show", name, "--data-dir", str(tmp_path)]) == 0
    assert f"{name}: {tmp_path}" in capsys.readouterr().out


def test_what_contradicts_itself_and_what_was_guessed_is_printed(tmp_path, capsys):
    source, data = tmp_path / "mine", str(tmp_path / "data")
    (source / "images").mkdir(parents=True)
    for index in range(5):
        content = jpeg(np.full((48, 48, 3), 40 * min(index, 3), np.uint8))  # 3 and 4 are the same
        (source / f"images/{index}.jpg").write_bytes(content)
    (source / "images/5.jpg").write_bytes((source / "images/0.jpg").read_bytes())
    grades = ("mild", "no DR", "mild", "mild", "no DR", "mild")
    rows = [f"{i},{grade},{'train' if i < 2 else 'test'}" for i, grade in enumerate(grades)]
    (source / "t.csv").write_text("\n".join(["id_code,Grade,split", *rows]))
    build = ["build", "generic", "--source", str(source), "--name", "mine", "--data-dir", data]
    options = ["--label-column", "grade", "--classes", "no DR,mild", "--ordered", "yes"]
    assert main([*build, *options]) == 0
    printed = capsys.readouterr().out
    assert "classes: no DR 2, mild 4" in printed
    assert "warning: 1 photographs occur twice with different classes" in printed
    assert "warning: 1 photographs occur twice in different splits" in printed
    assert "note: t.csv: image is 'id_code', label is 'Grade', split is 'split'." in printed
    card = json.loads((tmp_path / "data/mine/512px-q92/2.0.0/card.json").read_text())
    assert card["ordered_classes"] is True
    build[build.index("mine")] = "hidden"
    assert main([*build, *options, "--anonymous"]) == 0
    assert "note: t.csv: image is 'id_code'" in capsys.readouterr().out
    card = (tmp_path / "data/hidden/512px-q92-anonymous/2.0.0/card.json").read_text()
    assert "t.csv" not in card
    assert main(["show", "mine", "--data-dir", data]) == 0
    assert "0 no DR: 1, such as images/1.jpg" in capsys.readouterr().out


def test_captions_without_classes_are_built_and_read(tmp_path, capsys):
    for index in range(3):
        (tmp_path / f"{index}.jpg").write_bytes(jpeg(np.full((48, 48, 3), 40 * index, np.uint8)))
    rows = [f"{index}.jpg,the eye {index},train" for index in range(3)]
    (tmp_path / "t.csv").write_text("\n".join(["image,caption,split", *rows]))
    data = str(tmp_path / "data")
    assert main(["build", "generic", "--source", str(tmp_path), "--data-dir", data]) == 0
    assert main(["show", "generic", "--data-dir", data]) == 0
    assert "no class: 3, such as" in capsys.readouterr().out
    records = open_source("generic", data, "train")
    assert {record["caption"] for record in records} == {f"the eye {i}" for i in range(3)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["build", "idrid", "--source", "/nowhere"], "not IDRiD's disease grading as distributed"),
        (["build", "synthetic", "--domain", "mars"], "unknown synthetic domain 'mars'"),
        (["build", "synthetic", "--count", "0"], "count"),
        (["show", "fives"], "the dataset 'fives' is not in"),
    ],
)
def test_an_error_is_one_line_and_status_1(tmp_path, capsys, arguments, message):
    assert main([*arguments, "--data-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_wrong_usage_is_status_2(capsys):
    for arguments in ([], ["build"], ["build", "idrid"], ["build", "mnist"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    capsys.readouterr()


def test_the_module_runs_without_tensorflow_and_torch(tmp_path):
    code = (
        "import sys; from vclip_jax.datasets.__main__ import main;"
        f"main(['list', '--data-dir', {str(tmp_path)!r}]);"
        "print([m for m in ('tensorflow', 'torch', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_build_on_the_way_to_a_run_warns_too(tmp_path, capsys):
    for key in ("train/dr/1.jpg", "train/amd/2.jpg", "test/dr/3.jpg"):
        (tmp_path / "mine" / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mine" / key).write_bytes(jpeg(np.full((48, 48, 3), 90, np.uint8)))
    prepare("generic", tmp_path / "mine", tmp_path / "data")
    warned = capsys.readouterr().err
    assert "generic: warning: 1 photographs occur twice with different classes" in warned
    assert "generic: warning: 1 photographs occur twice in different splits" in warned


def test_control_characters_in_names_reach_no_terminal(tmp_path, capsys):
    for name in ("evil\x1b]0;pwn\a", "normal"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        content = jpeg(np.full((48, 48, 3), 40 + len(name), np.uint8))
        (tmp_path / "mine" / name / "a.jpg").write_bytes(content)
    (tmp_path / "mine" / "t\x1b[31mX.txt").write_text("notes")
    data = str(tmp_path / "data")
    build = ["build", "generic", "--source", str(tmp_path / "mine"), "--name", "mine"]
    assert main([*build, "--data-dir", data]) == 0
    assert main(["show", "mine", "--data-dir", data]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "evil\\x1b" in printed
    assert "\x1b" not in next((tmp_path / "data").rglob("card.md")).read_text()


def test_one_class_is_shown_and_warned_of():
    made = {
        "splits": {"train": {"records": 3, "classes": {"no class": 1, "dr": 2}}},
        "listed": 3,
        "kept": 3,
        "rejected": {},
        "classes": ["dr"],
        "notes": [],
        "identical_images": {"examples": []},
    }
    lines = card.summary(made)
    assert "classes: dr 2, no class 1" in lines
    assert any(
        line.startswith("warning: all photographs with a class have the class 'dr'")
        for line in lines
    )
    made["classes"], made["splits"]["test"] = ["amd", "dr"], {"records": 1, "classes": {"amd": 1}}
    assert not card.warnings(made)
    made["classes"], made["splits"] = [], {"train": {"records": 3, "classes": {"no class": 3}}}
    assert not any("class" in line for line in card.summary(made))


def test_a_build_that_is_refused_still_tells_what_it_read(tmp_path, capsys):
    source = tmp_path / "source"
    source.mkdir()
    rows = "".join(f"{i}.jpg,dr,P{i}\n" for i in range(30))
    (source / "t.csv").write_text(f"image,label,patient_id\n{rows}")
    (source / "0.jpg").write_bytes(b"no picture")
    options = ["--source", str(source), "--data-dir", str(tmp_path / "data"), "--workers", "1"]
    assert main(["build", "generic", *options]) == 1
    printed = capsys.readouterr().err
    assert "more than the" in printed
    assert "note: Patients are those of the column 'patient_id'." in printed
