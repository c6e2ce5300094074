"""Near-duplicates: what the hash and embeddings find, and what they leave alone.

The slow test measures the distances that the default threshold rests on and prints them:
`pytest -m slow -s tests/audit/test_near_duplicates.py`. With VCLIP_PHOTOGRAPHS=FOLDER, of JPEGs
there instead of drawn eyes.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg

from vclip_jax.audit import near_duplicates, perceptual_hash
from vclip_jax.audit.near_duplicates import compare
from vclip_jax.datasets import DatasetError
from vclip_jax.datasets.synthetic.record import record

from .photographs import Model, entry, jpeg


def rotated(rgb, degrees):
    height, width = rgb.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return cv2.warpAffine(rgb, turn, (width, height))


def brighter(rgb, factor):
    return np.clip(rgb * np.float32(factor), 0, 255).astype(np.uint8)


def cropped(rgb, share):
    rows, columns = (round(share * side) for side in rgb.shape[:2])
    return rgb[rows : len(rgb) - rows, columns : rgb.shape[1] - columns]


def halved(rgb):
    return cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


VARIANTS = {
    "JPEG quality 50": lambda rgb: simplejpeg.decode_jpeg(jpeg(rgb, 50), "RGB"),
    "half the size": halved,
    "20 % brighter": lambda rgb: brighter(rgb, 1.2),
    "20 % darker": lambda rgb: brighter(rgb, 0.8),
    "cropped by 3 %": lambda rgb: cropped(rgb, 0.03),
    "turned by 2 degrees": lambda rgb: rotated(rgb, 2),
    "mirrored": lambda rgb: rgb[:, ::-1],
}


def found(result):
    return [(p.key_a, p.key_b, p.kind, p.mirrored) for p in result.pairs]


def test_a_copy_and_a_mirrored_eye_are_found(sources):
    result = compare(*sources)
    assert found(result) == [("a3", "copy", "identical", False), ("a5", "mirror", "hash", True)]
    assert result.pairs[0].distance == 0
    assert 0 < result.pairs[1].distance <= near_duplicates.DISTANCE
    assert result.affected == {"identical": 1, "hash": 2, "embedding": 0, "any": 2}


@pytest.mark.parametrize("name", VARIANTS)
def test_an_eye_is_recognised_after(name, eyes):
    a = [entry(jpeg(eye), f"{index}") for index, eye in enumerate(eyes)]
    b = [entry(jpeg(VARIANTS[name](eye)), f"{index}") for index, eye in enumerate(eyes)]
    result = compare(a, b, distance=48)
    assert {(p.key_a, p.key_b) for p in result.pairs} == {(r["key"], r["key"]) for r in a}
    assert {p.mirrored for p in result.pairs} == {name == "mirrored"}


def test_an_eye_without_its_surround_is_recognised(eyes):
    for eye in eyes:
        middle = cropped(eye, (1 - 2**-0.5) / 2)
        result = compare([entry(jpeg(eye), "whole")], [entry(jpeg(middle), "middle")])
        assert found(result) == [("whole", "middle", "hash", False)]


def test_within_a_set_each_pair_comes_once_and_no_picture_with_itself(eyes):
    copies = [entry(jpeg(eyes[index % 3]), f"{index}") for index in range(6)]
    result = compare(copies, copies)
    assert [(p.key_a, p.key_b) for p in result.pairs] == [("0", "3"), ("1", "4"), ("2", "5")]
    assert result.affected["any"] == 6


def test_overlapping_splits_of_one_dataset_do_not_match_records_with_themselves(eyes):
    records = [entry(jpeg(eyes[index % 4]), f"{index}") for index in range(6)]
    result = compare(records[:5], records, one_dataset=True)
    assert sorted((p.key_a, p.key_b) for p in result.pairs) == [("0", "4"), ("1", "5")]
    other = compare(records[:5], records, one_dataset=False)
    assert len(other.pairs) == 5 + 2 + 1


def test_damaged_and_blank_pictures_are_counted_and_left_out(sources):
    a, b = sources
    black = np.zeros((64, 64, 3), np.uint8)
    bad = [entry(jpeg(black), "black"), entry(b"junk", "junk"), entry(a[0]["image"][:900], "half")]
    result = compare([bad[0], *a, *bad[1:]], [*b, *bad])
    assert result.a.damaged == result.b.damaged == ["junk", "half"]
    assert result.a.blank == result.b.blank == ["black"]
    assert found(result) == found(compare(a, b))


def test_a_record_that_cannot_be_parsed_is_a_damaged_one(sources):
    class Broken(list):
        def __getitem__(self, index):
            if index == 1:
                raise DatasetError("damaged on disk")
            return super().__getitem__(index)

    a, b = sources
    result = compare(Broken(a), b)
    assert result.a.damaged == ["record 1"]
    assert len(result.pairs) == 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 500)])
def test_pictures_of_any_shape_are_hashed(shape):
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    hashes = perceptual_hash.perceptual_hashes(rgb)
    assert hashes is None or (hashes.shape == (2, 4) and hashes.dtype == np.uint64)


def test_an_empty_source_has_no_pairs(sources):
    for pair in ((sources[0], []), ([], sources[1]), ([], [])):
        result = compare(*pair, model=Model())
        assert result.pairs == []


def test_the_result_is_the_same_for_any_number_of_workers(sources):
    a, b = (source * 9 for source in sources)
    one, *more = (
        compare(a, b, model=Model(), cosine=0.99, distance=100, workers=workers)
        for workers in (1, 2, 5)
    )
    for other in more:
        assert (other.pairs, other.similar, other.affected) == (
            one.pairs,
            one.similar,
            one.affected,
        )


def test_pairs_are_found_across_the_tiles_of_the_comparison(sources, monkeypatch):
    a, b = (source * 9 for source in sources)
    whole = compare(a, b, model=Model(), cosine=0.99, distance=100)
    monkeypatch.setattr(near_duplicates, "_TILE", (3, 2))
    monkeypatch.setattr(near_duplicates, "_SIMILAR_TILE", (5, 3))
    parts = compare(a, b, model=Model(), cosine=0.99, distance=100)
    by_place = [{(p.a, p.b): p for p in result.pairs} for result in (whole, parts)]
    assert by_place[0].keys() == by_place[1].keys()
    for place, pair in by_place[0].items():
        # Matrix products of other shapes round differently.
        assert by_place[1][place]._replace(cosine=pair.cosine) == pair
        assert by_place[1][place].cosine == pytest.approx(pair.cosine, abs=1e-6)
    assert (parts.similar, parts.affected) == (whole.similar, whole.affected)


def test_distances_are_those_of_the_bits():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, (5, 4), np.uint64)
    others = np.concatenate([~hashes[:1], hashes, rng.integers(0, 2**64, (3, 4), np.uint64)])
    bits = [np.unpackbits(x.view(np.uint8), axis=1) for x in (hashes, others)]
    expected = (bits[0][:, None] != bits[1]).sum(axis=2)
    np.testing.assert_array_equal(near_duplicates._distances(hashes, others), expected)
    assert expected[0, 0] == 256


def test_too_many_pairs_are_refused(sources, monkeypatch):
    monkeypatch.setattr(near_duplicates, "MAX_PAIRS", 3)
    with pytest.raises(ValueError, match=r"more than 3 pairs .* smaller --distance"):
        compare(*sources, distance=256)


def test_arguments_out_of_range_are_refused(sources):
    for wrong in ({"distance": -1}, {"distance": 257}, {"cosine": 1.5}, {"workers": 0}):
        with pytest.raises(ValueError, match="an audit needs"):
            compare(*sources, **wrong)


# --- embeddings


def solid(rgb, seed):
    """A texture in a colour; the seed decides the texture, and so the hash."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 2, (16, 16, 1), np.uint8) * np.uint8(40)
    return jpeg(cv2.resize(np.array(rgb, np.uint8) + noise, (96, 96)), 100)


