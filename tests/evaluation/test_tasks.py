"""What a config names, held against what is there, before anything is compiled."""

import dataclasses
import logging

import pytest

from vclip_jax import config as config_lib
from vclip_jax import prompts
from vclip_jax.evaluation import measurement, tasks
from vclip_jax.evaluation.embedded import Embedded
from vclip_jax.evaluation.tasks import ZeroShotTask
from vclip_jax.evaluation.zero_shot import ZeroShot
from vclip_jax.train import sources

CLASSES = ("正常", "青光眼")


class Source(list):
    """Records that need no image."""

    def __init__(self, labels, classes=CLASSES):
        super().__init__(
            {"key": f"k{i}", "label": n, "caption": "正常"} for i, n in enumerate(labels)
        )
        self.name, self.split, self.class_names = "mine", "test", classes
        self.splits = ("test",)


@pytest.fixture
def config(monkeypatch):
    config = config_lib.default()
    config.evals.unseen = config_lib.zero_shot_eval("mine", "labels")
    monkeypatch.setattr(sources.datasets, "prepare", lambda *_: None)
    return config


def open_tasks(config, monkeypatch, labels, classes=CLASSES):
    source = Source(labels, classes)
    monkeypatch.setattr(sources.datasets, "open_source", lambda *_: source)
    return tasks.open_zero_shot_tasks(config)


