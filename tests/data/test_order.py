"""Every epoch has every record once, and nothing else can be foretold."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.data.order import EXAMPLES, Shuffled, permuted, record_at

SEEDS = st.integers(0, 2**70)


def epoch(count: int, seed: int = 0, number: int = 0) -> np.ndarray:
    return permuted(np.arange(count), count, seed, number)


@given(count=st.integers(1, 3000), seed=SEEDS, number=st.integers(0, 2**40))
def test_every_epoch_has_every_record_once(count, seed, number):
    assert np.array_equal(np.sort(epoch(count, seed, number)), np.arange(count))


@given(count=st.integers(1, 2**45), seed=SEEDS, data=st.data())
def test_a_position_alone_gives_what_it_gives_among_others(count, seed, data):
    positions = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20))
    together = permuted(positions, count, seed, 3)
    assert ((together >= 0) & (together < count)).all()
    assert [int(permuted([p], count, seed, 3)[0]) for p in positions] == together.tolist()
    assert [record_at(3 * count + p, count, seed) for p in positions] == together.tolist()


def test_the_order_stays_what_it_was():
    # Of a run that is continued with a later version: these numbers may never change.
    assert epoch(10, seed=7).tolist() == [8, 1, 9, 0, 2, 6, 3, 5, 4, 7]
    assert permuted([0, 1, 2, 999_999], 1_000_000, 7, 1).tolist() == [758408, 67281, 120970, 899363]


@pytest.mark.parametrize("count", [1000, 65_537, 800_000])
def test_neighbours_are_not_correlated(count):
    # Grain's shuffle of 800,000 has 0.26 here.
    order = epoch(count, seed=1)
    for lag in (1, 2, 64):
        correlation = np.corrcoef(order[:-lag], order[lag:])[0, 1]
        assert abs(correlation) < 4 / np.sqrt(count)


def test_positions_and_records_are_independent():
    # 32 x 32 cells of (position, record); chi-square with 31^2 degrees of freedom, 5 deviations.
    count = 1 << 18
    cells = np.arange(count) * 32 // count * 32 + epoch(count, seed=2) * 32 // count
    seen, expected = np.bincount(cells, minlength=1024), count / 1024
    chi_square = ((seen - expected) ** 2 / expected).sum()
    assert abs(chi_square - 961) < 5 * np.sqrt(2 * 961)


def test_pairs_that_shared_a_batch_share_one_again_at_chance():
    # 1.84 times as often as chance with Grain's shuffle.
    count, batch = 1 << 17, 64
    first, second = (np.argsort(epoch(count, seed=3, number=e)) // batch for e in (0, 1))
    _, together = np.unique(first * (count // batch) + second, return_counts=True)
    again = (together * (together - 1) // 2).sum()
    pairs = count // batch * batch * (batch - 1) / 2
    expected = pairs * (batch - 1) / (count - 1)
    assert abs(again - expected) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("other", [{"number": 1}, {"seed": 1}, {"seed": 1, "number": 1}])
def test_epochs_and_seeds_are_unrelated(other):
    count = 100_000
    one, two = epoch(count), epoch(count, **other)
    assert (one == two).sum() < 10  # one is to be expected
    assert abs(np.corrcoef(one, two)[0, 1]) < 4 / np.sqrt(count)


def test_a_few_records_come_in_every_order_equally_often():
    draws = 24 * 200
    seen = dict.fromkeys(itertools.permutations(range(4)), 0)
    for seed in range(draws):
        seen[tuple(epoch(4, seed).tolist())] += 1
    chi_square = sum((n - 200) ** 2 / 200 for n in seen.values())
    assert chi_square < 23 + 5 * np.sqrt(2 * 23)


def test_the_stream_goes_on_without_end_and_without_reading_ahead():
    stream = Shuffled([{"key": str(i)} for i in range(5)], seed=0)
    keys = [stream[i]["key"] for i in range(10)]
    assert sorted(keys[:5]) == sorted(keys[5:]) == list("01234")
    assert len(stream) == EXAMPLES
    assert stream[EXAMPLES - 1]["key"] in set("01234")
