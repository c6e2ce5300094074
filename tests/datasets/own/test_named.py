"""What a command line names: folders, lists in any form, and what must not be opened."""

import json
import os

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.own.named import expand


@pytest.fixture
def folder(tmp_path):
    for name in ("图像 目录/左眼 1.JPG", "a.png", "deep/er/b.tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


NAMES = ["图像 目录/左眼 1.JPG", "a.png"]


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".tsv"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_text_list_may_have_any_encoding_and_separator(folder, suffix, encoding, delimiter):
    lines = [f"image{delimiter}备注", *(f" {name} {delimiter}青光眼" for name in NAMES), ""]
    path = folder / f"list{suffix}"
    path.write_bytes("\r\n".join(lines).encode(encoding))
    assert expand([str(path)]).paths == [folder / name for name in NAMES]


@pytest.mark.parametrize("suffix", [".xlsx", ".jsonl", ".parquet"])
@pytest.mark.parametrize("column", ["image", "file_name", "Image"])
def test_a_list_may_be_a_table_of_other_kinds(folder, suffix, column):
    path = folder / f"list{suffix}"
    if suffix == ".xlsx":
        book = openpyxl.Workbook()
        for row in ([column], *([name] for name in NAMES)):
            book.active.append(row)
        book.save(path)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps({column: name}) + "\n" for name in NAMES))
    else:
        pyarrow.parquet.write_table(pyarrow.table({column: NAMES}), path)
    assert expand([str(path)]).paths == [folder / name for name in NAMES]


def test_paths_of_other_systems_are_found(folder):
    (folder / "list.csv").write_text("image\n图像 目录\\左眼 1.JPG\n", "utf-8")
    assert expand([str(folder / "list.csv")]).paths == [folder / NAMES[0]]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1)))
def test_every_row_with_a_path_is_a_path_and_the_others_are_counted(tmp_path_factory, names):
    path = tmp_path_factory.mktemp("list") / "list.jsonl"
    rows = [{"image": name, "x": "1"} for name in [*names, "", " "]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if not names:
        with pytest.raises(ValueError, match="names no image"):
            expand([str(path)])
        return
    named = expand([str(path)])
    assert len(named.paths) == len(names)
    assert named.notes == [f"{path}: 2 of {len(rows)} rows name no image"]


@pytest.mark.parametrize("content", ["", "image\n", "image,x\n,1\n", "\n\n"])
def test_an_empty_list_is_an_error(folder, content):
    (folder / "list.csv").write_text(content)
    with pytest.raises(ValueError, match=r"list\.csv: .*(names no image|is empty)"):
        expand([str(folder / "list.csv")])


def test_a_list_without_a_column_of_images_names_those_that_it_has(folder):
    (folder / "list.csv").write_text("grade,eye\n1,left\n")
    with pytest.raises(ValueError, match=r"no column 'image' .*'grade', 'eye'"):
        expand([str(folder / "list.csv")])


def test_a_folder_is_searched_through_links_once(folder):
    (folder / "linked").symlink_to(folder / "deep")
    (folder / "deep/back").symlink_to(folder)  # a cycle
    (folder / "file.jpg").symlink_to(folder / "a.png")
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    found = expand([str(folder)])
    assert [p.relative_to(folder).as_posix() for p in found.paths] == [
        "a.png",
        "deep/er/b.tif",
        "file.jpg",
        "gone.jpg",
        NAMES[0],
    ]
    outside = folder / "deep/only"
    outside.mkdir()
    (outside / "link").symlink_to(folder / "图像 目录")
    assert [p.name for p in expand([str(outside)]).paths] == ["左眼 1.JPG"]


def test_shadows_are_skipped_and_what_else_is_passed_over_is_counted(folder):
    for name in (
        "._a.jpg",
        ".DS_Store",
        "__MACOSX/c.jpg",
        ".hidden.jpg",
        "notes.txt",
        "d.dat",
        "e.dat",
        "README",
        ".git/f.jpg",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    found = expand([str(folder)])
    assert len(found.paths) == 3
    hidden, others = found.notes
    assert "2 hidden files or folders (" in hidden
    assert "4 other files skipped (2 .dat, 1 .txt, 1 no suffix)" in others


def test_pipes_are_not_opened(folder):
    os.mkfifo(folder / "pipe.jpg")
    found = expand([str(folder)])
    assert len(found.paths) == 3
    assert "1 no regular file" in found.notes[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_a_folder_that_cannot_be_read_is_named(folder):
    (folder / "deep").chmod(0)
    try:
        found = expand([str(folder)])
    finally:
        (folder / "deep").chmod(0o700)
    assert len(found.paths) == 2
    assert "1 folder" in found.notes[0]
    assert "cannot be read" in found.notes[0]


def test_an_unreadable_folder_is_reported(folder, monkeypatch):
    (folder / "locked").mkdir()
    scandir = os.scandir

    def broken(path):
        if path == folder / "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", broken)
    assert "locked) cannot be read" in expand([str(folder)]).notes[0]


def test_standard_input_is_paths_and_may_not_be_empty(folder):
    assert expand(["-"], ["x.jpg\n", "\n", "y z.jpg\r\n"]).paths[1].name == "y z.jpg"
    with pytest.raises(ValueError, match="standard input names no image"):
        expand(["-"], ["\n"])


def test_what_is_not_there_or_empty_is_an_error(folder):
    with pytest.raises(ValueError, match="there is no such file or folder"):
        expand([str(folder / "nowhere.jpg")])
    (folder / "none").mkdir()
    (folder / "none/x.dat").touch()
    with pytest.raises(ValueError, match=r"there is no image .*; 1 other files .*1 \.dat"):
        expand([str(folder / "none")])


def test_a_folder_gives_the_names_not_a_link_to_it_and_the_systems_folders_are_counted(folder):
    (folder / "Link").symlink_to(folder / "deep")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "a.png").touch()
    named = expand([str(folder)])
    assert folder / "deep/er/b.tif" in named.paths
    assert len(named.paths) == 3
    assert any("@eaDir" in note for note in named.notes)
