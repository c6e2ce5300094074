import json
import math

import numpy as np
import pytest

from vclip_jax.datasets.ingest.captions import describe_lengths, duplicates, some_of


def test_the_expected_share_of_twins_is_what_drawing_batches_gives():
    captions = ["a"] * 50 + ["b"] * 5 + ["c"] * 2 + [f"unique {i}" for i in range(43)]
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(20_000):
        batch = [captions[i] for i in rng.choice(100, 8, replace=False)]
        shares.append(np.mean([batch.count(caption) > 1 for caption in batch]))
    report = duplicates(captions, 8)
    assert report.share_with_twin == pytest.approx(np.mean(shares), abs=0.005)
    assert report.unique == 46
    assert report.most_frequent[:3] == (("a", 50), ("b", 5), ("c", 2))


def test_equally_frequent_captions_count_as_many_as_they_are():
    report = duplicates(["a", "b", "c", "d"] * 25, 16)
    assert report.effective == pytest.approx(4)
    assert report.effective_by_collision == pytest.approx(4)


def test_the_effective_numbers_are_entropy_and_collision():
    report = duplicates(["a"] * 3 + ["b"], 2)
    assert report.effective == pytest.approx(math.exp(-0.75 * math.log(0.75) + 0.25 * math.log(4)))
    assert report.effective_by_collision == pytest.approx(1 / (0.75**2 + 0.25**2))


def test_unique_captions_have_no_twin_and_equal_ones_always():
    assert duplicates(map(str, range(1000)), 64).share_with_twin == pytest.approx(0)
    assert duplicates(["same"] * 1000, 64).share_with_twin == pytest.approx(1)
    assert duplicates(["same"] * 1000, 1).share_with_twin == pytest.approx(0)


def test_a_million_captions_keep_their_precision():
    report = duplicates([f"{i // 2}" for i in range(1_000_000)], 2)
    assert report.share_with_twin == pytest.approx(1 / 999_999, rel=1e-2)


def test_a_batch_larger_than_the_dataset_is_the_dataset():
    assert duplicates(["a", "a", "b"], 64).share_with_twin == pytest.approx(2 / 3)


def test_nothing_is_reported_of_nothing():
    assert duplicates([], 8).pairs == 0
    with pytest.raises(ValueError, match="at least one"):
        duplicates(["a"], 0)


def test_a_report_is_json():
    report = duplicates(["眼底正常。", "眼底正常。", "青光眼。"], 2)
    assert json.loads(json.dumps(report.as_dict()))["most_frequent"][0] == ["眼底正常。", 2]


def encode(texts, length):
    rows = [([1] * len(text) + [0] * length)[:length] for text in texts]
    return np.array(rows)


def test_lengths_tell_what_is_padding_and_what_is_cut():
    line = describe_lengths(["a" * 2, "a" * 4, "a" * 4, "a" * 12], encode, 8)
    assert "of 4 the longest has 12 tokens, half have at most 4" in line
    assert (
        "context_length=8 44% of the places are padding and 25.0% of the captions are cut" in line
    )
    assert "cut" not in describe_lengths(["aa", "aaaaaaaa"], encode, 8)


@pytest.mark.parametrize(
    ("records", "taken"), [(0, 0), (1, 1), (24, 24), (1000, 1000), (5000, 1000)]
)
def test_captions_are_of_different_records(records, taken):
    source = [{"caption": str(index)} for index in range(records)]
    captions = some_of(source)
    assert len(set(captions)) == len(captions) == taken
    assert not taken or captions[-1] == str(records - 1)
