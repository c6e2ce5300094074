"""Tables of photographs for `predict`: read as `build` reads them."""

import openpyxl
import pytest

from vclip_jax.datasets.own.listed import listed_paths

JPEG = b"\xff\xd8\xff"


@pytest.fixture
def folder(tmp_path):
    for key in ("图像 目录/左眼 1.JPG", "a.jpg", "b.jpg"):
        (tmp_path / key).parent.mkdir(exist_ok=True)
        (tmp_path / key).write_bytes(JPEG)
    return tmp_path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gbk", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("cell", ["图像 目录/左眼 1.JPG", " 图像 目录\\左眼 1.JPG "])
def test_a_list_in_any_encoding_is_read(folder, encoding, separator, cell):
    text = f"Image{separator}note\n{cell}{separator}x\na.jpg{separator}y\n"
    (folder / "l.csv").write_bytes(text.encode(encoding))
    assert listed_paths(folder / "l.csv") == [folder / "图像 目录/左眼 1.JPG", folder / "a.jpg"]


def test_lists_of_other_forms_columns_and_ids_are_read(folder):
    book = openpyxl.Workbook()
    for row in (["id_code"], ["a"], ["b"]):
        book.active.append(row)
    book.save(folder / "l.xlsx")
    assert listed_paths(folder / "l.xlsx") == [folder / "a.jpg", folder / "b.jpg"]
    (folder / "l.jsonl").write_text('{"image": "b.jpg"}')
    assert listed_paths(folder / "l.jsonl") == [folder / "b.jpg"]
    (folder / "l.csv").write_text("image\nD:\\x\\b.jpg\n")
    assert listed_paths(folder / "l.csv") == [folder / "b.jpg"]


def test_what_is_missing_keeps_its_place(folder):
    (folder / "l.csv").write_text("image\na.jpg\ngone.jpg\nb.jpg\n")
    assert [path.name for path in listed_paths(folder / "l.csv")] == ["a.jpg", "gone.jpg", "b.jpg"]


@pytest.mark.parametrize("text", ["image\n", "image,label\n,dr\n", "label\ndr\n", "", "a.jpg\n"])
def test_a_list_of_nothing_is_an_error(folder, text):
    (folder / "l.csv").write_text(text)
    with pytest.raises(ValueError, match=r"l\.csv"):
        listed_paths(folder / "l.csv")
