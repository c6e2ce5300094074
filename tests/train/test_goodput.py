"""The ledger: time is booked once, and survives restarts."""

import json
import time

import jax
import jax.numpy as jnp
import pytest

from vclip_jax import config as config_lib
from vclip_jax.devices import sharding
from vclip_jax.train import build
from vclip_jax.train import goodput as goodput_lib
from vclip_jax.train.goodput import ACCOUNTS, Goodput, Pace, Trace, open_goodput


def goodput(path, step=0, **options):
    settings = {"batch_size": 8, "flops": 1e9, "devices": jax.devices()[:4]}
    return Goodput(path / "goodput.json", step, **settings | options)


def ledger(path):
    return json.loads((path / "goodput.json").read_text())


def test_time_goes_to_its_account(tmp_path):
    book = goodput(tmp_path)
    book.step_done(5.0, 1.0, compiled=True)
    for _ in range(3):
        book.step_done(2.0, 0.5)
    with book.account("checkpoint"):
        pass
    book.write()
    found = ledger(tmp_path)
    assert set(found["seconds"]) == set(ACCOUNTS)
    assert found["seconds"] | {"checkpoint": 0.0} == {
        "start": 0.0,
        "compile": 4.0,
        "step": 4.5,
        "data_wait": 2.5,
        "checkpoint": 0.0,
        "evaluation": 0.0,
    }
    assert found["step_fraction"] == pytest.approx(4.5 / 11, abs=1e-4)


def test_a_restart_adds_to_the_ledger_and_counts_what_is_done_again(tmp_path):
    book = goodput(tmp_path)
    for _ in range(5):
        book.step_done(1.0, 0.0)
    book.write()
    again = goodput(tmp_path, step=3)
    for _ in range(4):
        again.step_done(1.0, 0.0)
    again.write()
    found = ledger(tmp_path)
    assert found["seconds"]["step"] == 9.0
    assert (found["step"], found["starts"], found["repeated_steps"]) == (7, 2, 2)


def test_figures_are_of_the_steps_since_the_last_reading(tmp_path):
    book = goodput(tmp_path)
    book.step_done(100.0, 0.0, compiled=True)
    book.read()
    for seconds in (1.0, 1.0, 1.0, 5.0):
        book.step_done(seconds, 0.2)
    values = book.read()
    assert values["examples_per_second"] == pytest.approx(8 / 2)
    assert values["examples_per_second_per_device"] == pytest.approx(1)
    assert values["data_wait_fraction"] == pytest.approx(0.8 / 8)
    assert values["step_seconds_p50"] == pytest.approx(1)
    assert values["step_seconds_p95"] == pytest.approx(4.4)
    assert "mfu" not in values  # nobody knows a CPU's peak


def test_one_process_writes(tmp_path):
    book = goodput(tmp_path, enabled=False)
    book.step_done(1.0, 0.0)
    book.read()
    book.write()
    assert not list(tmp_path.iterdir())


def test_the_time_until_the_ledger_is_opened_is_the_starts(tmp_path):
    config, mesh = config_lib.default(), sharding.make_mesh(1)
    book = open_goodput(config, tmp_path, mesh, 3, began=time.perf_counter() - 5)
    assert 5 <= book.seconds["start"] < 60
    book.write()
    assert ledger(tmp_path)["step"] == 3


def test_partial_training_has_no_utilisation(tmp_path, monkeypatch):
    """The count of operations is that of full training."""
    counted = []
    monkeypatch.setattr(build, "step_flops", lambda *_, **__: counted.append(1) or 1e9)
    config, mesh = config_lib.default(), sharding.make_mesh(1)
    open_goodput(config, tmp_path / "full", mesh, 0, began=time.perf_counter())
    assert counted == [1]
    config.train.image = "frozen"
    open_goodput(config, tmp_path / "part", mesh, 0, began=time.perf_counter())
    assert counted == [1]


class Clock:
    """A pace whose clock stands still until it is moved, and whose steps take none of its time."""

    def __init__(self, monkeypatch, path):
        self.now, self.waited, self.done = 0.0, 0.0, []
        monkeypatch.setattr(goodput_lib.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(goodput_lib.jax, "block_until_ready", self.done.append)
        self.book = goodput(path)
        self.pace = Pace(self.book, lambda: self.waited)

    def step(self, number, seconds=1.0, waited=0.0, *, catch_up=False):
        self.now, self.waited = self.now + seconds, self.waited + waited
        self.pace.follow(number, catch_up=catch_up)


def test_the_host_is_a_step_ahead_at_most_and_catches_up_where_it_looks(monkeypatch, tmp_path):
    clock, known = Clock(monkeypatch, tmp_path), []
    for number in range(1, 6):
        clock.step(number, catch_up=number == 4)
        known.append(list(clock.done))
    assert known == [[1], [1], [1, 2], [1, 2, 3, 4], [1, 2, 3, 4]]


def test_steps_are_booked_as_they_are_done_and_the_first_is_the_compilers(monkeypatch, tmp_path):
    clock = Clock(monkeypatch, tmp_path)
    clock.step(1, seconds=30.0, waited=4.0)
    clock.step(2, seconds=2.0, waited=0.5)  # under way: not booked yet
    seconds = clock.book.seconds
    assert (seconds["compile"], seconds["step"], seconds["data_wait"]) == (26.0, 0.0, 4.0)
    clock.step(3, seconds=2.0, waited=0.5, catch_up=True)
    assert (seconds["compile"], seconds["step"], seconds["data_wait"]) == (26.0, 3.0, 5.0)


def test_what_is_booked_elsewhere_is_no_steps_time(monkeypatch, tmp_path):
    clock = Clock(monkeypatch, tmp_path)
    clock.step(1, catch_up=True)
    with clock.book.account("checkpoint"):
        clock.now += 100
    clock.pace.resume()
    clock.step(2, catch_up=True)
    assert clock.book.seconds["checkpoint"] == 100
    assert clock.book.seconds["step"] == 1


def test_a_trace_takes_in_the_steps_asked_for(tmp_path):
    trace, result, running = Trace(tmp_path / "profile", 1, 2), jnp.ones(3) + 1, []
    for _ in range(5):
        trace.before_step()
        running.append(trace._running)
        trace.after_step(result)
    trace.close()
    assert running == [False, True, True, False, False]
    assert list(tmp_path.glob("profile/**/*.xplane.pb"))