def warned(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_split_without_a_label_is_refused(config, monkeypatch):
    with pytest.raises(ValueError, match="evaluation unseen: no label in mine:test"):
        open_tasks(config, monkeypatch, [-1, -1, -1])


@pytest.mark.parametrize(
    ("trained", "seen"),
    [
        ("mine:train+test", True),
        ("other:train, mine:test", True),
        ("mine:test", True),
        ("mine:train", False),
        ("other:test", False),
        ("", False),
    ],
)
def test_photographs_that_the_model_was_trained_on_are_warned_of(
    config, monkeypatch, caplog, trained, seen
):
    (task,) = tasks.with_training(open_tasks(config, monkeypatch, [0, 1]), trained)
    assert task.trained_on == (trained if seen else "")
    assert any("on which the model was trained" in line for line in warned(caplog)) == seen


def test_a_dataset_without_names_cannot_be_asked_its_labels(config, monkeypatch):
    with pytest.raises(ValueError, match="mine has names for 0 classes"):
        open_tasks(config, monkeypatch, [0, 1], ())


def test_a_label_that_no_prompt_is_for_is_refused(config, monkeypatch):
    config.evals.unseen.prompts = "zh/refuge"
    with pytest.raises(ValueError, match="k3 in mine:test has the label 2, of 2 classes"):
        open_tasks(config, monkeypatch, [0, 1, -1, 2], ())


def test_a_class_without_an_image_is_said(config, monkeypatch, caplog):
    (task,) = open_tasks(config, monkeypatch, [-1, 1, 1])
    assert warned(caplog) == ["evaluation unseen: no image in mine:test is of 正常"]
    assert task.prompts.class_names == CLASSES


@pytest.mark.parametrize("labels", [[0, 1], [1, 0, -1]])
def test_labels_of_every_class_are_enough(config, monkeypatch, caplog, labels):
    assert len(open_tasks(config, monkeypatch, labels)) == 1
    assert not warned(caplog)


def test_the_best_kappa_of_classes_without_an_order_is_refused(config, monkeypatch):
    config.keep_best = "eval/unseen/kappa"
    with pytest.raises(ValueError, match="is never measured: the classes of unseen have no order"):
        open_tasks(config, monkeypatch, [0, 1, 2], ("正常", "青光眼", "病变"))
    assert open_tasks(config, monkeypatch, [0, 1])


def test_evaluations_that_the_model_cannot_read_are_named(config, chinese):
    task = ZeroShotTask("mine", Source([0, 1]), prompts.load("en/fives"))
    with pytest.raises(ValueError, match="evaluation mine: en/fives: "):
        tasks.check_readings(config, chinese, [task], ["正常眼底"], most_unknown=0.1)


def test_unknown_words_are_said_once(config, chinese, caplog):
    found = prompts.from_phrases({"a": "青光眼", "b": "白内障 Cataract"})
    both = [ZeroShotTask(name, Source([0, 1]), found) for name in ("one", "two")]
    tasks.check_readings(config, chinese, both, ["正常"] * 99 + ["龘"], most_unknown=0.1)
    assert len(warned(caplog)) == 2
    assert "the captions" not in warned(caplog)[1]


def test_the_model_will_be_asked_its_first_evaluation_else_its_classes(config, chinese):
    task = ZeroShotTask("mine", Source([0, 1]), prompts.load("zh/refuge"))
    train = Source([0, 1])
    assert tasks.usual_prompts(config, [task], train, chinese) == task.prompts
    found = tasks.usual_prompts(config, [], train, chinese)
    assert (found.class_names, found.name) == (CLASSES, "classes of mine")
    config.evals.unseen.prompts = "zh/refuge"  # which is not built
    assert tasks.usual_prompts(config, [], train, chinese) == prompts.load("zh/refuge")
    config.evals.unseen.prompts = "labels"
    english = Source([0, 1], ("normal", "glaucoma"))
    assert tasks.usual_prompts(config, [], english, chinese) is None


def test_an_evaluation_that_fails_does_not_lose_the_others(config, monkeypatch, tmp_path):
    config.heat_maps = False
    tasks = [
        ZeroShotTask(name, Source([0, 1]), prompts.load("zh/refuge"))
        for name in ("good", "bad", "unread")
    ]
    tasks[2] = dataclasses.replace(tasks[2], source=Source([0, 1]))
    tasks[2].source.split = "damaged"

    def embed(scorer, variables, task, config, *, count_refused):
        assert count_refused
        if task.name == "unread":
            raise OSError("k1 is damaged")
        return Embedded(None, None)

    def score(scorer, variables, task, *_, **__):
        if task.name == "bad":
            raise ValueError("no answer")
        return ZeroShot({task.name: {"n": 2}}, [], {})

    monkeypatch.setattr(measurement, "embed_images", embed)
    monkeypatch.setattr(measurement, "evaluate_zero_shot", score)
    monkeypatch.setattr(measurement, "flat_metrics", lambda results: {"eval/good/n": 2.0})
    log = measurement.MetricsLog(tmp_path / "metrics.jsonl")
    call = measurement.Measurement(None, None, tasks, config, tmp_path, log, lambda _: None)
    with pytest.raises(ValueError, match="evaluation bad: no answer; evaluation unread: k1 is dam"):
        call(({}, {}), 5, final=True)
    assert (tmp_path / "zero_shot.json").read_text().count('"good"') == 1
    assert "eval/good/n" in (tmp_path / "metrics.jsonl").read_text()


class Rated(Source):
    """Records with findings."""

    def __init__(self, rows, names=("glaucoma", "cataract")):
        super().__init__([-1] * len(rows))
        self.finding_names = names
        for record, row in zip(self, rows, strict=True):
            record["findings"] = dict(zip(names, row, strict=True))


def open_findings(config, monkeypatch, source, words="zh/odir"):
    config.evals.unseen = config_lib.zero_shot_eval("mine", words, kind="findings")
    monkeypatch.setattr(sources.datasets, "open_source", lambda *_: source)
    return tasks.open_zero_shot_tasks(config)


def test_findings_are_asked_of_records_that_rate_them(config, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    (task,) = open_findings(config, monkeypatch, Rated([(1, 0), (1, 1), (0, -1), (-1, -1)]))
    assert task.findings.names == ("glaucoma", "cataract")
    assert task.prompts == task.findings.prompts
    assert "4 images of mine:test, 1 with several findings" in caplog.text
    assert not warned(caplog)


def test_findings_that_nobody_rates_are_refused_and_one_sided_ones_said(
    config, monkeypatch, caplog
):
    with pytest.raises(ValueError, match="no finding in mine:test is rated"):
        open_findings(config, monkeypatch, Rated([(-1, -1)]))
    open_findings(config, monkeypatch, Rated([(1, 0), (0, 0)]))
    assert warned(caplog) == [
        "evaluation unseen: not both present and absent in mine:test: cataract"
    ]


def test_a_dataset_without_findings_is_refused(config, monkeypatch):
    source = Source([0, 1])
    source.finding_names = ()
    with pytest.raises(ValueError, match=r"evals\.unseen\.prompts: mine has no findings"):
        open_findings(config, monkeypatch, source)


def test_a_development_split_that_shares_images_is_refused(config, monkeypatch):
    config.evals.unseen.development = "train"
    with pytest.raises(ValueError, match=r"development='train' has 2 images of the scored split"):
        open_tasks(config, monkeypatch, [0, 1])
