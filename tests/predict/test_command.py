"""`vclip predict`: inputs, outputs and failures."""

import csv
import dataclasses
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vclip_jax
from vclip_jax import prompts
from vclip_jax.console import commands
from vclip_jax.data.images import guarded
from vclip_jax.data.images.decode import decode
from vclip_jax.datasets.synthetic.case import Quality
from vclip_jax.datasets.synthetic.domains import sample_case
from vclip_jax.datasets.synthetic.render import render
from vclip_jax.files import packaged
from vclip_jax.predict import __main__ as predict
from vclip_jax.predict import classify, heat_maps, prior_matching
from vclip_jax.prompts import calibration, own


@pytest.fixture
def photographs(tmp_path):
    """A folder with a.png, b.jpg in a subfolder, and what is no image."""
    rng = np.random.default_rng(0)
    root = tmp_path / "photographs"
    (root / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.JPG"):
        pixels = rng.integers(0, 256, (70, 80, 3), np.uint8)
        Image.fromarray(pixels).save(root / name, "PNG" if name[-1] == "g" else "JPEG")
    (root / "notes.txt").write_text("no image")
    return root


def run(capsys, *arguments) -> tuple[int, str, str]:
    """With pictures that are none of a fundus: nobody looks, unless a test says so."""
    gate = () if "--gate" in arguments else ("--gate", "off")
    status = predict.main([str(argument) for argument in (*arguments, *gate)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_json_lines_hold_what_classify_says(capsys, portable_folder, photographs):
    status, out, err = run(
        capsys,
        "--model",
        portable_folder,
        "--prompts",
        "zh/idrid",
        "--format",
        "jsonl",
        photographs,
    )
    assert (status, err) == (0, f"note: {photographs}: 1 other files skipped (1 .txt)\n")
    rows = [json.loads(line) for line in out.splitlines()]
    paths = [photographs / "a.png", photographs / "sub/b.JPG"]
    assert [row["image"] for row in rows] == [str(path) for path in paths]
    expected = vclip_jax.load(portable_folder).classify(paths, "zh/idrid", gate="off")
    names = vclip_jax.Pretrained.prompt_set("zh/idrid").class_names
    for row, values in zip(rows, expected, strict=True):
        assert list(row["probabilities"]) == list(names)
        np.testing.assert_allclose(list(row["probabilities"].values()), values, atol=6e-5)
        assert row["prediction"] == names[values.argmax()]
        assert sum(row["groups"].values()) == pytest.approx(1, abs=1e-3)


def test_phrases_may_be_classes_and_csv_is_a_table(capsys, portable_folder, photographs):
    status, out, _ = run(
        capsys,
        "--model",
        portable_folder,
        "--prompt",
        "正常",
        "--prompt",
        "青光眼, 视盘",
        "--format",
        "csv",
        photographs / "a.png",
    )
    assert status == 0
    (row,) = csv.DictReader(io.StringIO(out))
    assert list(row) == ["image", "prediction", "正常", "青光眼, 视盘", "error"]
    assert float(row["正常"]) + float(row["青光眼, 视盘"]) == pytest.approx(1, abs=2e-4)


def test_without_a_model_the_packaged_one_answers_and_is_named(
    capsys, packaged_model, portable_folder, photographs, monkeypatch, tmp_path
):
    monkeypatch.setattr(commands, "_noted", set())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "retina-small").mkdir()  # not asked for
    photograph = photographs / "a.png"
    status, out, err = run(capsys, photograph)
    assert (status, err) == (
        0,
        "note: retina-small, the packaged model, answers; --model names another\n",
    )
    assert out == run(capsys, "--model", portable_folder, photograph)[1]
    (tmp_path / "retina-small").rmdir()
    assert run(capsys, "--model", "retina-small", photograph) == (0, out, "")


def test_without_any_model_the_command_asks_for_one(capsys, photographs, monkeypatch, tmp_path):
    monkeypatch.setattr(packaged, "ROOT", tmp_path)
    status, out, err = run(capsys, photographs / "a.png")
    assert (status, out) == (1, "")
    assert err == "error: this installation has no model retina-small: name a model with --model\n"


def test_lists_come_from_csv_files_and_standard_input(
    capsys, portable_folder, photographs, monkeypatch
):
    (photographs / "list.csv").write_text("\ufeffimage,grade\na.png,1\nsub/b.JPG,2\n", "utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{photographs / 'a.png'}\n\n"))
    status, out, _ = run(capsys, "--model", portable_folder, photographs / "list.csv", "-")
    assert status == 0
    names = [line.split(":  ")[0] for line in out.splitlines()]
    assert names == [str(photographs / name) for name in ("a.png", "sub/b.JPG", "a.png")]


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_a_bad_image_is_named_counted_and_no_reason_to_stop(
    capsys, portable_folder, photographs, form
):
    bad = photographs / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 not an image")
    status, out, err = run(
        capsys, "--model", portable_folder, "--format", form, bad, photographs / "a.png"
    )
    assert status == 1
    assert "bad.jpg: cannot read the image" in out
    assert len(out.splitlines()) == 2 + (form == "csv")
    assert err == "1 of the images could not be read\n"


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_a_terminal_gets_no_control_characters_of_names(
    capsys, portable_folder, photographs, monkeypatch, form
):
    hostile = photographs / "a\x1b[31m\u202e.png"
    (photographs / "a.png").rename(hostile)
    arguments = ("--model", portable_folder, "--format", form, hostile)
    if form == "csv":  # a file gets the name as it is
        assert "\x1b[31m\u202e" in run(capsys, *arguments)[1]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert "31m" in out
    assert not {"\x1b", "\u202e"} & set(out)


def test_a_photograph_that_takes_too_long_is_named_and_no_reason_to_stop(
    capsys, portable_folder, photographs, monkeypatch
):
    monkeypatch.setattr(guarded, "LIMITS", guarded.Limits(cpu_seconds=0.15))
    slow = photographs / "slow.png"
    Image.new("RGB", (5000, 5000)).save(slow, compress_level=1)
    status, out, err = run(capsys, "--model", portable_folder, slow, photographs / "a.png")
    assert (status, err) == (1, "1 of the images could not be read\n")
    first, second = out.splitlines()
    assert first.startswith(f"error: {slow}: cannot read the image: decoding it takes more than")
    assert second.startswith(str(photographs / "a.png"))


def test_other_formats_are_named(capsys, portable_folder, photographs):
    (photographs / "drawing.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n(%pipe%id) (r) file\n")
    status, out, _ = run(capsys, "--model", portable_folder, photographs / "drawing.jpg")
    assert status == 1
    assert "an EPS or PostScript file is not read: convert it to PNG or JPEG" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.png"], "nowhere.png: there is no such file"),
        (["{empty}"], "there is no image"),
        (["{list}"], "only 'grade'"),
        (
            ["--prompt", "Glaucoma", "--prompt", "Cataract", "{image}"],
            "vocabulary lacks 1 of 1",
        ),
        (["--prompts", "en/fives", "{image}"], "are the same to this model"),
        (["--prompts", "zh/fivs", "{image}"], "did you mean zh/fives"),
        (["--prompts", "labels", "{image}"], "there is no dataset here: give a prompt set such as"),
        (["--prompt", "一", "{image}"], "at least two classes"),
        (["--model", "{empty}", "{image}"], "it lacks config.json"),
    ],
)
def test_mistakes_are_one_line(capsys, portable_folder, photographs, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("grade\n1\n")
    places = {
        "empty": tmp_path / "empty",
        "list": tmp_path / "list.csv",
        "image": photographs / "a.png",
    }
    given = [argument.format(**places) for argument in arguments]
    status, out, err = run(capsys, "--model", portable_folder, *given)
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_prompts_that_are_cut_are_counted_once(capsys, portable_folder, photographs, caplog):
    long = "青光眼" * 13
    classes = [{"name": "a", "prompts": ["正常", long]}, {"name": "b", "prompts": ["视"]}]
    words = {"dataset": "d", "language": "zh", "classes": classes}
    (photographs / "words.json").write_text(json.dumps(words))
    for asked in (
        ("--prompt", "正常", "--prompt", long),
        ("--prompts", photographs / "words.json"),
    ):
        caplog.clear()
        status, *_ = run(
            capsys, "--checkpoint", portable_folder, *asked, photographs, photographs / "a.png"
        )
        assert status == 0
        (said,) = caplog.messages
        assert " prompts are cut after 38 tokens; '青光眼青光眼" in said


def test_heat_maps_are_written_beside_the_answers(capsys, portable_folder, photographs, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "A.png").write_bytes((photographs / "a.png").read_bytes())
    (other / "bad.jpg").write_bytes(b"\xff\xd8 not an image")
    inputs = "--model", portable_folder, "--prompts", "zh/refuge", photographs, other
    status, plain, _ = run(capsys, *inputs, "--format", "jsonl")
    assert status == 1
    heat = tmp_path / "new" / "heat"
    status, out, _ = run(capsys, *inputs, "--format", "jsonl", "--explain", heat)
    assert status == 1
    rows = [json.loads(line) for line in out.splitlines()]
    # Names that differ only in case are one file on some systems.
    names = ["a-heat.png", "b-heat.png", "A-2-heat.png"]
    assert [row.pop("explanation") for row in rows] == [*(str(heat / n) for n in names), ""]
    assert rows == [json.loads(line) for line in plain.splitlines()]
    assert sorted(path.name for path in heat.iterdir()) == sorted(names)

    clip = vclip_jax.load(portable_folder)
    path = photographs / "sub/b.JPG"
    square = clip.preprocess(path)[None]
    predicted = int(clip.classify([path], "zh/refuge", gate="off").argmax())
    expected = heat_maps.overlay(
        decode(path.read_bytes(), heat_maps.HEAT_SIDE, clip.config["data"]["fit"]),
        heat_maps.Explainer(clip, "zh/refuge")(square, [predicted])[0],
    )
    with Image.open(heat / "b-heat.png") as written:
        assert written.size == (heat_maps.HEAT_SIDE, heat_maps.HEAT_SIDE)
        difference = np.abs(np.asarray(written).astype(int) - expected)
    assert difference.max() <= 2  # another batch is added up in another order


def test_a_table_with_heat_maps_names_them(capsys, portable_folder, photographs, tmp_path):
    status, out, _ = run(
        capsys,
        "--model",
        portable_folder,
        "--format",
        "csv",
        "--explain",
        tmp_path / "heat",
        photographs / "a.png",
    )
    assert status == 0
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["explanation"] == str(tmp_path / "heat" / "a-heat.png")
    assert list(row)[-2:] == ["error", "explanation"]


def test_a_model_is_asked_its_own_prompts(capsys, portable_folder, photographs, tmp_path, caplog):
    folder = tmp_path / "m"
    shutil.copytree(portable_folder, folder)
    own.save(folder, prompts.from_phrases({"healthy": "正常", "ill": "青光眼"}, "two"))
    status, out, _ = run(capsys, "--model", folder, "--format", "jsonl", photographs / "a.png")
    assert status == 0
    assert list(json.loads(out)["probabilities"]) == ["healthy", "ill"]
    assert not caplog.messages

    status, out, _ = run(
        capsys, "--model", portable_folder, "--format", "jsonl", photographs / "a.png"
    )
    assert status == 0
    assert list(json.loads(out)["probabilities"]) == list(prompts.load("zh/fives").class_names)
    assert caplog.messages == ["this model has no prompts of its own: using zh/fives"]


def test_pipes_and_folders_named_as_images_are_errors_and_not_opened(
    capsys, portable_folder, photographs
):
    os.mkfifo(photographs / "pipe.jpg")
    (photographs / "list.jsonl").write_text(
        "".join(json.dumps({"image": name}) + "\n" for name in ("pipe.jpg", "sub", "a.png"))
    )
    status, out, err = run(
        capsys,
        "--model",
        portable_folder,
        photographs / "pipe.jpg",
        photographs / "list.jsonl",
    )
    assert status == 1
    assert [line.startswith("error: ") for line in out.splitlines()] == [True, True, True, False]
    assert out.count("a pipe, a socket or a device, not a file") == 2
    assert out.count("Is a directory") == 1
    assert "3 of the images could not be read" in err


def test_a_name_in_csv_is_one_cell_and_no_formula():
    names = ["a\nb.png,glaucoma", "a\rb.png", 'a"b.png', "=cmd|x!A0.png", "@SUM(1).png", "-1.png"]
    lines = [classify.LINES["csv"]({"image": name, "error": "e"}, ["x"]) for name in names]
    rows = list(csv.reader(io.StringIO("".join(f"{line}\n" for line in lines), newline="")))
    assert [row[1:] for row in rows] == [["", "", "e"]] * len(names)
    assert [Path(row[0]) for row in rows] == [Path(name) for name in names]
    assert not [row for row in rows if row[0][0] in "=@-+"]


def test_names_of_classes_do_not_reach_the_terminal_raw():
    row = {"image": "a.png", "prediction": "x", "probabilities": {"\x1b]0;t\x07": 1.0}}
    assert "\x1b" not in classify.LINES["table"](row, [])


# --- The gate.


@pytest.fixture
def mixed(tmp_path):
    """A folder with a fundus photograph, a page of noise, and what cannot be read."""
    root = tmp_path / "mixed"
    root.mkdir()
    case = dataclasses.replace(sample_case("fives_like", 4, 0), quality=Quality())
    Image.fromarray(render(case, 200)).save(root / "a.png")
    noise = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    Image.fromarray(noise).save(root / "b.png")
    (root / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


SAID = "gate: 1 of 2 photographs are refused (1 not a fundus photograph)"


def test_what_is_no_fundus_photograph_is_reported_beside_its_answer(capsys, portable_folder, mixed):
    asked = ["--model", portable_folder, "--prompts", "zh/refuge", mixed]
    status, out, err = run(capsys, *asked, "--format", "jsonl", "--gate", "report")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["gate"] for row in rows] == ["", "not a fundus photograph", ""]
    assert ["prediction" in row for row in rows] == [True, True, False]
    assert SAID in err
    assert status == 1  # c.png
    status, out, err = run(capsys, *asked, "--gate", "report")
    assert out.splitlines()[1].startswith(
        f"{mixed / 'b.png'}:  refused (not a fundus photograph)  "
    )
    status, out, _ = run(capsys, *asked, "--format", "csv", "--gate", "report")
    table = list(csv.DictReader(io.StringIO(out)))
    assert list(table[0]) == ["image", "prediction", "no glaucoma", "glaucoma", "error", "gate"]
    assert [row["gate"] for row in table] == ["", "not a fundus photograph", ""]


def test_with_exclude_it_has_no_answer(capsys, portable_folder, mixed):
    asked = ["--model", portable_folder, "--prompts", "zh/refuge", mixed, "--gate", "exclude"]
    _, out, err = run(capsys, *asked, "--format", "jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[1] == {"image": str(mixed / "b.png"), "gate": "not a fundus photograph"}
    assert "prediction" in rows[0]
    assert SAID in err
    _, out, _ = run(capsys, *asked)
    assert out.splitlines()[1] == f"{mixed / 'b.png'}:  refused (not a fundus photograph)"


def test_with_off_nobody_looks(capsys, portable_folder, mixed):
    asked = ["--model", portable_folder, "--prompts", "zh/refuge", mixed, "--gate", "off"]
    _, out, err = run(capsys, *asked, "--format", "jsonl")
    assert "gate" not in out + err


# --- Calibration.


def test_a_stated_prevalence_is_the_mean_answer_and_few_photographs_are_noted(
    capsys, portable_folder, tmp_path
):
    folder = tmp_path / "site"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(22):
        pixels = np.kron(rng.integers(0, 256, (5, 5, 3)), np.ones((9, 9, 1)))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")
    asked = ["--model", portable_folder, "--prompts", "zh/refuge", "--format", "jsonl", folder]
    _, out, err = run(capsys, *asked, "--prevalence", "glaucoma=.2")
    values = [json.loads(line)["probabilities"]["glaucoma"] for line in out.splitlines()]
    assert np.mean(values) == pytest.approx(0.2, abs=1e-3)
    assert "22 photographs are few to set offsets" in err
    before = vclip_jax.load(portable_folder).classify(
        sorted(folder.iterdir()), "zh/refuge", gate="off"
    )
    offsets = prior_matching.match(before, np.array([0.8, 0.2]))
    expected = calibration.calibrated(before, 1.0, offsets)[:, 1]
    np.testing.assert_allclose(values, expected, atol=6e-5)
    _, _, err = run(capsys, *asked, "--prevalence", "glaucoma=.2", "--gate", "report")
    assert "22 of the 22 photographs that set the offsets are refused by the gate" in err
    # With pictures the photographs are read twice: the same answers.
    heat = tmp_path / "heat"
    _, again, _ = run(capsys, *asked, "--prevalence", "glaucoma=.2", "--explain", heat)
    assert [json.loads(line)["probabilities"]["glaucoma"] for line in again.splitlines()] == values


def test_a_calibration_is_used_or_refused_in_one_line(capsys, portable_folder, tmp_path, mixed):
    clip = vclip_jax.load(portable_folder)
    words = prompts.load("zh/refuge")
    made = calibration.Calibration(
        model=clip.weights_digest,
        prompts=words.name,
        prompts_digest=calibration.digest_of(words),
        classes=words.class_names,
        temperature=3.0,
        offsets=(-1.0, 1.0),
        method="labels",
        data="a test",
        n=10,
    )
    file = tmp_path / "c.json"
    calibration.save(file, made)
    asked = ["--model", portable_folder, "--format", "jsonl", mixed / "a.png"]
    _, out, _ = run(capsys, *asked, "--prompts", "zh/refuge", "--calibration", file)
    expected = made.apply(clip.classify([mixed / "a.png"], words, calibration="off"))
    found = list(json.loads(out)["probabilities"].values())
    np.testing.assert_allclose(found, expected[0], atol=6e-5)
    status, out, err = run(capsys, *asked, "--prompts", "zh/idrid", "--calibration", file)
    assert (status, out) == (1, "")
    assert err.startswith("error: the calibration is for other prompts (zh/refuge)")
    calibration.save(tmp_path / "d.json", dataclasses.replace(made, model="0" * 64))
    _, _, err = run(capsys, *asked, "--prompts", "zh/refuge", "--calibration", tmp_path / "d.json")
    assert err.startswith("error: the calibration is for the model 000000000000, not for this one")
    _, _, err = run(capsys, *asked, "--calibration", tmp_path / "nowhere.json")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
