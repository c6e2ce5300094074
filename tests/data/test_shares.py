"""Every group has its share of every stretch, and its own order, wherever the stream begins."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.data.shares import LONGEST_CYCLE, Group, Shares, row_at

WEIGHTS = st.lists(
    st.one_of(st.integers(1, 50), st.floats(0.05, 20).map(lambda x: round(x, 3))),
    min_size=1,
    max_size=9,
).map(lambda weights: tuple(Fraction(str(weight)) for weight in weights))


def groups_at(shares: Shares, first: int, count: int, seed: int) -> np.ndarray:
    blocks = range(first // 64, (first + count) // 64 + 1)
    whole = np.concatenate([shares.turns_of(block, seed)[0] for block in blocks])
    return whole[first % 64 : first % 64 + count]


@settings(max_examples=25)
@given(weights=WEIGHTS, seed=st.integers(0, 2**40), first=st.integers(0, 2**40))
def test_every_window_of_ten_thousand_has_the_shares_to_half_a_percent(weights, seed, first):
    shares = Shares(weights)
    drawn = groups_at(shares, first, 20_000, seed)
    for group, weight in enumerate(weights):
        of_group = np.concatenate([[0], np.cumsum(drawn == group)])
        windows = of_group[10_000:] - of_group[:-10_000]
        assert np.abs(windows / 10_000 - float(weight / sum(weights))).max() <= 0.005


@settings(max_examples=25)
@given(weights=WEIGHTS, seed=st.integers(0, 2**40), start=st.integers(0, 3000))
def test_each_group_goes_on_by_one_with_each_of_its_turns(weights, seed, start):
    shares = Shares(weights)
    done = shares.counts(start, seed)
    for index in range(start, start + 200):
        group, rank = shares.turn(index, seed)
        assert rank == done[group]
        done[group] += 1
    assert shares.counts(start + 200, seed) == done


def test_the_turns_stay_what_they_were():
    # Of a run that is continued with a later version: these numbers may never change.
    shares = Shares((Fraction(3), Fraction(1), Fraction("0.5")))
    assert shares.cycle.tolist() == [0, 1, 0, 0, 2, 0, 0, 1, 0]
    assert [shares.turn(index, 7) for index in range(8)] == [
        *((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (2, 0), (0, 3), (2, 1))
    ]
    assert shares.turn(2**40, 7) == (0, 733007751851)


def test_an_order_depends_on_the_seed_and_the_turns_have_no_fixed_rows():
    shares = Shares((Fraction(1), Fraction(1)))
    one, other = groups_at(shares, 0, 640, 0), groups_at(shares, 0, 640, 1)
    assert (one != other).any()
    for row in range(64):
        assert set(one[row::64]) == {0, 1}


def test_each_pass_through_a_group_has_all_its_records_in_a_new_order():
    shares = Shares((Fraction(2), Fraction(1)))
    groups = [Group("a", range(50), Fraction(2)), Group("b", np.arange(50, 80), Fraction(1))]
    rows = [row_at(groups, shares, index, 3) for index in range(900)]
    for group in groups:
        own = [row for row in rows if row in set(group.rows)]
        length = len(group.rows)
        passes = [own[at : at + length] for at in range(0, len(own) - length + 1, length)]
        assert all(sorted(once) == sorted(group.rows) for once in passes)
        assert len({tuple(once) for once in passes}) == len(passes) > 5


def test_groups_of_one_length_do_not_go_in_step():
    groups = [Group(name, range(1000), Fraction(1)) for name in "ab"]
    shares = Shares((Fraction(1), Fraction(1)))
    rows = [row_at(groups, shares, index, 0) for index in range(2000)]
    turns = [shares.turn(index, 0)[0] for index in range(2000)]
    a, b = ([row for row, turn in zip(rows, turns, strict=True) if turn == g] for g in (0, 1))
    assert sum(x == y for x, y in zip(a, b, strict=False)) < 10  # one is to be expected


def test_weights_that_fit_no_cycle_are_rounded_and_none_is_lost():
    shares = Shares((Fraction(1, 3), Fraction("0.1234567"), Fraction(2)))
    assert len(shares.cycle) == LONGEST_CYCLE
    counts = np.bincount(shares.cycle)
    exact = np.array([float(weight / sum(shares.weights)) for weight in shares.weights])
    assert np.abs(counts - exact * LONGEST_CYCLE).max() < 1
    with pytest.raises(ValueError, match=r"the weight 1e-06 of 1 is less than one example in 10,0"):
        _ = Shares((Fraction(1), Fraction("0.000001"))).cycle