def test_embeddings_find_pairs_that_the_hash_does_not():
    a = [entry(solid((200, 40, 40), 0), "red"), entry(solid((40, 200, 40), 1), "green")]
    b = [entry(solid((190, 40, 40), 2), "reddish"), entry(a[1]["image"], "copy")]
    result = compare(a, b, model=Model(), cosine=0.99)
    assert [(p.key_a, p.key_b, p.kind) for p in result.pairs] == [
        ("green", "copy", "identical"),
        ("red", "reddish", "embedding"),
    ]
    assert result.pairs[0].cosine == pytest.approx(1)
    assert 0.99 < result.pairs[1].cosine < 1
    assert result.pairs[1].distance > near_duplicates.DISTANCE
    assert result.similar == 2
    assert result.affected == {"identical": 1, "hash": 1, "embedding": 2, "any": 2}


def test_a_pair_found_by_hash_has_its_cosine_below_the_threshold_too(sources):
    result = compare(*sources, model=Model(), cosine=1.0)
    by_key = {p.key_b: p for p in result.pairs}
    assert by_key["mirror"].kind == "hash"
    assert by_key["mirror"].cosine == pytest.approx(1, abs=1e-3)


def test_of_many_similar_pairs_the_most_similar_are_listed(sources, monkeypatch):
    everything = compare(*sources, model=Model(), cosine=-1)
    assert everything.similar == 32
    monkeypatch.setattr(near_duplicates, "MAX_SIMILAR", 4)
    few = compare(*sources, model=Model(), cosine=-1)
    assert (few.similar, few.affected) == (32, everything.affected)
    assert [p.kind for p in few.pairs].count("embedding") == 4
    assert [p.kind for p in few.pairs].count("both") == 1
    cosines = sorted(p.cosine for p in everything.pairs if p.kind == "embedding")
    assert sorted(p.cosine for p in few.pairs if p.kind == "embedding") == cosines[-4:]


