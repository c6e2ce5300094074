"""The page of several runs: figures side by side, tests, curves over one another, what differs."""

import copy
import json
import re
import subprocess
import sys

import pytest

from vclip_jax.evaluation.metrics import paired, predictions
from vclip_jax.report import curves, write_comparison
from vclip_jax.report.comparison_page import differences, labels

from .conftest import write
from .page import Page


@pytest.fixture
def folders(tmp_path, contents, save_answers):
    """Two finished runs; the second has another learning rate and better answers."""
    other = copy.deepcopy(contents)
    other["config.json"]["optimizer"]["learning_rate"] = 1e-3
    for result in other["zero_shot.json"].values():
        result |= {"accuracy": 0.901, "accuracy_ci95": [0.871, 0.925]}
    runs = [write(tmp_path / "first", contents), write(tmp_path / "second", other)]
    for folder, skill in zip(runs, (1.5, 1.8), strict=True):
        for seed, name in enumerate(contents["zero_shot.json"]):
            save_answers(folder, name, seed, skill=skill)
    return runs


def read(folders, **options) -> Page:
    return Page(write_comparison(folders, **{"resamples": 0, **options}).read_text())


def test_the_figures_of_all_runs_stand_side_by_side_with_their_intervals(folders, contents):
    page = read(folders)
    assert page.headings() == [
        "runs",
        "overview",
        "dataset-1",
        "dataset-2",
        "dataset-3",
        "retrieval",
        "training",
        "validation",
        "config",
    ]
    text = page.text.replace("\n", "")
    results = contents["zero_shot.json"].values()
    for result in results:
        for key in ("accuracy", "balanced_accuracy", "auc", "kappa", "f1", "ece"):
            low, high = result[f"{key}_ci95"]
            assert f"{result[key]:.3f}{low:.3f} – {high:.3f}" in text
    assert text.count("0.9010.871 – 0.925") == 6  # in the overview and by themselves
    mean = sum(result["accuracy"] for result in results) / 3
    assert re.search(rf"Mean of 3.*first.*{mean:.3f}.*second.*0\.901", text)
    for value in contents["retrieval.json"]["test"]["image_to_text"].values():
        assert text.count(f"{value:.3f}") >= 2
    assert page.text.count("step 4,000 of 4,000 (complete)") == 2


def test_runs_are_tested_on_the_images_that_both_answered_and_the_tests_are_left(folders):
    text = read(folders, resamples=200).text
    assert text.count("Differences, first minus second") == 3
    answers = [predictions.load(predictions.path_of(folder, "fives_like")) for folder in folders]
    found = paired.compare(*answers, resamples=200)["tests"]
    for test in found.values():
        assert f"{test['difference']:+.3f}".replace("-", "−") in text
        assert f"p {test['p']:.4f}" in text
    left = json.loads((folders[0] / "comparison.json").read_text())
    assert [row["dataset"] for row in left] == ["messidor_like", "fives_like", "refuge_like"]
    assert left[1]["tests"] == found
    assert left[0]["tests"]["accuracy"]["difference"] < 0


def test_answers_that_one_run_lacks_are_a_notice_and_other_evaluations_a_dash(folders):
    predictions.path_of(folders[1], "fives_like").unlink()
    results = json.loads((folders[1] / "zero_shot.json").read_text())
    del results["refuge_like"]
    (folders[1] / "zero_shot.json").write_text(json.dumps(results))
    text = read(folders, resamples=200).text
    assert "second is not compared on fives_like: there is no " in text
    assert text.count("Differences, first minus second") == 1
    assert "The mean is over datasets that all" in text
    assert re.search(r"second\s+0\.901[\d\s.–]+0\.901[\d\s.–]+–\s+0\.901", text)


def test_only_the_settings_that_differ_are_told():
    configs = {
        "a": {"seed": 1, "loss": {"kind": "softmax", "scale": 1}, "list": [1], "old": None},
        "b": {"seed": 1, "loss": {"kind": "sigmoid", "scale": 1.0}, "list": [1], "new": {}},
    }
    assert differences(configs) == [
        {"key": "loss.kind", "values": ["softmax", "sigmoid"]},
        {"key": "loss.scale", "values": ["1", "1.0"]},
        {"key": "old", "values": ["null", None]},
        {"key": "new", "values": [None, "{}"]},
    ]
    assert differences({"a": configs["a"], "b": configs["a"]}) == []


