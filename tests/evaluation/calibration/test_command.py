"""`vclip calibrate`: what it prints and writes, with labels and without; who uses the file."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vclip_jax
from vclip_jax import datasets, prompts
from vclip_jax.evaluation.calibration import __main__ as command
from vclip_jax.evaluation.calibration import experiment
from vclip_jax.prompts import calibration

NAME = "synthetic/fives_like-32px-80-s1"
STATED = "normal=.4,amd=.2,dr=.3,glaucoma=.1"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data")
    datasets.prepare(NAME, "", str(path))
    return path


@pytest.fixture(scope="module")
def clip(portable_folder):
    return vclip_jax.load(portable_folder)


@pytest.fixture
def run(capsys, portable_folder, data_dir):
    def call(*words) -> tuple[int, str, str]:
        fixed = ["--model", portable_folder, "--data-dir", data_dir]
        status = command.main([str(word) for word in (*words, *fixed)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    call.data_dir = data_dir
    return call


def test_labels_are_fitted_on_the_draw_and_measured_on_the_others(run, clip, data_dir, tmp_path):
    out = tmp_path / "c.json"
    status, said, _ = run(NAME, "--prompts", "zh/fives", "--shots", 20, "--out", out)
    assert status == 0
    assert f"fitted on 20 labelled photographs of {NAME}:test; measured on 60 others" in said
    for figure in experiment.FIGURES:
        assert f"\n{figure} " in said
    (found,) = calibration.load(out)
    assert (found.n, found.seed, found.method) == (20, 0, "labels")
    assert (found.figures["how"], found.figures["n"]) == ("held out", 60)
    assert found.model == clip.weights_digest
    row = found.figures["nll"]
    assert row["difference"] == pytest.approx(row["after"] - row["before"])
    assert row["difference_ci95"][0] <= row["difference"] <= row["difference_ci95"][1]


def test_answers_move_to_the_shares_of_the_classes_where_the_model_is_used(run, tmp_path):
    out, moved = tmp_path / "c.json", tmp_path / "moved.json"
    run(NAME, "--prompts", "zh/fives", "--out", out)
    status, said, _ = run(NAME, "--prompts", "zh/fives", "--out", moved, "--at", STATED)
    assert status == 0
    assert "the figures are without this move" in said
    (one,), (two,) = calibration.load(out), calibration.load(moved)
    labels = [record["label"] for record in datasets.open_source(NAME, run.data_dir, "test")]
    here = np.bincount(labels) / len(labels)
    # Bayes: posterior odds are prior odds times a factor that stays.
    odds = np.exp(np.subtract(two.offsets, one.offsets)) * here
    np.testing.assert_allclose(odds / odds.sum(), [0.4, 0.2, 0.3, 0.1], atol=1e-6)
    assert sum(two.offsets) == pytest.approx(0, abs=1e-9)
    assert two.temperature == one.temperature
    assert two.prevalence["glaucoma"] == 0.1


def test_a_class_without_a_labelled_photograph_has_no_share_to_move():
    with pytest.raises(ValueError, match="and amd has none"):
        experiment.prior_shift(np.array([0, 0, 2]), np.array([0.5, 0.3, 0.2]), ["no", "amd", "dr"])


def test_where_few_are_left_over_figures_are_cross_validated(run, tmp_path):
    out = tmp_path / "c.json"
    _, said, _ = run(NAME, "--prompts", "zh/fives", "--out", out, "--folds", 4)
    assert f"fitted on 80 labelled photographs of {NAME}:test; measured by 4-fold cross" in said
    (found,) = calibration.load(out)
    assert (found.n, found.figures["n"]) == (80, 80)


def test_balanced_accuracy_that_falls_is_said():
    row = {"before": 0.5, "after": 0.4, "difference": -0.1}
    row |= {f"{key}_ci95": None for key in row}
    figures = dict.fromkeys(experiment.FIGURES, row)
    assert "balanced accuracy falls by 0.100" in experiment.format_figures(figures)
    figures["balanced_accuracy"] = {**row, "difference": 0.1}
    assert "falls" not in experiment.format_figures(figures)


def test_a_class_without_photographs_and_worse_probabilities_are_warned_of():
    nll = {"before": 1.2, "after": 1.9}
    absent, worse = experiment.warnings_on(
        np.array([0, 2, 2]), {"nll": nll}, ["normal", "amd", "dr"]
    )
    assert "no labelled photograph is of amd" in absent
    assert "1.200 before, 1.900 after" in worse
    better = {"nll": {"before": 1.2, "after": 1.1}}
    assert experiment.warnings_on(np.array([0, 1, 2]), better, ["normal", "amd", "dr"]) == []


def test_without_labels_the_mean_answer_is_what_was_stated(run, clip, tmp_path):
    folder = tmp_path / "photographs"
    folder.mkdir()
    rng = np.random.default_rng(0)
    paths = []
    for number in range(24):
        paths.append(folder / f"{number:02}.png")
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(paths[-1])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "c.json"
    status, said, _ = run(
        folder, "--prompts", "zh/fives", "--prevalence", STATED, "--out", out, "--gate", "off"
    )
    assert status == 0
    assert "set on 24 photographs of a folder without labels" in said
    assert "24 photographs are few to set offsets" in said
    values = clip.classify(paths, "zh/fives", calibration=out, gate="off")
    np.testing.assert_allclose(values.mean(axis=0), [0.4, 0.2, 0.3, 0.1], atol=1e-4)
    (found,) = calibration.load(out)
    assert found.prevalence["diabetic retinopathy"] == 0.3
    assert set(found.figures["dependence"]) == set(found.classes)
    assert str(folder) not in out.read_text()


def test_a_built_dataset_without_its_labels_says_what_they_would(run, tmp_path):
    out = tmp_path / "c.json"
    _, said, _ = run(NAME, "--prompts", "zh/fives", "--prevalence", STATED, "--out", out)
    assert "accuracy" in said
    (found,) = calibration.load(out)
    assert found.figures["how"] == "unused labels"
    # Prompts that are for other classes than the labels: nothing to measure by.
    status, said, _ = run(NAME, "--prompts", "zh/refuge", "--prevalence", "glaucoma=.1")
    assert status == 0
    assert "nll" not in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--shots", "5"], "no such dataset in"),
        ([NAME, "--split", "train"], "has no split 'train': it has test"),
        ([NAME, "--prompts", "zh/idrid"], "is for the classes no diabetic retinopathy"),
        (["{image}"], "holds photographs without labels: state"),
        ([NAME, "--prevalence", "normal=.6"], "the prevalence lacks age-related"),
        (["{image}", "--prompts", "zh/fives", "--prevalence", STATED], "name at least 20"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, words, message):
    image = tmp_path / "a.png"
    Image.new("RGB", (40, 40), "orange").save(image)
    status, _, err = run(*[word.replace("{image}", str(image)) for word in words])
    assert status == 1
    last = err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prevalence", "normal"], "'normal' is not a class with a share above 0 and below 1"),
        (["--prevalence", "normal=0"], "'normal=0' is not a class with a share"),
        (["--prevalence", "normal=.6,normal=.2"], "'normal' is given twice"),
        (["--prevalence", "normal=.6", "--shots", "5"], "not allowed with argument"),
        (["--shots", "none"], "'none' is not a positive number"),
        (["--gate", "shut"], "invalid choice: 'shut'"),
    ],
)
def test_wrong_command_lines_are_refused_before_anything_is_loaded(capsys, words, message):
    with pytest.raises(SystemExit) as end:
        command.main(["--model", "W", NAME, *words])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_a_file_beside_the_model_is_used_unless_it_is_switched_off(run, portable_folder, tmp_path):
    folder = Path(shutil.copytree(portable_folder, tmp_path / "m"))
    beside = folder / calibration.FILE
    raw = vclip_jax.load(folder)
    photograph = [np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)]
    before = raw.classify(photograph, "zh/fives", gate="off")
    run(NAME, "--prompts", "zh/fives", "--shots", 20, "--out", beside)
    found = vclip_jax.load(folder)
    (entry,) = found.calibrations
    assert entry.prompts == "zh/fives"
    after = found.classify(photograph, "zh/fives", gate="off")
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, entry.apply(before), rtol=1e-5)
    off = found.classify(photograph, "zh/fives", calibration="off", gate="off")
    np.testing.assert_array_equal(off, before)
    by_file = raw.classify(photograph, "zh/fives", calibration=beside, gate="off")
    np.testing.assert_array_equal(by_file, after)
    other = found.classify(photograph, "zh/idrid", gate="off")
    np.testing.assert_array_equal(other, raw.classify(photograph, "zh/idrid", gate="off"))


def test_a_file_for_another_model_or_other_prompts_is_refused(run, portable_folder, tmp_path):
    folder = Path(shutil.copytree(portable_folder, tmp_path / "m"))
    beside = folder / calibration.FILE
    run(NAME, "--prompts", "zh/fives", "--shots", 20, "--out", beside)
    with pytest.raises(ValueError, match="is for other prompts"):
        vclip_jax.load(portable_folder).classify([], "zh/idrid", calibration=beside)
    content = json.loads(beside.read_text())
    beside.write_text(json.dumps({**content, "model": "0" * 64}))
    stale = vclip_jax.load(folder)
    with pytest.raises(ValueError, match="is for the model 000000000000, not for this"):
        stale.classify([], "zh/fives")
    assert stale.classify([], "zh/fives", calibration="off").shape == (0, 4)


def test_prompts_of_a_file_may_be_read_from_it(run, tmp_path):
    words = tmp_path / "mine.json"
    words.write_text(prompts.dumps(prompts.load("zh/fives")))
    out = tmp_path / "c.json"
    status, _, _ = run(NAME, "--prompts", words, "--shots", 10, "--out", out)
    assert status == 0
    assert calibration.load(out)[0].prompts == "mine"
