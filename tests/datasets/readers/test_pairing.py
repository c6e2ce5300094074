"""Pictures and rows by name: what is kept, and why the rest is not."""

import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.listing import Blob
from vclip_jax.datasets.readers import pairing

TABLE = Path("labels.csv")


def pictures(*names):
    return {name.lower(): pairing.Picture(name, Blob(f"{name}.png")) for name in names}


def rows(*cells):
    return [{"name": name, "grade": grade, "id": str(i)} for i, (name, grade) in enumerate(cells)]


def join(found, listed, prefix=""):
    rejects = []
    joined = pairing.join(found, listed, "name", ("grade",), TABLE, rejects, prefix=prefix)
    return joined, [(reject.key, reject.reason) for reject in rejects]


def test_names_match_without_suffix_and_case_and_keep_the_tables_spelling():
    joined, rejects = join(pictures("im01", "b.1"), rows(("IM01.JPG", "0"), ("b.1", "1")), "x/")
    assert [(key, str(blob)) for key, _, blob in joined] == [
        ("x/IM01", "im01.png"),
        ("x/b.1", "b.1.png"),
    ]
    assert rejects == []


def test_what_has_no_partner_is_rejected():
    joined, rejects = join(pictures("a", "b"), rows(("b", "0"), ("c", "1"), ("", "2")))
    assert [key for key, _, _ in joined] == ["b"]
    assert rejects == [
        ("row without a name", "missing name"),
        ("c", "missing image"),
        ("a", "missing row"),
    ]


def test_of_rows_that_agree_one_is_kept_and_of_others_none():
    joined, rejects = join(
        pictures("a", "b"), rows(("a", "0"), ("a.tif", "0"), ("b", "0"), ("b", "1"))
    )
    assert [key for key, _, _ in joined] == ["a"]
    assert rejects == [("a", "duplicate row"), ("b", "conflicting rows"), ("b", "conflicting rows")]


def test_of_images_with_one_name_the_highest_that_is_no_jpeg_is_kept(tmp_path):
    for path in ("a.jpg", "a.png", "deep/a.png", "__MACOSX/._b.png", ".hidden/c.png", "Thumbs.db"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    rejects = []
    named = pairing.by_name(pairing.pictures_below(tmp_path), rejects, prefix="x/")
    assert [picture.blob.path for picture in named.values()] == [str(tmp_path / "a.png")]
    assert [(reject.key, reject.reason) for reject in rejects] == [("x/a", "duplicate image")] * 2


def test_an_archive_is_listed_without_unpacking(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x/", "x/b.tif", "x/a.tif", "x/notes.txt", "__MACOSX/x/._a.tif"):
            archive.writestr(name, b"")
    found = pairing.pictures_in_zip(path)
    assert [(one.name, one.blob.member) for one in found] == [("a", "x/a.tif"), ("b", "x/b.tif")]
    assert {one.blob.path for one in found} == {str(path)}


def test_a_damaged_archive_is_named_in_one_line(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"x\.zip: cannot read the archive") as caught:
        pairing.pictures_in_zip(tmp_path / "x.zip")
    assert "\n" not in str(caught.value)


@given(
    st.text("abcXYZ019_-", min_size=1, max_size=12),
    st.sampled_from(["", ".png", ".JPG", ".Jpeg", ".tif"]),
    st.sampled_from(["", "images/", "a\\b\\", "/data/train images/"]),
    st.sampled_from(["", " ", "  ", "\t"]),
    st.booleans(),
    st.sampled_from(["2", "2.0", " 2 ", "2."]),
)
def test_a_row_finds_its_picture_however_its_name_and_grade_are_written(
    name, suffix, folder, space, upper, grade
):
    cell = f"{space}{folder}{name.upper() if upper else name}{suffix}{space}"
    joined, rejects = join(pictures(name), rows((cell, grade), (name, "2")))
    assert [str(blob) for _, _, blob in joined] == [f"{name}.png"]
    assert [reason for _, reason in rejects] == ["duplicate row"]