def test_the_page_says_which_settings_differ_or_that_none_does(folders):
    text = read(folders).text
    assert "optimizer.learning_rate" in text
    assert "0.001" in text
    assert "batch_size" not in text
    (folders[1] / "config.json").write_text((folders[0] / "config.json").read_text())
    assert "None: the configs are the same." in read(folders).text
    (folders[1] / "config.json").unlink()
    page = read(folders)
    assert "second has no config.json, so its settings are not compared." in page.text
    assert "config" not in page.headings()


def test_a_run_keeps_its_colour_where_another_one_has_no_curve():
    logs = {
        "a": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "eval/x/auc": 0.5}],
        "b": [{"step": 1, "mine": 2.0}, {"step": 3, "mine": 1.0, "eval/x/auc": 0.7}],
    }
    loss, mine = curves.overlaid_training(logs)
    assert (loss["title"], mine["title"]) == ("Loss", "mine")
    assert 'polyline class="c0"' in loss["chart"]
    assert 'polyline class="c1"' in mine["chart"]
    assert "c0" not in mine["chart"]
    charts = curves.overlaid_validation(logs, ["x"])
    assert [chart["title"] for chart in charts["x"]] == ["AUC"]
    assert "a: 0.5 at step 2" in charts["x"][0]["chart"]
    assert "b: 0.7 at step 3" in charts["x"][0]["chart"]


def test_a_run_in_progress_and_an_empty_one_are_shown_with_what_there_is(tmp_path, contents):
    rows = [*contents["metrics.jsonl"][:7], {"step": 80, "loss": float("nan")}]
    busy = write(tmp_path / "busy", {"metrics.jsonl": rows})
    page = read([busy, write(tmp_path / "empty", {})])
    assert page.headings() == ["runs", "training"]
    assert "busy: metrics.jsonl: 1 values are not finite" in page.text


def test_runs_are_called_by_as_much_of_their_path_as_tells_them_apart(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert labels(["runs/a", "runs/b/"]) == ["a", "b"]
    assert labels(["x/run", "y/run", "gs://z/other"]) == ["x/run", "y/run", "z/other"]
    assert labels([".", "run"]) == [tmp_path.name, "run"]
    with pytest.raises(ValueError, match=r"\./run is given twice"):
        labels(["./run", "other", "run"])


def test_hostile_text_stays_text_and_nothing_points_outside(tmp_path, contents):
    evil = '"><script>alert(1)<img src=x>'
    result = contents["zero_shot.json"]["refuge_like"]
    contents |= {"zero_shot.json": {evil: result}, "config.json": {evil: evil}}
    contents["metrics.jsonl"] = [{"step": 1, evil: 1.0, f"eval/{evil}/auc": 0.5}]
    runs = [write(tmp_path / evil, contents), write(tmp_path / "b", {"config.json": {"a": 1}})]
    path = write_comparison(runs, tmp_path / "new" / "page.html", resamples=0)
    page = Page(path.read_text())
    assert {"script", "img", "a", "link"}.isdisjoint(tag for tag, _ in page.tags)
    assert page.text.count(evil) > 5
    assert not re.search(r"https?:|url\(|@import", path.read_text())
    assert sorted(p.name for p in path.parent.iterdir()) == ["page.html", "page.json"]


def test_what_cannot_be_compared_is_one_line(folders, tmp_path):
    with pytest.raises(ValueError, match="1 runs: a page compares 2 to 7"):
        write_comparison(folders[:1])
    with pytest.raises(ValueError, match=r"name must end in \.html"):
        write_comparison(folders, tmp_path / "page.json")
    with pytest.raises(FileNotFoundError, match="workdir of a training run"):
        write_comparison([folders[0], tmp_path / "nowhere"])
    systems = write(tmp_path / "systems", {"table1.json": {}})
    with pytest.raises(ValueError, match="holds several systems"):
        write_comparison([folders[0], systems])


def test_the_command_compares_several_workdirs(tmp_path):
    runs = [str(write(tmp_path / name, {"config.json": {"seed": name}})) for name in "ab"]
    command = [sys.executable, "-m", "vclip_jax.report"]
    done = subprocess.run([*command, *runs], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "a/comparison.html")
    assert "Settings that differ" in (tmp_path / "a/comparison.html").read_text()
    wrong = subprocess.run([*command, runs[0], "--out", "x.html"], capture_output=True, text=True)
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "error: --out is for a comparison: name several workdirs\n",
    )
