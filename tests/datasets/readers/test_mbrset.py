from collections import Counter

import pytest

from vclip_jax.datasets.listing import split_by_hash
from vclip_jax.datasets.readers import mbrset
from vclip_jax.datasets.readers.words import RETINOPATHY, UNKNOWN


@pytest.fixture(scope="module")
def items(listing):
    return {item.key: item for item in listing.items}


def row(listing, item):
    return dict(zip(listing.columns, item.values, strict=True))


def test_the_label_is_the_grade_and_unknown_where_there_is_none(listing, items):
    labels = Counter(item.label for item in listing.items)
    assert labels == {0: 7, 1: 2, 2: 3, 3: 3, 4: 3, -1: 2}
    assert items["2.4"].label == 4
    assert items["1.3"].caption == UNKNOWN
    assert any(words in items["2.4"].caption for words in RETINOPATHY[4])
    assert any("2 photographs have no grade" in note for note in listing.notes)


def test_oedema_is_a_finding_and_in_the_caption_where_it_was_rated(listing, items):
    assert row(listing, items["9.4"]) == {
        "patient": "9",
        "eye": "left",
        "sex": "male",
        "age": 45,
        "quality": "inadequate",
        "findings/diabetic retinopathy": -1,
        "findings/macular oedema": 1,
    }
    assert "视网膜病变" not in items["9.4"].caption
    for item in listing.items:
        oedema = row(listing, item)["findings/macular oedema"]
        assert ("水肿" in item.caption) == (oedema >= 0)
        assert any(denied in item.caption for denied in mbrset.OEDEMA[0]) == (oedema == 0)


def test_ages_from_90_on_are_90(listing, items):
    assert row(listing, items["2.1"])["age"] == 90


def test_no_split_parts_a_patient(listing):
    assert {(item.values[0], item.split) for item in listing.items} == {
        (patient, split_by_hash(patient)) for patient in ("1", "2", "9", "12", "31")
    }


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("2.1", "duplicate row"),
        ("985.1", "missing image"),
        ("986.1", "invalid label"),
        ("987.1", "missing row"),
    }


def test_a_wrong_layout_says_what_is_missing(copy):
    (copy / "images").rename(copy / "other")
    with pytest.raises(ValueError, match="not mBRSET as distributed, it lacks images"):
        mbrset.scan(copy)
    (copy / "labels_mbrset.csv").unlink()
    with pytest.raises(ValueError, match=r"lacks labels_mbrset\.csv"):
        mbrset.scan(copy)
