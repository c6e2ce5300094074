"""The data card counts findings, and identical photographs whose findings contradict each other."""

import pytest

from vclip_jax.datasets.ingest import data_card
from vclip_jax.datasets.listing import Blob, Item, Listing, anonymous


def listing_of(columns, rows, name="mine"):
    items = [
        Item(f"{index}", "test", Blob("x.jpg"), "text", -1, values)
        for index, values in enumerate(rows)
    ]
    return Listing(name, (), items, columns=columns)


OWN = {"age": str, "findings/DR": int, "findings/patient id": int}


def test_findings_are_counted_and_photographs_with_several():
    listing = listing_of(OWN, [("50", 1, 1), ("60", 0, 1), ("", -1, 0)])
    assert data_card.findings(listing, listing.items) == {
        "findings": {
            "several": 1,
            "counts": {
                "DR": {"present": 1, "absent": 1, "not rated": 1},
                "patient id": {"present": 2, "absent": 1, "not rated": 0},
            },
        }
    }
    card = data_card.findings(listing, listing.items)
    assert data_card.known_findings(card) == [
        "findings: DR 1, patient id 2",
        "photographs with several findings: 1",
    ]


def test_a_dataset_without_findings_has_no_entry():
    listing = listing_of({"age": str}, [("50",)])
    assert data_card.findings(listing, listing.items) == {}
    assert data_card.known_findings({}) == []


def test_grades_of_a_published_dataset_are_present_from_1_on():
    columns = {"dr_grade": int, "is_gc": int}
    listing = listing_of(columns, [(3, 1), (0, 0), (-1, 1)], "synfundus")
    card = data_card.findings(listing, listing.items)["findings"]
    assert card["several"] == 1
    counts = {"present": 1, "absent": 1, "not rated": 1}
    assert card["counts"]["diabetic retinopathy"] == counts


@pytest.mark.parametrize(
    ("flags", "against"),
    [(((1, 0), (1, 0)), 0), (((1, -1), (1, 0)), 0), (((1, 1), (1, 0)), 1), (((3, 0), (0, 0)), 1)],
)
def test_twins_with_contradicting_findings_are_counted(flags, against):
    listing = listing_of({"findings/DR": int, "findings/AMD": int}, flags)
    kept = {item.key: {"digest": "same"} for item in listing.items}
    places = data_card.finding_places(listing)
    twins = data_card.twins(listing.items, kept, places)
    assert twins["across_labels"] == against
    card = {"identical_images": twins, "splits": {}, "findings": {}}
    said = [line for line in data_card.warnings(card) if "different classes or findings" in line]
    assert len(said) == against


def test_anonymous_data_keep_all_findings_whatever_their_names():
    hidden = anonymous(listing_of(OWN, [("50", 1, 0)]), b"secret")
    assert hidden.columns == {"findings/DR": int, "findings/patient id": int}
    assert [item.values for item in hidden.items] == [(1, 0)]