def test_within_a_set_embeddings_count_each_pair_once(sources):
    result = compare(sources[0], sources[0], model=Model(), cosine=-1)
    assert result.similar == len(result.pairs) == 8 * 7 // 2
    assert result.affected["embedding"] == 8


# --- the threshold


@pytest.mark.slow
def test_the_threshold_separates_different_eyes_from_one_eye_changed():
    if folder := os.environ.get("VCLIP_PHOTOGRAPHS"):
        paths = sorted(Path(folder).rglob("*.jpg"))
        images = [simplejpeg.decode_jpeg(path.read_bytes(), "RGB") for path in paths]
    else:
        domains = ("synfundus_like", "messidor_like", "fives_like", "refuge_like")
        images = [
            simplejpeg.decode_jpeg(record(domain, 512, 0, index)["image"], "RGB")
            for domain in domains
            for index in range(100)
        ]
    originals = [entry(jpeg(rgb), f"{index}") for index, rgb in enumerate(images)]
    prints = perceptual_hash.fingerprint(originals)
    others = np.minimum(
        near_duplicates._distances(prints.hashes, prints.hashes),
        near_duplicates._distances(prints.hashes, prints.mirrored),
    )[np.triu_indices(len(images), 1)]
    limits = (24, 32, 40, 48, 56, 64)
    print(f"\n{len(images)} pictures; pairs of different ones: {len(others)}, median", end=" ")
    print(f"{np.median(others):.0f}, smallest {np.sort(others)[:10]}")
    print("within", {limit: int((others <= limit).sum()) for limit in limits})
    print(f"{'one eye':20} median  95 %  99 %  max  within {limits}")
    for name, change in VARIANTS.items():
        changed = perceptual_hash.fingerprint([entry(jpeg(change(rgb)), "") for rgb in images])
        hashes = changed.mirrored if name == "mirrored" else changed.hashes
        distances = np.bitwise_count(prints.hashes ^ hashes).sum(axis=1)
        quantiles = np.quantile(distances, (0.5, 0.95, 0.99, 1))
        shares = [f"{np.mean(distances <= limit):.3f}" for limit in limits]
        print(f"{name:20}", *(f"{q:5.0f}" for q in quantiles), "  ", *shares)
        assert np.mean(distances <= near_duplicates.DISTANCE) >= 0.95
    if not folder:
        assert others.min() > near_duplicates.DISTANCE
