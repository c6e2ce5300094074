from collections import Counter

from vclip_jax.datasets.readers import findings, rfmid2
from vclip_jax.datasets.readers.rfmid import CLASSES, CODES


def test_an_eye_within_normal_limits_is_normal(listing):
    assert Counter((item.split, item.label) for item in listing.items) == {
        ("train", 0): 1,
        ("train", 1): 4,
        ("validation", 0): 1,
        ("validation", 1): 1,
        ("test", 0): 1,
        ("test", 1): 2,
    }
    assert listing.classes == CLASSES


def test_misspelt_columns_are_findings_too(listing):
    values = {
        item.key: dict(zip(listing.columns, item.values, strict=True)) for item in listing.items
    }
    assert len(listing.columns) == 50
    assert values["train/4"]["findings/optic neuritis"] == 1
    assert values["validation/2"]["findings/optic disc pit maculopathy"] == 1
    assert values["train/2"]["findings/cotton wool spots"] == 1
    assert sum(sum(row.values()) for row in values.values()) == 8


def test_a_code_means_what_it_means_in_this_release():
    assert (CODES["MCA"], rfmid2.CODES["MCA"]) == ("macroaneurysm", "microaneurysms")
    assert {*CODES.values(), *rfmid2.CODES.values()} <= findings.PHRASES.keys()


def test_no_phrase_stands_for_two_findings():
    phrases = [phrase for own in findings.PHRASES.values() for phrase in own]
    assert len(phrases) == len(set(phrases))


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("train/2", "duplicate row"),
        ("train/80", "missing image"),
        ("train/81", "missing row"),
    }
