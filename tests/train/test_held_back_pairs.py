"""Held-back pairs: the same ones everywhere, mixed however they are stored."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax import config as config_lib
from vclip_jax import datasets
from vclip_jax.evaluation import zero_shot
from vclip_jax.train import inputs

CLASSES, EACH, BATCH = 4, 32, 16


class Stored(list):
    name, split, splits = "by_class", "validation", ("validation",)
    class_names = ("a", "b", "c", "d")


def by_class() -> Stored:
    """Stored class by class, as a folder for each class is."""
    return Stored(
        {"image": b"", "caption": f"caption {label}", "key": f"{label}-{number}", "label": label}
        for label in range(CLASSES)
        for number in range(EACH)
    )


@pytest.fixture
def config(monkeypatch):
    config = config_lib.default()
    config.data.dataset, config.data.test_split = "by_class", "test"
    config.global_batch_size = config.eval_batch_size = BATCH
    config.validation_batches = 2
    monkeypatch.setattr(datasets, "prepare", lambda *_: None)
    monkeypatch.setattr(datasets, "open_source", lambda *_: by_class())
    return config


def test_pairs_that_are_cut_are_of_all_classes_and_so_is_each_batch(config):
    _, pairs = inputs.open_training_data(config)
    assert len(pairs) == 2 * BATCH
    assert len({record["key"] for record in pairs}) == len(pairs)
    for start in (0, BATCH):
        labels = [pairs[start + row]["label"] for row in range(BATCH)]
        assert set(labels) == set(range(CLASSES))
    assert (pairs.name, pairs.split, pairs.class_names[0]) == ("by_class", "validation", "a")
    assert list(pairs) == [pairs[row] for row in range(len(pairs))]


def test_the_pairs_do_not_depend_on_the_runs_seed_and_all_test_pairs_are_there(config):
    first = [record["key"] for record in inputs.open_training_data(config)[1]]
    config.seed = 17
    assert [record["key"] for record in inputs.open_training_data(config)[1]] == first
    tested = [record["key"] for record in inputs.open_test_pairs(config)]
    assert sorted(tested) == sorted(record["key"] for record in by_class())
    assert tested[: len(first)] == first


def test_the_order_is_the_stated_one():
    # As of today: other numbers would make figures of the same model differ between versions.
    assert list(inputs.draw_pairs(range(10)).rows) == [0, 8, 9, 3, 7, 5, 1, 2, 6, 4]


@given(st.integers(0, 300), st.none() | st.integers(1, 300))
def test_every_pair_comes_at_most_once(length, most):
    rows = inputs.draw_pairs(range(length), most).rows
    assert len(set(rows)) == len(rows) == min(length, length if most is None else most)
    assert set(rows) <= set(range(length))


def test_the_loss_tells_a_perfect_model_from_a_collapsed_one_however_pairs_are_stored(config):
    def loss(pairs, texts):
        rows = np.array([record["label"] for record in pairs])
        held_back = zero_shot.Pairs(np.eye(CLASSES, dtype=np.float32)[rows], texts, rows)
        scale = ({"logit_scale": jnp.log(100.0)}, {})
        return zero_shot.evaluate_pairs(held_back, scale, config)[0]["eval/validation/loss"]

    perfect = np.eye(CLASSES, dtype=np.float32)
    collapsed = np.tile(perfect[:1], (CLASSES, 1))
    # A batch of one class tells nothing: its captions are all the same.
    assert loss(by_class(), perfect) == pytest.approx(np.log(BATCH), abs=0.01)
    mixed = inputs.draw_pairs(by_class())
    assert loss(mixed, perfect) < np.log(BATCH) - 1
    assert loss(mixed, collapsed) > np.log(BATCH) + 10
