"""The page of a run: complete, well-formed, self-contained, unmoved by hostile or missing data."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib import resources

import numpy as np
import pytest
from etils import epath
from PIL import Image

from tests.report.details import detailed
from vclip_jax.evaluation.metrics import paired, paper, predictions
from vclip_jax.report import write_comparison, write_report
from vclip_jax.report.run_page import duration, hardware_of

from .page import Page


@pytest.fixture
def make(workdir):
    def write_and_read(content: dict) -> Page:
        return Page(write_report(workdir(content)).read_text())

    return write_and_read


SECTIONS = [
    "zero-shot",
    "table-1",
    "training",
    "validation",
    "classes",
    "confusion",
    "calibration",
    "sensitivity",
    "retrieval",
    "examples",
    "prompts",
    "setup",
]


def test_a_finished_run_has_every_section_and_every_number(finished, contents):
    page = Page(write_report(finished).read_text())
    assert page.headings() == SECTIONS
    for name, result in contents["zero_shot.json"].items():
        assert name in page.text
        for key in ("accuracy", "balanced_accuracy", "auc", "kappa", "f1"):
            assert f"{result[key]:.3f}" in page.text
        for key in ("accuracy", "balanced_accuracy", "auc", "kappa", "f1", "ece"):
            lo, hi = result[f"{key}_ci95"]
            assert f"{result[key]:.3f}{lo:.3f} – {hi:.3f}" in page.text.replace("\n", "")
        for row in result["per_class"]:
            for key in ("sensitivity", "specificity", "f1", "auc"):
                lo, hi = row[f"{key}_ci95"]
                assert f"{row[key]:.3f}{lo:.3f} – {hi:.3f}" in page.text.replace("\n", "")
        for kind in ("template", "phrase", "single"):
            spread = result["prompt_sensitivity"][kind]["auc"]
            said = f"{spread['median']:.3f}{spread['min']:.3f} – {spread['max']:.3f}"
            assert said in page.text.replace("\n", "")
        for row in result["confusion"]:
            assert all(f"{count:,}" in page.text for count in row)
    for values in paper.TABLE_1.values():
        assert all(f"{value:.3f}" in page.text for value in values)
    for direction in ("image_to_text", "text_to_image"):
        for found in (contents["retrieval.json"], contents["retrieval.json"]["test"]):
            assert all(f"{value:.3f}" in page.text for value in found[direction].values())
    assert "validation: 500 images" in page.text
    assert "test: 200 images" in page.text
    assert "step 4,000 of 4,000 (complete)" in page.text
    assert "8 × NVIDIA H200, 2 hosts" in page.text
    assert "0123456789ab" in page.text
    assert "optimizer.learning_rate" in page.text
    assert "眼底彩照，提示第0类。" in page.text
    images = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert len(images) == 48  # each with its heat map
    assert page.text.count("A heat map") == 1
    assert sum(tag == "svg" for tag, _ in page.tags) >= 6 + 5 + 3 + 3


def test_stand_ins_are_called_not_comparable_and_real_datasets_are_not(make, contents):
    assert "not comparable with the paper" in make(contents).text
    results = contents["zero_shot.json"]
    contents["zero_shot.json"] = {
        name.removesuffix("_like"): result for name, result in results.items()
    }
    real = make(contents)
    assert "This run, balanced accuracy" in real.text
    assert "not comparable" not in real.text


def test_real_photographs_come_before_rendered_ones_and_their_licence_is_named(make, contents):
    for file in ("zero_shot.json", "examples.json"):
        found = contents[file]
        contents[file] = {"fives_like": found["fives_like"], "idrid_sample": found["refuge_like"]}
    results = contents["zero_shot.json"]
    results["fives_like"]["dataset"] = "synthetic/fives_like-128px-600-s1"
    results["idrid_sample"]["dataset"] = "idrid_sample/512px-q92"
    text = make(contents).text
    table, examples = text.index("Zero-shot classification"), text.index("A heat map")
    for section in (table, examples):
        assert text.index("idrid_sample", section) < text.index("fives_like", section)
    shown = text[examples:]
    assert "by Porwal, Pachade and Kokare (CC BY 4.0)." in shown
    assert "Rendered by vclip_jax, not photographs." in shown
    results["idrid_sample"]["dataset"] = 7
    assert "CC BY 4.0" not in make(contents).text


def test_auc_is_the_first_figure(make, contents):
    text = make(contents).text
    result = contents["zero_shot.json"]["messidor_like"]
    start = text.index("messidor_like")
    assert text.index(f"{result['auc']:.3f}", start) < text.index(
        f"{result['accuracy']:.3f}", start
    )


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("messidor", ("MESSIDOR", "real")),
        ("FIVES:test", ("FIVES", "real")),
        ("messidor2", ("MESSIDOR", "stand-in")),
        ("messidor_like", ("MESSIDOR", "stand-in")),
        ("synthetic/refuge", ("REFUGE", "stand-in")),
        ("synthetic/refuge_like", ("REFUGE", "stand-in")),
        ("messidor_far", None),
        ("synthetic/refuge_far-128px-200-s1", None),
        ("idrid", None),
    ],
)
def test_only_the_datasets_of_the_paper_itself_count_as_them(name, place):
    assert paper.column_of(name) == place


def test_nothing_in_the_page_points_outside_of_it(finished):
    html = write_report(finished).read_text()
    page = Page(html)
    without_pictures = re.sub(r"data:image/jpeg;base64,[^\"]*", "", html)
    assert not re.search(r"https?:|//|url\(|@import|<script|javascript:", without_pictures)
    for _, attrs in page.tags:
        assert "href" not in attrs
        assert not any(name.startswith("on") for name in attrs)
        if "src" in attrs:
            assert attrs["src"].startswith("data:image/jpeg;base64,")
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_hostile_text_stays_text(make, contents):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    results = contents["zero_shot.json"]
    result = copy.deepcopy(results["refuge_like"])
    result["classes"] = [evil, "b"]
    result["prompts"] = {
        "name": evil,
        "language": evil,
        "class_names": [evil, "b"],
        "prompts": [[evil], [evil]],
        "groups": [],
    }
    contents["zero_shot.json"] = {evil: result, f"refuge{evil}": result}
    contents["examples.json"] = {evil: contents["examples.json"]["refuge_like"]}
    contents["config.json"] = {"name": evil, evil: evil, "list": [evil]}
    contents["environment.json"] = {"devices": [evil], "git_commit": evil, evil: evil}
    contents["metrics.jsonl"] += [{"step": 5000, f"eval/{evil}/accuracy": 0.5, evil: 1.0}]
    page = make(contents)
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags
    assert all(a["src"].startswith("data:") for t, a in page.tags if t == "img")
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert page.text.count(evil) > 5


def test_only_jpeg_and_png_data_become_images(make, contents):
    good = contents["examples.json"]["refuge_like"][0]
    bad = ["https://example.org/x.png", "data:image/svg+xml;base64,AAAA", "data:text/html,x", 7]
    broken = [{**good, key: value} for key in ("image", "heat") for value in bad]
    contents["examples.json"] = {"refuge_like": [good, *broken]}
    page = make(contents)
    assert sum(tag == "img" for tag, _ in page.tags) == 2
    assert "8 examples of refuge_like are not usable" in page.text


def test_examples_of_an_earlier_version_have_no_heat_and_nothing_is_said_of_it(make, contents):
    for examples in contents["examples.json"].values():
        for example in examples:
            del example["heat"]
    page = make(contents)
    assert sum(tag == "img" for tag, _ in page.tags) == 24
    assert "heat map" not in page.text


def test_retrieval_on_the_test_pairs_alone_is_shown(make, contents):
    contents["retrieval.json"] = {"test": contents["retrieval.json"]["test"]}
    page = make(contents)
    assert "test: 200 images" in page.text
    assert "validation: " not in page.text
    assert "not complete" not in page.text


@pytest.mark.parametrize(
    ("missing", "sections"),
    [
        (
            "zero_shot.json",
            {
                "zero-shot",
                "table-1",
                "classes",
                "confusion",
                "calibration",
                "sensitivity",
                "prompts",
            },
        ),
        ("retrieval.json", {"retrieval"}),
        ("examples.json", {"examples"}),
        ("metrics.jsonl", {"training", "validation"}),
        ("config.json", set()),
        ("environment.json", set()),
    ],
)
def test_a_missing_file_costs_its_own_sections_only(make, contents, missing, sections):
    del contents[missing]
    assert make(contents).headings() == [name for name in SECTIONS if name not in sections]


def test_the_page_counts_the_examples_of_each_dataset_of_a_mixture(make, contents):
    contents["config.json"] |= {"seed": 0, "global_batch_size": 64}
    drawn = [["mine", "3"], ["idrid:train", "1"]]
    contents["data.json"] = {"train": {"data": "", "records": 9, "digest": "", "drawn": drawn}}
    last = max(row["step"] for row in contents["metrics.jsonl"])
    assert f"{48 * last:,} from mine, {16 * last:,} from idrid:train" in make(contents).text


@pytest.mark.parametrize(
    "drawn", [[["mine", "1e999999"]], [["mine"]], [["mine", "0"]], 3, [["mine", "1/0"]], [None]]
)
def test_a_mixture_that_makes_no_sense_costs_its_own_line_only(make, contents, drawn):
    contents["config.json"] |= {"seed": 0, "global_batch_size": 64}
    contents["data.json"] = {"train": {"drawn": drawn}}
    assert "Training examples" not in make(contents).text


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (320, "runs/other, step 320 (weights), trained further from step 0"),
        (None, "runs/other (weights), trained further from step 0"),
    ],
)
def test_the_page_says_from_what_a_run_started(make, contents, step, text):
    assert "Started from" not in make(contents).text
    contents["start.json"] = {"source": "runs/other", "step": step, "taken": "weights"}
    assert text in make(contents).text


@pytest.mark.parametrize(
    ("started", "shown"),
    [
        ("2026-09-23 23:20:05 +0200", "2026-09-23 21:20 UTC"),
        ("a while ago", "a while ago"),
        ("2026-09-23 21:20:05 +0000", "2026-09-23 21:20 UTC"),
        (time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(0)), "1970-01-01 00:00 UTC"),
    ],
)
def test_times_have_one_form(make, contents, started, shown):
    contents["environment.json"]["started"] = started
    facts = make(contents).text.partition("Configuration (")[0]
    assert shown in facts
    assert "+0" not in facts


def test_an_empty_workdir_gets_a_page_and_no_workdir_an_error(make, tmp_path):
    assert "Nothing has been written" in make({}).text
    with pytest.raises(FileNotFoundError, match="workdir of a training run"):
        write_report(tmp_path / "nowhere")


def test_a_folder_of_other_files_is_no_workdir_and_gets_no_page(tmp_path):
    (tmp_path / "photograph.jpg").write_bytes(b"x")
    with pytest.raises(ValueError, match="has no file of a run"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_run_in_progress_shows_what_there_is(workdir, contents):
    rows = contents["metrics.jsonl"][:7]
    folder = workdir({"config.json": contents["config.json"], "metrics.jsonl": rows})
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 80, "lo')  # the writer was caught in the middle of a line
    page = Page(write_report(folder).read_text())
    assert page.headings() == ["training", "setup"]
    assert "step 70 of 4,000 (running, or stopped early)" in page.text
    assert "could not be read" not in page.text


def test_one_entry_is_enough_for_the_curves(make):
    page = make({"metrics.jsonl": [{"step": 0, "loss": 0.0, "eval/a/b/auc": 0.5}]})
    assert page.headings() == ["training", "evaluations"]
    assert "Evaluations at step 0" in page.text


def test_damage_is_reported_in_the_page(workdir, contents):
    contents["zero_shot.json"]["broken"] = {"n": 3}
    contents["retrieval.json"] = {"n": 3}
    contents["zero_shot.json"]["ragged"] = {
        **contents["zero_shot.json"]["fives_like"],
        "confusion": [[1, 2], [3]],
    }
    contents["metrics.jsonl"] += [{"step": 4010, "loss": float("nan")}]
    folder = workdir(contents)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write("not json\n{}\n")
    (folder / "examples.json").write_text("[1]")
    (folder / "environment.json").write_text('{"a": ')
    text = Page(write_report(folder).read_text()).text
    assert "2 of 411 lines could not be read" in text
    assert "1 values are not finite" in text
    assert "the result of ragged is not complete" in text
    assert "the result of broken is not complete" in text
    assert "retrieval.json is not complete" in text
    assert "examples.json does not hold an object" in text
    assert "environment.json could not be read" in text


@pytest.mark.parametrize("key", ["n", "accuracy", "accuracy_ci95", "confusion", "auc", "f1"])
@pytest.mark.parametrize("value", ["x", [], [None], {"a": 1}, True, [[1, "a"], [2, 3]]])
def test_a_result_with_a_figure_that_is_none_is_left_out(make, contents, key, value):
    contents["zero_shot.json"]["fives_like"][key] = value
    page = make(contents)
    assert "the result of fives_like is not complete and is left out" in page.text


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "predictions/x.npz"])
def test_a_pipe_in_a_workdir_is_not_waited_for(workdir, contents, name):
    folder = workdir(contents)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    if name.endswith(".npz"):
        with pytest.raises(ValueError, match="could not be read"):
            predictions.load(epath.Path(path))
    else:
        page = write_report(folder).read_text()
        assert f"{path.name} could not be read and is left out" in page


UNFINISHED = [f"{page}.html.{os.getpid()}.tmp" for page in ("report", "comparison")]


@pytest.mark.parametrize(
    "name",
    [*UNFINISHED, "comparison.json"],
    ids=["report.html", "comparison.html", "comparison.json"],
)
def test_a_link_in_a_workdir_is_not_written_through(workdir, contents, tmp_path, name):
    folder = workdir(contents)
    other = tmp_path / "other"
    other.write_text("mine")
    (folder / name).symlink_to(other)
    write_report(folder)
    write_comparison([folder, shutil.copytree(folder, tmp_path / "copy")])
    assert other.read_text() == "mine"


def test_undefined_figures_are_dashes(make, contents):
    result = contents["zero_shot.json"]["refuge_like"]
    contents["zero_shot.json"] = {"refuge_like": {**result, "auc": None, "kappa": None}}
    page = make(contents)
    assert "–" in page.text
    assert "None" not in page.text


def test_the_results_of_an_earlier_version_still_make_a_page(make, contents):
    old = (
        "n",
        "accuracy",
        "accuracy_ci95",
        "balanced_accuracy",
        "auc",
        "kappa",
        "f1",
        "confusion",
        "classes",
        "prompts",
    )
    results = contents["zero_shot.json"]
    contents["zero_shot.json"] = {n: {key: r[key] for key in old} for n, r in results.items()}
    page = make(contents)
    assert set(SECTIONS) - set(page.headings()) == {"classes", "calibration", "sensitivity"}


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, [1, 2], {"template": 1}, [{"n": -1}] * 15])
def test_damage_in_what_is_newer_costs_its_own_part_only(make, contents, value):
    result = contents["zero_shot.json"]["refuge_like"]
    for key in ("per_class", "reliability", "prompt_sensitivity", "undefined", "auc_ci95", "ece"):
        result[key] = value
    page = make({"zero_shot.json": {"refuge_like": result}})
    assert {"zero-shot", "confusion"} <= set(page.headings())
    assert f"{result['balanced_accuracy']:.3f}" in page.text


def test_the_reason_stands_where_a_figure_is_missing(make, contents):
    result = contents["zero_shot.json"]["refuge_like"]
    result |= {"auc": None, "undefined": {"auc": "only one class occurs in the labels"}}
    assert "refuge_like, AUC: only one class occurs in the labels" in make(contents).text


# --- systems on the same images ------------------------------------------------------------------


def test_two_evaluations_of_the_same_images_are_compared_of_their_own_accord(
    workdir, contents, save_answers
):
    contents["zero_shot.json"]["english"] = contents["zero_shot.json"]["fives_like"]
    folder = workdir(contents)
    save_answers(folder, "fives_like", 1)
    save_answers(folder, "fives_like", 1, name="english", skill=1.0)
    save_answers(folder, "refuge_like", 2)
    save_answers(folder, "fives_like", 1, name="not in zero_shot.json")
    page = Page(write_report(folder).read_text())
    assert page.headings()[2] == "comparison"
    assert page.text.count(", 300 images") == 1
    assert "fives_like against english, 300 images" in page.text
    found = paired.compare_systems(folder, ["fives_like", "english"])[0][0]["tests"]["auc"]
    assert f"{found['difference']:+.3f}" in page.text
    assert f"{found['p']:.4f}" in page.text


def test_a_damaged_file_of_answers_is_a_notice(workdir, contents, save_answers):
    folder = workdir(contents)
    save_answers(folder, "fives_like", 1)
    predictions.path_of(folder, "fives_like").write_text("no archive")
    assert "fives_like.csv could not be read" in Page(write_report(folder).read_text()).text


def test_the_same_workdir_gives_the_same_page(finished):
    first = write_report(finished).read_text()
    assert write_report(finished).read_text() == first
    assert sorted(p.name for p in finished.iterdir() if "report" in p.name) == ["report.html"]


def test_durations_and_devices_read_well():
    assert [duration(s) for s in (0.5, 42, 725, 27_000, 280_000)] == [
        "0.5 s",
        "42 s",
        "12 min 5 s",
        "7 h 30 min",
        "3 d 5 h",
    ]
    assert hardware_of({"devices": [{"kind": "TPU v5e"}] * 4}) == "4 × TPU v5e"
    assert hardware_of({"device_kind": "cpu", "device_count": 1}) == "1 × cpu"
    assert hardware_of({}) == ""


def test_the_command_rewrites_the_report(workdir, contents):
    folder = workdir(contents)
    command = [sys.executable, "-m", "vclip_jax.report"]
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder / "report.html")
    wrong = subprocess.run([*command, str(folder / "no")], capture_output=True, text=True)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: ")
    assert "Traceback" not in wrong.stderr


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
@pytest.mark.parametrize("runs", [1, 3])
def test_chromium_shows_the_page_without_sideways_scrolling(finished, tmp_path, runs):
    others = [shutil.copytree(finished, tmp_path / f"run-{i}") for i in range(1, runs)]
    page = (
        write_comparison([finished, *others], tmp_path / "runs.html", resamples=0)
        if others
        else write_report(finished)
    )
    html = page.read_text()
    probe = (
        "<script>addEventListener('load',()=>{const d=document.documentElement;"
        "d.dataset.probe=JSON.stringify({wide:d.scrollWidth,view:d.clientWidth,"
        "images:[...document.images].every(i=>i.complete&&i.naturalWidth>0)})})</script>"
    )
    html = re.sub(r"<meta http-equiv.*?>", "", html, flags=re.S).replace("<body>", "<body>" + probe)
    html = html.replace(' loading="lazy"', "")
    (tmp_path / "page.html").write_text(html)
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--window-size=500,900",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    done = subprocess.run(
        ["chromium", *flags, "--dump-dom", str(tmp_path / "page.html")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(re.search(r'data-probe="([^"]*)"', done.stdout)[1].replace("&quot;", '"'))
    assert found["wide"] <= found["view"]
    assert found["images"]


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs Chromium")
def test_chromium_shades_the_edge_beyond_which_a_table_goes_on(tmp_path):
    style = resources.files("vclip_jax.report").joinpath("style.css").read_text("utf-8")
    table = (
        '<div class="scroll" style="height:60px"><table style="width:{}px"><td>&nbsp;</table></div>'
    )
    for name, width in (("narrow", 100), ("wide", 900)):
        page = tmp_path / f"{name}.html"
        page.write_text(f"<!doctype html><style>{style}</style>{table.format(width)}")
        flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--window-size=390,300",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        subprocess.run(
            ["chromium", *flags, f"--screenshot={tmp_path / name}.png", str(page)],
            capture_output=True,
            check=True,
            timeout=60,
        )
    narrow, wide = (
        np.asarray(Image.open(tmp_path / f"{name}.png").convert("L")) for name in ("narrow", "wide")
    )
    assert narrow.min() == 255
    assert wide[:, 340:].min() < 200
    assert wide[:, :300].min() == 255  # it has not been scrolled


def test_details_have_their_sections(make, contents):
    page = make(detailed(contents, "refuge_like"))
    assert {"findings", "thresholds", "subgroups"} <= set(page.headings())
    assert "refuge_like: operating points" in page.text
    assert "chosen on these images themselves, so that the figures are too good" in page.text
    assert "Permutation test: p = " in page.text
    assert "All answers are right in" in page.text
    small = [attrs for tag, attrs in page.tags if tag == "tr" and attrs.get("class") == "small"]
    assert len(small) == 1  # camera B has five images
    titles = [
        attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and "aria-label" in attrs
    ]
    assert any(title.startswith("ROC: ") for title in titles)
    assert any(title.startswith("Net benefit: ") for title in titles)


def test_the_first_lines_say_how_good_it_is_and_whether_to_believe_it(make, contents):
    text = make(contents).text
    assert "No real photograph was scored" not in text  # their datasets are not known
    results = contents["zero_shot.json"]
    for result in results.values():
        result["dataset"] = "synthetic/x"
    text = make(contents).text
    assert "On the 300 rendered images of " in text
    assert "No real photograph was scored" in text
    result = results["refuge_like"]
    result |= {"dataset": "refuge", "n": 40, "auc_ci95": [0.45, 0.99]}
    result["calibration"] = {"method": "labels", "data": "refuge:test", "same_images": True}
    text = make(contents).text
    assert f"On the 40 photographs of refuge_like, the AUC is {result['auc']:.3f}" in text
    for doubt in (
        "40 photographs are too few",
        "the interval reaches chance",
        "the calibration was fitted on these photographs",
    ):
        assert doubt in text
    assert "calibrated (labels, refuge:test, on these very images)" in text
