"""`metrics.jsonl`: nothing is said twice, nothing is lost."""

import json
import math
import os

import pytest

from vclip_jax.tracking.metrics_log import MetricsLog


def rows(path):
    return [
        {key: value for key, value in json.loads(line).items() if key != "time"}
        for line in path.read_text().splitlines()
    ]


def test_a_value_is_written_once_for_a_step_however_often_it_comes(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):  # the second log is that of a run that goes on
        log = MetricsLog(path)
        log.write(2, {"loss": 1.0})
        log.write(2, {"eval/a/accuracy": 0.5})
        log.write(2, {"eval/a/accuracy": 0.5})
    assert rows(path) == [{"step": 2, "loss": 1.0}, {"step": 2, "eval/a/accuracy": 0.5}]


def test_values_that_a_step_lacks_are_added_without_the_others(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).write(2, {"eval/a/accuracy": 0.5})
    log = MetricsLog(path)
    assert log.has(2, ["eval/a/accuracy"])
    assert not log.has(2, ["eval/a/accuracy", "eval/b/accuracy"])
    assert not log.has(3, ["eval/a/accuracy"])
    log.write(2, {"eval/a/accuracy": 0.7, "eval/b/accuracy": 0.9})
    assert log.has(2, ["eval/a/accuracy", "eval/b/accuracy"])
    assert rows(path)[1:] == [{"step": 2, "eval/b/accuracy": 0.9}]


def test_a_line_that_a_crash_cut_off_is_removed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    MetricsLog(path).write(2, {"loss": 1.0})
    assert rows(path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def test_a_log_that_is_not_enabled_writes_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "lo')
    MetricsLog(path, enabled=False).write(2, {"loss": 1.0})
    assert path.read_text() == '{"step": 1, "lo'


def test_the_best_step_is_known_after_a_resume_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, track="eval/validation/loss")
    assert log.best([1, 2]) is None
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0), (4, math.nan)):
        log.write(step, {"loss": 0.0, "eval/validation/loss": loss})
    for same in (log, MetricsLog(path, track="eval/validation/loss")):
        assert same.best([1, 2, 3, 4]) == 2
        assert same.best([4, 3, 1]) == 3  # those that are left
        assert same.best([5]) is None


def test_more_is_better_of_other_metrics(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl", track="eval/a/auc")
    for step, auc in ((1, 0.5), (2, 0.9), (3, 0.9)):
        log.write(step, {"eval/a/auc": auc})
    assert log.best([1, 2, 3]) == 2


def test_what_is_measured_otherwise_is_written_again_and_the_newest_counts(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, track="eval/a/auc")
    log.write(2, {"loss": 1.0})
    log.write(2, {"eval/a/auc": 0.9}, "old")
    log.write(4, {"eval/a/auc": 0.8}, "old")
    assert log.has(2, ["eval/a/auc"], "old")
    assert not log.has(2, ["eval/a/auc"], "new")
    log.write(2, {"eval/a/auc": 0.7}, "new")
    assert rows(path)[1:] == [
        {"step": 2, "evaluation": "old", "eval/a/auc": 0.9},
        {"step": 4, "evaluation": "old", "eval/a/auc": 0.8},
        {"step": 2, "evaluation": "new", "eval/a/auc": 0.7},
    ]
    for same in (log, MetricsLog(path, track="eval/a/auc")):
        assert same.has(2, ["eval/a/auc"], "new")
        assert not same.has(2, ["evaluation"])
        assert same.best([2, 4]) == 4
        same.write(2, {"eval/a/auc": 0.7}, "new")
    assert len(rows(path)) == 4


def test_a_log_that_renews_writes_what_has_changed(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).write(2, {"eval/a/auc": 0.9, "eval/a/f1": 0.5}, "same")
    MetricsLog(path).write(2, {"eval/a/auc": 0.1, "eval/a/f1": 0.1}, "same")
    log = MetricsLog(path, renews=True)
    assert log.write(2, {"eval/a/auc": 0.8, "eval/a/f1": 0.5}, "same") == {"eval/a/auc": 0.8}
    assert rows(path)[1:] == [{"step": 2, "evaluation": "same", "eval/a/auc": 0.8}]


def test_nothing_is_written_through_a_link_and_no_pipe_is_waited_for(tmp_path):
    other, path = tmp_path / "other", tmp_path / "metrics.jsonl"
    other.write_text('{"step": 1}\nhalf')
    path.symlink_to(other)
    with pytest.raises(ValueError, match=r"metrics\.jsonl is a symbolic link"):
        MetricsLog(path)
    assert MetricsLog(path, enabled=False).best([1]) is None
    assert other.read_text() == '{"step": 1}\nhalf'
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        MetricsLog(path)
