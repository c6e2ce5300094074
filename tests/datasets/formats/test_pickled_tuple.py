"""Pickles are read, never run."""

import contextlib
import os
import pickle
import pickletools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.formats import pickled_tuple

VALUES = st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=300)


@given(st.tuples(VALUES, VALUES, VALUES), st.sampled_from([2, 3, 4, 5]))
def test_tuples_of_numbers_and_texts_are_read_as_pickle_reads_them(value, protocol):
    assert pickled_tuple.read(pickle.dumps(value, protocol)) == value


def test_values_that_are_one_object_are_read():
    name = "one text"
    for protocol in (2, 3, 4, 5):
        assert pickled_tuple.read(pickle.dumps((name, name, name), protocol)) == (name,) * 3


class Evil:
    """An object whose pickle calls a function when it is loaded."""

    def __repr__(self):
        return "Evil()"

    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    "value",
    [
        Evil(),
        (1, 2, Evil()),
        (1, 2),
        (1, 2, 3, 4),
        [1, 2, "c"],
        (1, 2, ["c"]),
        (1, 2, b"c"),
        (1, 2, 1.5),
        (1, 2, None),
        (1, True, "c"),
        (1, (1, 2, 3), "c"),
        (1, 1 << 80, "c"),
        "c",
    ],
    ids=repr,
)
@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_everything_else_is_refused_and_not_run(value, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="pickle") as refusal:
        pickled_tuple.read(pickle.dumps(value, protocol))
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_the_instructions_that_call_functions_are_all_refused():
    allowed = pickled_tuple._NUMBERS | pickled_tuple._TEXTS | pickled_tuple._NOTHING
    allowed |= pickled_tuple._PUTS | pickled_tuple._GETS
    known = {code.name for code in pickletools.opcodes}
    assert allowed <= known
    callers = {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
    callers |= {"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER"}
    assert not allowed & callers


@given(st.binary(max_size=60))
def test_random_bytes_give_three_values_or_a_refusal(data):
    start = pickle.dumps((1, "b", "c"))
    for one in (data, start[: len(data)] + data, start + data):
        with contextlib.suppress(ValueError):
            assert len(pickled_tuple.read(one)) == 3


def test_a_large_pickle_is_refused_before_it_is_read():
    with pytest.raises(ValueError, match="more than 2,097,152 bytes"):
        pickled_tuple.read(pickle.dumps(("a", "b", "c" * pickled_tuple.MOST)))
