"""What is due after which step."""

import pytest

from vclip_jax import config as config_lib
from vclip_jax.train.due import Due, Timetable


def steps_of(what: str, timetable: Timetable) -> list[int]:
    steps = range(1, timetable.total_steps + 1)
    return [step for step in steps if getattr(timetable.after(step), what)]


def test_rows_come_of_the_first_step_every_so_many_and_the_last():
    assert steps_of("log", Timetable(10, 4, 100, 0)) == [1, 4, 8, 10]


def test_what_is_measured_is_saved_and_the_end_is_measured_by_itself():
    timetable = Timetable(10, 100, 3, 5)
    assert steps_of("measure", timetable) == [5]
    assert steps_of("save", timetable) == [3, 5, 6, 9, 10]
    assert not timetable.measures(0)
    assert not timetable.measures(15)  # of a run that has gone on further


@pytest.mark.parametrize("every", [0, 100])
def test_a_run_can_be_measured_at_its_end_alone(every):
    assert steps_of("measure", Timetable(10, 1, 1, every)) == []


def test_a_run_that_stops_is_saved_there_and_still_keeps_to_the_timetable():
    timetable = Timetable(10, 2, 5, 7)
    assert timetable.after(3, stop=True) == Due(log=False, save=True, stop=True, measure=False)
    assert timetable.after(7, stop=True) == Due(log=False, save=True, stop=True, measure=True)
    assert timetable.after(3) == Due(log=False, save=False, stop=False, measure=False)
    assert steps_of("stop", timetable) == []


def test_the_timetable_is_the_configs():
    config = config_lib.default()
    config.total_steps, config.log_every, config.checkpoint_every, config.eval_every = 9, 2, 3, 4
    assert Timetable.of(config) == Timetable(9, 2, 3, 4)
