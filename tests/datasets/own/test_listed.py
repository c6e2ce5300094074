"""Tables of photographs for `predict`: read as `build` reads them."""

import openpyxl
import pytest

from vclip_jax.datasets.own import generic
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


@pytest.mark.parametrize("start", ["../input/x", "/kaggle/input/x", "C:\\data\\x"])
@pytest.mark.parametrize(
    "names",
    [
        ["1/a.jpg", "2/b.jpg", "gone.jpg"],
        ["1/a.jpg", "2/a.jpg", "more/b.jpg"],  # two that fit one; below the start of all
        ["1/a.jpg", "b.jpg", "more/b.jpg"],
    ],
)
@pytest.mark.parametrize("direct", [[], ["a.jpg"]])
def test_paths_outside_the_folder_are_matched_as_a_build_matches_them(folder, start, names, direct):
    (folder / "more").mkdir()
    (folder / "more/b.jpg").write_bytes(JPEG)
    cells = [*(f"{start}/{name}" for name in names), *direct]
    (folder / "l.csv").write_text("\n".join(["image,label", *(f"{cell},dr" for cell in cells)]))
    found = listed_paths(folder / "l.csv")
    assert len(found) == len(cells)
    there = {path.relative_to(folder).as_posix() for path in found if path.exists()}
    assert there == {item.key for item in generic.scan(folder, classes="dr").items}


def test_paths_matched_by_their_end_are_counted(folder):
    (folder / "l.csv").write_text("image\n../x/a.jpg\n../x/b.jpg\n../x/gone.jpg\n")
    notes: list[str] = []
    assert listed_paths(folder / "l.csv", notes=notes)[:2] == [folder / "a.jpg", folder / "b.jpg"]
    assert notes == [f"{folder / 'l.csv'}: 2 rows name paths outside the folder by their end"]


def test_a_path_that_is_there_does_not_keep_others_from_being_found(folder):
    (folder / "l.csv").write_text("image\na.jpg\nB\n")
    assert listed_paths(folder / "l.csv") == [folder / "a.jpg", folder / "b.jpg"]
