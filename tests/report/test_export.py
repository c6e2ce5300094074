"""Tables and figures for a paper: complete, exact, and nothing of them a command."""

import csv
import json
import math
import re
from xml.etree import ElementTree

import pytest

from tests.report.details import detailed
from vclip_jax.report.__main__ import main
from vclip_jax.report.export import _escaped, _file_names, as_csv, export
from vclip_jax.report.tables import Cell, Table


@pytest.fixture(scope="module")
def run(contents_of_run):
    return detailed(contents_of_run, "refuge_like")


@pytest.fixture(scope="module")
def paper(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    for name, content in run.items():
        lines = "".join(json.dumps(row) + "\n" for row in content)
        (folder / name).write_text(lines if name.endswith("l") else json.dumps(content), "utf-8")
    export(folder, folder / "paper")
    return folder / "paper", run


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_evaluation_has_its_tables_and_figures(paper):
    folder, files = paper
    tables = {path.stem for path in folder.glob("tables/*.csv")}
    assert tables == {path.stem for path in folder.glob("tables/*.tex")}
    wanted = {"zero-shot", "retrieval", "odir-findings", "refuge_like-thresholds"}
    wanted |= {"refuge_like-by-sex", "refuge_like-by-camera"}
    wanted |= {
        f"{name}-{kind}" for name in files["zero_shot.json"] for kind in ("classes", "confusion")
    }
    assert tables == wanted
    figures = {path.stem for path in folder.glob("figures/*.svg")}
    assert figures == {path.stem for path in folder.glob("figures/*.csv")}
    assert {f"refuge_like-{k}" for k in ("roc", "precision-recall", "net-benefit")} <= figures
    assert {f"{name}-reliability" for name in files["zero_shot.json"]} <= figures
    assert {"training-Loss", "evaluation-AUC"} <= figures
    captions = (folder / "captions.md").read_text("utf-8")
    for name in (*tables, *figures):
        assert f" {name}.**" in captions


def test_tables_hold_the_figures_of_the_run_in_full(paper):
    folder, files = paper
    for row in rows_of(folder / "tables/zero-shot.csv"):
        result = files["zero_shot.json"][row["Dataset"]]
        assert float(row["AUC"]) == result["auc"]
        assert [float(row["AUC low"]), float(row["AUC high"])] == result["auc_ci95"]
        assert int(row["Images"]) == result["n"]
    points = files["zero_shot.json"]["refuge_like"]["operating_points"]["classes"]["glaucoma"]
    found = rows_of(folder / "tables/refuge_like-thresholds.csv")
    assert [float(r["Sensitivity"]) for r in found] == [p["sensitivity"] for p in points["points"]]
    findings = rows_of(folder / "tables/odir-findings.csv")
    assert [float(r["AUC"]) for r in findings[:2]] == [
        one["auc"] for one in files["findings.json"]["odir"]["findings"]
    ]
    assert float(findings[2]["AUC"]) == files["findings.json"]["odir"]["macro"]["auc"]
    sexes = rows_of(folder / "tables/refuge_like-by-sex.csv")
    assert [row["Group"] for row in sexes] == ["female", "male"]


def test_captions_say_how_many_and_what_was_drawn(paper):
    folder, _ = paper
    captions = (folder / "captions.md").read_text("utf-8")
    findings = next(line for line in captions.splitlines() if "odir-findings" in line)
    assert (
        "n = 300 images of 150 patients; 95 % intervals from 100 resamples of the patients"
        in findings
    )
    assert "Youden's on the split train" in findings
    thresholds = next(line for line in captions.splitlines() if "refuge_like-thresholds" in line)
    assert "chosen on these images themselves" in thresholds


def test_figures_stand_alone_and_hold_their_data(paper):
    folder, files = paper
    for path in folder.glob("figures/*.svg"):
        root = ElementTree.fromstring(path.read_text("utf-8"))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert float(root.attrib["width"]) > 100
        style = root.find("{http://www.w3.org/2000/svg}style").text
        assert "var(" not in style
        assert ".chart polyline" in style
        assert ".chart {" not in style  # `height: auto` is no length in a file
        assert "script" not in path.read_text("utf-8")
    loss = (folder / "figures/evaluation-AUC.svg").read_text("utf-8")
    assert all(f">{name}</text>" in loss for name in files["zero_shot.json"])  # a legend
    roc = rows_of(folder / "figures/refuge_like-roc.csv")
    want = files["curves.json"]["refuge_like"]["glaucoma"]["roc"]
    assert [float(row["sensitivity"]) for row in roc] == want["sensitivity"]
    assert [float(row["low"]) for row in roc] == want["low"]


def test_latex_tables_are_whole_and_hold_no_foreign_command(paper):
    folder, _ = paper
    for path in folder.glob("tables/*.tex"):
        text = path.read_text("utf-8")
        columns = re.search(r"\\begin{tabular}{(l?r*)}", text)[1]
        assert text.count("{") == text.count("}")
        body = text.split(r"\toprule")[1].split(r"\bottomrule")[0]
        for line in body.strip().splitlines():
            if line != r"\midrule":
                assert line.endswith(r" \\")
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
    assert r"B \& Co\_\%" in (folder / "tables/refuge_like-by-camera.tex").read_text("utf-8")
    assert _escaped(r"\input{x}$") == r"\textbackslash{}input\{x\}\$"


def test_the_checklist_answers_what_the_run_knows_and_no_more(paper):
    text = (paper[0] / "checklist.md").read_text("utf-8")
    assert "| 23a | performance with intervals, also by subgroup | Tables zero-shot" in text
    assert "| 17 | ethical approval | for the authors |" in text
    assert "| 14 | fairness | Tables NAME-by-FACT" in text
    assert text.count("for the authors") > 40


def test_names_of_files_differ_and_stay_in_the_folder():
    names = _file_names(["a/b", "a-b", "A b", "../../x", "", "糖网", "."])
    assert len({name.casefold() for name in names}) == 7
    assert not any("/" in name or name.startswith(".") for name in names)
    assert "糖网" in names


def test_a_missing_figure_is_an_empty_cell_and_no_cell_is_a_formula():
    table = Table(
        "t", "T", "c", ("=A", "B"), ((Cell("=1+1"), Cell(None)), (Cell("x"), Cell(0.5, (0.1, 0.9))))
    )
    assert as_csv(table) == "'=A,B,B low,B high\n'=1+1,,,\nx,0.5,0.1,0.9\n"


def test_the_command_exports_and_refuses_what_has_nothing(workdir, contents, tmp_path, capsys):
    folder = workdir(contents)
    assert main([str(folder), "--export", str(tmp_path / "p")]) == 0
    assert f"files in {tmp_path / 'p'}" in capsys.readouterr().out
    (folder / "zero_shot.json").unlink()
    assert main([str(folder), "--export", str(tmp_path / "q")]) == 1
    assert "has no evaluation to export: run vclip eval first" in capsys.readouterr().err
    assert not (tmp_path / "q").exists()
    assert main([str(folder), str(folder), "--export", str(tmp_path / "q")]) == 1
    assert "--export is for one run" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value", [None, 1, "x", [], {"a": 1}, {"refuge_like": {"glaucoma": 3}}, math.nan]
)
def test_damage_in_details_costs_their_own_parts_only(workdir, run, tmp_path, value):
    result = run["zero_shot.json"]["refuge_like"]
    damaged = result | dict.fromkeys(("operating_points", "subgroups", "flow"), value)
    files = {
        "zero_shot.json": {"refuge_like": damaged},
        "curves.json": value,
        "findings.json": value,
    }
    export(workdir(files), tmp_path / "p")
    assert (tmp_path / "p/tables/zero-shot.csv").exists()
