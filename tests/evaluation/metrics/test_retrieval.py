"""Recall among captions that repeat, against sorting every row."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.evaluation.metrics import retrieval


def brute_force(images, texts, ids):
    """Recall by sorting every row, in plain Python."""
    images = images / np.linalg.norm(images, axis=1, keepdims=True)
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    similarity = images.astype(np.float64) @ texts.astype(np.float64).T
    out = {"image_to_text": {}, "text_to_image": {}}
    asked = sorted(set(ids.tolist()))
    for k in (1, 5, 10):
        hits = [ids[i] in np.argsort(-similarity[i])[:k] for i in range(len(images))]
        out["image_to_text"][f"r{k}"] = sum(hits) / len(hits)
        hits = [t in ids[np.argsort(-similarity[:, t])[:k]] for t in asked]
        out["text_to_image"][f"r{k}"] = sum(hits) / len(hits)
    return out


def pairs(seed, n, m, d=16, noise=1.0):
    rng = np.random.default_rng(seed)
    texts = rng.standard_normal((m, d))
    ids = rng.integers(0, m, n)
    return texts[ids] + noise * rng.standard_normal((n, d)), texts, ids


@given(st.integers(0, 10_000), st.integers(1, 50), st.integers(1, 30))
@settings(max_examples=40, deadline=None)
def test_retrieval_equals_sorting_every_row(seed, n, m):
    images, texts, ids = pairs(seed, n, m)
    result = retrieval.retrieval(images, texts, ids)
    want = brute_force(images, texts, ids)
    assert result["n"] == n
    assert result["texts"] == m
    for direction, values in want.items():
        assert result[direction] == pytest.approx(values, abs=1e-12)
        assert result[direction]["r1"] <= result[direction]["r5"] <= result[direction]["r10"] <= 1


def test_float32_embeddings_give_the_same_recalls():
    images, texts, ids = pairs(3, 300, 120, noise=2.0)
    single = retrieval.retrieval(images.astype(np.float32), texts.astype(np.float32), ids)
    assert single == retrieval.retrieval(images, texts, ids)


def test_chunks_do_not_change_the_result(monkeypatch):
    images, texts, ids = pairs(4, 97, 41)
    whole = retrieval.retrieval(images, texts, ids)
    monkeypatch.setattr(retrieval, "_CHUNK_ELEMENTS", 300)
    assert retrieval.retrieval(images, texts, ids) == whole


def test_any_image_with_the_caption_counts():
    images = np.array([[1.0, 0.0], [0.0, 1.0], [0.1, 1.0]])
    result = retrieval.retrieval(images, np.eye(2), np.array([0, 0, 1]))
    # Caption 0 finds image 0 first; that image 1, with the same caption, is far does not matter.
    assert result["text_to_image"]["r1"] == pytest.approx(0.5)
    assert result["image_to_text"]["r1"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_collapsed_model_scores_chance(dtype):
    rng = np.random.default_rng(0)
    point = rng.standard_normal(1024)
    ids = np.arange(60) % 20
    # Not bit for bit: cosines that differ by rounding only must not decide the order either.
    images = point + 1e-5 * rng.standard_normal((60, 1024))
    texts = point + 1e-5 * rng.standard_normal((20, 1024))
    result = retrieval.retrieval(images.astype(dtype), texts.astype(dtype), ids)
    assert result["image_to_text"] == pytest.approx({"r1": 0.05, "r5": 0.25, "r10": 0.5})
    assert result["text_to_image"] == pytest.approx(result["chance"]["text_to_image"])
    want = 1 - math.comb(57, 5) / math.comb(60, 5)
    assert result["chance"]["text_to_image"]["r5"] == pytest.approx(want)


def test_captions_without_an_image_are_distractors_only():
    images, texts = np.eye(3), np.vstack([np.eye(3), [[1.0, 1.0, 1.0]]])
    result = retrieval.retrieval(images, texts, np.arange(3))
    assert result["texts"] == 4
    assert result["text_to_image"]["r1"] == 1


@pytest.mark.parametrize(
    ("images", "texts", "ids", "says"),
    [
        (np.zeros((0, 4)), np.ones((2, 4)), np.zeros(0, int), "image_embeddings must be"),
        (np.ones((2, 4)), np.ones((2, 3)), np.array([0, 1]), "do not match"),
        (np.ones((2, 4)), np.ones((2, 4)), np.array([0, 2]), r"0\.\.1"),
        (np.zeros((2, 4)), np.ones((2, 4)), np.array([0, 1]), "zero or not finite"),
        (np.ones((2, 4)), np.full((2, 4), np.nan), np.array([0, 1]), "text_embeddings"),
    ],
)
def test_retrieval_refuses_bad_input(images, texts, ids, says):
    with pytest.raises(ValueError, match=says):
        retrieval.retrieval(images, texts, ids)
