"""MESSIDOR-2 from a miniature, with both kinds of tables."""

import shutil
from collections import Counter

import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures.pictures import save_csv
from vclip_jax.datasets.formats.tables import read_table
from vclip_jax.datasets.readers.messidor2 import scan


def test_names_match_whatever_the_suffix_and_the_case(source):
    items = {item.key: item for item in scan(source).items}
    assert items["20051020_43808_0100_PP"].image.path.endswith("20051020_43808_0100_PP.png")
    assert items["im004835"].image.path.endswith("IM004835.JPG")
    assert len(items) == 10


def test_grades_oedema_and_captions_are_read(source):
    listing = scan(source)
    assert Counter(item.label for item in listing.items) == dict.fromkeys(range(5), 2)
    assert {item.split for item in listing.items} == {"test"}
    assert listing.columns == {"patient": str, "dme": int}
    assert all(item.values[1] == int(item.label > 2) for item in listing.items)
    assert listing.classes == prompts.load("zh/idrid").class_names
    with_oedema = [item.caption for item in listing.items if item.values[1] == 1]
    assert not any("无需转诊" in caption or "未见需转诊" in caption for caption in with_oedema)


@pytest.mark.parametrize("form", ["{};{}", '"{}","{}"', "{}\t{}\t1", "{} ; {};"])
def test_the_images_of_an_examination_are_of_one_patient(copy, form):
    names = [row["image_id"] for row in read_table(copy / "messidor_data.csv")][:10]
    pairs = zip(names[::2], names[1::2], strict=True)
    (copy / "messidor-2.csv").write_text("\n".join(["x", *(form.format(*pair) for pair in pairs)]))
    patients = {item.key: item.values[0] for item in scan(copy).items}
    assert set(Counter(patients.values()).values()) == {2}
    assert patients["20051020_43808_0100_PP"] == patients["20051021_43808_0100_PP"]


def test_without_the_list_of_examinations_no_patient_is_known_and_a_note_says_so(copy):
    assert not scan(copy).notes
    (copy / "messidor-2.csv").unlink()
    listing = scan(copy)
    assert {item.values[0] for item in listing.items} == {""}
    assert "messidor-2.csv" in listing.notes[0]


def test_what_cannot_be_an_item_is_rejected_with_its_reason(source):
    assert {(reject.key, reject.reason) for reject in scan(source).rejects} == {
        ("IM003718", "not gradable"),
        ("IM009998", "missing row"),
        ("IM009999", "missing image"),
        ("20051023_43808_0100_PP", "duplicate row"),
    }


def test_the_other_table_gives_the_same_listing(copy):
    before = scan(copy)
    rows = read_table(copy / "messidor_data.csv")
    (copy / "messidor_data.csv").unlink()
    header = ("id_code", "diagnosis", "adjudicated_dme", "adjudicated_gradable")
    # As a program writes numbers where some are missing.
    cells = [
        [row["image_id"], *(f"{cell}.0" if cell else "" for cell in list(row.values())[1:])]
        for row in rows
    ]
    save_csv(copy / "labels/train.csv", header, cells, encoding="utf-8-sig")
    after = scan(copy)
    assert after.items == before.items
    assert {(r.key, r.reason) for r in after.rejects} == {(r.key, r.reason) for r in before.rejects}


def test_oedema_that_nobody_graded_is_unknown_and_not_in_the_caption(copy):
    text = (copy / "messidor_data.csv").read_text().replace("IM004836.jpg,1,0", "IM004836.jpg,1,")
    (copy / "messidor_data.csv").write_text(text)
    item = next(item for item in scan(copy).items if item.key == "IM004836")
    assert item.values[1] == -1
    assert "水肿" not in item.caption


def test_an_invalid_grade_is_rejected(copy):
    text = (copy / "messidor_data.csv").read_text().replace("IM004836.jpg,1,0", "IM004836.jpg,5,0")
    (copy / "messidor_data.csv").write_text(text)
    assert ("IM004836", "invalid label") in {(r.key, r.reason) for r in scan(copy).rejects}


def test_without_grades_or_images_the_folder_is_refused_in_one_line(copy):
    (copy / "messidor_data.csv").rename(copy.parent / "messidor_data.csv")
    with pytest.raises(ValueError, match=r"it lacks messidor_data\.csv") as caught:
        scan(copy)
    assert "\n" not in str(caught.value)
    shutil.rmtree(copy / "IMAGES")
    (copy.parent / "messidor_data.csv").rename(copy / "messidor_data.csv")
    with pytest.raises(ValueError, match="there is no image in it"):
        scan(copy)


def test_a_damaged_table_of_grades_is_named_and_another_file_passed_over(copy):
    (copy / "a.xlsx").write_bytes(b"not Excel")
    assert len(scan(copy).items) == 10
    (copy / "messidor_data.csv").write_bytes(b"\0\1")
    with pytest.raises(ValueError, match=r"messidor_data\.csv: the table has zero bytes"):
        scan(copy)
