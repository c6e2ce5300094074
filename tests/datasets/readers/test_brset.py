import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures import brset as fixture
from vclip_jax.datasets.listing import split_by_hash
from vclip_jax.datasets.readers import brset, findings
from vclip_jax.datasets.readers.words import RETINOPATHY


@pytest.fixture(scope="module")
def items(listing):
    return {item.key: item for item in listing.items}


def row(listing, item):
    return dict(zip(listing.columns, item.values, strict=True))


def found(listing, item):
    values = row(listing, item)
    return {
        name.removeprefix("findings/") for name in values if name in FOUND and values[name] == 1
    }


FOUND = findings.columns((*brset.FINDINGS.values(), *brset.STRUCTURES.values()))


def test_the_label_is_the_icdr_grade(listing, items):
    assert [items[f"img{n:05}"].label for n in range(1, 15)] == [
        *(0, 0, 1, 2, 0, 0, 0, 3, 0, 4, 4, 0, 1, 2)
    ]
    assert listing.classes == prompts.load("zh/idrid").class_names
    assert all(
        any(words in item.caption for words in RETINOPATHY[item.label]) for item in listing.items
    )


def test_facts_and_patient_come_along(listing, items):
    facts = {
        name: cell for name, cell in row(listing, items["img00006"]).items() if "/" not in name
    }
    assert facts == {
        "patient": "3",
        "eye": "left",
        "sex": "female",
        "age": -1,
        "camera": "Canon CR",
        "quality": "adequate",
    }
    assert row(listing, items["img00013"])["quality"] == "inadequate"
    assert row(listing, items["img00013"])["age"] == 91


def test_no_split_parts_a_patient(listing):
    splits = {}
    for item in listing.items:
        splits.setdefault(item.values[0], set()).add(item.split)
    assert splits == {patient: {split_by_hash(patient)} for patient in splits}
    assert {split for own in splits.values() for split in own} == {"train", "validation", "test"}


def test_columns_of_diseases_and_structures_are_findings(listing, items):
    assert found(listing, items["img00005"]) == {"drusen", "increased cup-to-disc ratio"}
    assert found(listing, items["img00006"]) == {"abnormal macula"}
    assert found(listing, items["img00012"]) == {"abnormal optic disc", "myopia"}
    assert row(listing, items["img00005"])["findings/abnormal macula"] == -1  # neither 1 nor 2


def test_a_caption_names_the_findings_and_calls_only_a_sound_eye_normal(listing, items):
    assert "水肿" in items["img00004"].caption
    assert "玻璃膜疣" in items["img00005"].caption
    assert "杯盘比增大" in items["img00005"].caption
    assert "黄斑" in items["img00006"].caption
    assert "视盘异常" not in items["img00012"].caption  # myopia says more
    for item in listing.items:
        normal = any(words in item.caption for words in findings.NORMAL)
        assert normal == (item.label == 0 and not found(listing, item))


def test_a_grade_against_the_column_of_retinopathy_is_noted(listing, items):
    assert items["img00011"].label == 4
    assert row(listing, items["img00011"])["findings/diabetic retinopathy"] == 0
    assert any(note.startswith("1 photographs have a grade and the") for note in listing.notes)


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("img00003", "duplicate row"),
        ("img04414", "missing image"),
        ("img00098", "invalid label"),
        ("img00099", "missing row"),
    }


def test_the_columns_of_version_1_0_1_are_read_too_and_a_note_says_so(listing, tmp_path):
    fixture.write(tmp_path / "brazilian-ophthalmological/1.0.1", old=True)
    old = brset.scan(tmp_path)
    assert [(i.key, i.split, i.caption, i.label, i.values) for i in old.items] == [
        (i.key, i.split, i.caption, i.label, i.values) for i in listing.items
    ]
    assert [note for note in old.notes if note not in listing.notes] == [
        "The table is older than version 1.0.2, which corrects exam_eye."
    ]


def test_a_wrong_layout_says_what_is_missing(copy, tmp_path):
    with pytest.raises(ValueError, match=r"lacks label_brset\.csv or labels_brset\.csv or labels"):
        brset.scan(tmp_path / "none")
    (copy / "fundus_photos").rename(copy / "other")
    with pytest.raises(ValueError, match="lacks fundus_photos or images"):
        brset.scan(copy)
    (copy / "other").rename(copy / "images")
    (copy / "label_brset.csv").write_text("image_id,DR_ICDR\nimg00001,0\n")
    with pytest.raises(ValueError, match="expected the columns patient_id"):
        brset.scan(copy)
