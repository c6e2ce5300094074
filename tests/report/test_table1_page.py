"""The page of several systems: a row for each, figures beside the paper's, tests, links."""

import copy
import json
import subprocess
import sys

import pytest

from vclip_jax.evaluation.metrics import paired, paper, predictions
from vclip_jax.report import write_systems_report

from .page import Page


@pytest.fixture
def folder(tmp_path, contents, save_answers):
    """A workdir with two systems that were evaluated and one that was not."""
    results = {n.removesuffix("_like"): r for n, r in contents["zero_shot.json"].items()}
    other = copy.deepcopy(results)
    for result in other.values():
        result["accuracy"], result["accuracy_ci95"] = 0.123, [0.111, 0.134]
    table = {
        "flair": {"weights": "a", "missing": None, "results": results},
        "my own": {"weights": "b", "missing": None, "results": other},
        "clip": {"weights": "", "missing": "no weights: set --config.x", "results": {}},
    }
    (tmp_path / "table1.json").write_text(json.dumps(table))
    for system, skill in (("flair", 1.5), ("my own", 1.0)):
        for seed, name in enumerate(contents["zero_shot.json"]):
            place = tmp_path / "systems" / system
            save_answers(place, name, seed, name=name.removesuffix("_like"), skill=skill)
    return tmp_path


def read(folder, **options) -> Page:
    return Page(write_systems_report(folder, **options).read_text())


def test_every_system_has_a_row_with_its_figures_and_the_papers(folder, contents):
    page = read(folder, resamples=200)
    text = page.text.replace("\n", "")
    for result in contents["zero_shot.json"].values():
        for key in ("accuracy", "balanced_accuracy", "auc", "kappa"):
            low, high = result[f"{key}_ci95"]
            assert f"{result[key]:.3f}{low:.3f} – {high:.3f}" in text
    for method in ("FLAIR", "CLIP"):
        for value in paper.TABLE_1[method]:
            assert f"{value:.3f}" in text
    assert "no weights: set --config.x" in text
    assert text.count("0.1230.111 – 0.134") == 6  # once in the overview, once by itself
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == ["systems/flair/report.html", "systems/my%20own/report.html"]


def test_systems_are_tested_in_pairs_on_the_images_that_both_answered(folder):
    text = read(folder, resamples=200).text
    assert text.count("flair, my own") == 3
    answers = [
        predictions.load(predictions.path_of(folder / "systems" / name, "fives"))
        for name in ("flair", "my own")
    ]
    found = paired.compare(*answers, resamples=200)["tests"]
    for key in ("accuracy", "balanced_accuracy", "auc", "kappa"):
        assert f"{found[key]['difference']:+.3f}".replace("-", "−") in text
        assert f"p {found[key]['p']:.4f}" in text
    assert "flair, my own" not in read(folder, resamples=0).text


def test_answers_that_are_missing_are_a_notice(folder):
    predictions.path_of(folder / "systems/flair", "fives").unlink()
    text = read(folder, resamples=200).text
    assert "flair is not compared on fives" in text
    assert text.count("flair, my own") == 2


def test_without_any_weights_the_papers_columns_and_the_reasons_stand_alone(tmp_path):
    table = {name: {"missing": f"why {name}", "results": {}} for name in ("clip", "flair")}
    (tmp_path / "table1.json").write_text(json.dumps(table))
    page = read(tmp_path)
    for name in table:
        assert f"why {name}" in page.text
        assert all(f"{value:.3f}" in page.text for value in paper.TABLE_1[name.upper()])
    assert page.headings() == ["overview"]


@pytest.mark.parametrize("content", [None, "{}", "[]", "{", '{"a": 1}'])
def test_a_table_that_is_not_there_or_damaged_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "table1.json").write_text(content)
    with pytest.raises(ValueError, match=r"no table1\.json|holds no systems"):
        write_systems_report(tmp_path)


def test_damage_to_a_row_costs_the_row(folder):
    table = json.loads((folder / "table1.json").read_text())
    table["broken"] = {"results": 3}
    del table["my own"]["results"]["refuge"]["confusion"]
    (folder / "table1.json").write_text(json.dumps(table))
    text = read(folder, resamples=200).text
    assert "table1.json: broken is not complete" in text
    assert "table1.json, my own: the result of refuge is not complete" in text
    assert text.count("flair, my own") == 2


def test_hostile_names_stay_text(folder):
    evil = '"><script>alert(1)</script>'
    table = json.loads((folder / "table1.json").read_text())
    table[evil] = {"missing": evil, "results": {}}
    table[f"x{evil}"] = {"missing": None, "results": {evil: table["flair"]["results"]["refuge"]}}
    (folder / "table1.json").write_text(json.dumps(table))
    page = read(folder, resamples=200)
    assert "script" not in [tag for tag, _ in page.tags]
    assert page.text.count(evil) > 3
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert all(link.startswith("systems/") for link in links)


def test_the_command_rewrites_the_page_of_systems(folder):
    command = [sys.executable, "-m", "vclip_jax.report", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder / "report.html")
    assert "no weights: set --config.x" in (folder / "report.html").read_text()


def test_rows_and_columns_stand_in_the_papers_order():
    systems = ["visionclip", "mine", "flair_ek", "clip", "FLAIR", "biomedclip"]
    assert paper.in_order_of_rows(systems) == [
        "clip",
        "biomedclip",
        "FLAIR",
        "flair_ek",
        "visionclip",
        "mine",
    ]
    names = ["fives", "idrid", "messidor_ill", "refuge", "messidor"]
    assert paper.in_order_of_columns(names) == [
        "messidor_ill",
        "messidor",
        "fives",
        "refuge",
        "idrid",
    ]
