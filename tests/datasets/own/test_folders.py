"""Folders of people's own photographs: none is passed over."""

import os
import tarfile
from io import BytesIO

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vclip_jax.datasets.ingest import data_card
from vclip_jax.datasets.listing import IMAGE_SUFFIXES
from vclip_jax.datasets.own import folders, generic
from vclip_jax.datasets.own.lookup import split_of

from .listings import JPEG, labels, place, reasons, splits, tar


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("train", "train"),
        ("Training Set", "train"),
        ("b. Testing Set", "test"),
        ("val2", "validation"),
        ("TestImages", "test"),
        ("train-00000-of-00002", "train"),
        ("Train_Images", "train"),
        ("训练集", "train"),
        ("测试", "test"),
        ("train_test", ""),
        ("latest", ""),
        ("amd", ""),
        ("VALID", "validation"),
        ("my-test-data", "test"),
        ("trn", "train"),
        ("tst", "test"),
        ("eval", "test"),
        ("dev", "validation"),
        ("holdout", "holdout"),
        ("hold-out", "holdout"),
        ("Hold_Out set", "holdout"),
        ("HoldOut", "holdout"),
        ("hold", ""),
        ("evaluation", ""),
        ("medieval", ""),
    ],
)
def test_splits_go_by_many_names(text, split):
    assert split_of(text) == split


def test_the_folder_of_an_archive_is_passed_over(tmp_path):
    place(
        tmp_path,
        "mine/mine/dr/1.jpg",
        "mine/mine/amd/left/2.jpg",
        "__MACOSX/mine/dr/._1.jpg",
        "mine/mine/.cache/3.jpg",
    )
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"mine/mine/dr/1.jpg": "dr", "mine/mine/amd/left/2.jpg": "amd"}
    assert not listing.rejects
    assert "Classes are the folders below 'mine/mine', above all photographs." in listing.guesses


def test_hidden_photographs_are_counted(tmp_path):
    place(tmp_path, "dr/1.jpg", "amd/2.jpg", "dr/.3.jpg", ".old/a/4.JPG", "__MACOSX/5.png")
    place(tmp_path, "dr/._1.jpg", "__MACOSX/dr/._1.jpg", ".old/notes", ".DS_Store")
    (tmp_path / ".link").symlink_to(tmp_path / "dr")
    listing = generic.scan(tmp_path)
    assert len(listing.items) == 2
    hidden, shadows = listing.guesses
    assert hidden.startswith("3 hidden photographs are skipped unless a table names them, such ")
    assert ".old/a/4.JPG" in hidden
    assert shadows.startswith("2 files that macOS wrote next to photographs are skipped, such ")
    place(tmp_path / "other", ".1.jpg")
    with pytest.raises(ValueError, match=r"1 are hidden, such as \.1\.jpg"):
        generic.scan(tmp_path / "other")


def test_a_photograph_next_to_the_classes_has_none(tmp_path):
    place(tmp_path, "mine/dr/1.jpg", "mine/amd/2.jpg", "mine/3.jpg", "4.jpg")
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"mine/dr/1.jpg": "dr", "mine/amd/2.jpg": "amd"}
    assert reasons(listing) == {"no class": 2}


def test_a_packed_table_is_not_passed_over(tmp_path):
    place(tmp_path, "dr/1.jpg", "amd/2.jpg")
    (tmp_path / "labels.csv.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"labels\.csv\.gz: .* unpack it"):
        generic.scan(tmp_path)


@pytest.mark.parametrize(
    ("dr", "amd"),
    [
        ("Training Set/dr/1.jpg", "Testing Set/amd/2.jpg"),
        ("dr/train/1.jpg", "amd/test/2.jpg"),
        ("x/a. Train/dr/1.jpg", "x/b. Test/amd/2.jpg"),
        ("train/images/dr/1.jpg", "test/images/amd/2.jpg"),
        ("训练集/dr/1.jpg", "测试集/amd/2.jpg"),
    ],
)
def test_splits_lie_above_or_below_the_classes(tmp_path, dr, amd):
    place(tmp_path, dr, amd)
    listing = generic.scan(tmp_path)
    assert labels(listing) == {dr: "dr", amd: "amd"}
    assert splits(listing) == {dr: "train", amd: "test"}


def test_other_words_for_splits_make_no_classes(tmp_path):
    place(tmp_path, "trn/dr/1.jpg", "dev/amd/2.jpg", "eval/dr/3.jpg", "hold-out/amd/4.jpg")
    listing = generic.scan(tmp_path)
    assert listing.classes == ("amd", "dr")
    assert list(splits(listing).values()) == ["validation", "test", "holdout", "train"]
    assert any("'eval' (test), 'hold-out' (holdout)" in note for note in listing.guesses)
    place(tmp_path, "test/dr/5.jpg")
    with pytest.raises(ValueError, match="is 'eval' for validation, or for test as 'test'"):
        generic.scan(tmp_path)


def test_what_has_no_class_or_no_split_is_counted(tmp_path):
    place(
        tmp_path,
        "train/dr/1.jpg",
        "test/amd/2.jpg",
        "3.jpg",
        "test/4.jpg",
        "more/dr/5.jpg",
        "train/dr/test/6.jpg",
    )
    listing = generic.scan(tmp_path)
    assert len(listing.items) == 2
    assert reasons(listing) == {"no class": 2, "no split": 1, "two splits": 1}


def test_one_folder_of_photographs_tells_no_class(tmp_path):
    place(tmp_path, "images/1.jpg", "images/2.jpg")
    with pytest.raises(ValueError, match="all photographs are in the one folder 'images'"):
        generic.scan(tmp_path)
    listing = generic.scan(tmp_path, classes="images")
    assert set(labels(listing).values()) == {"images"}


def test_linked_folders_are_entered_once(tmp_path):
    source = tmp_path / "source"
    place(source, "amd/1.jpg", "dr/2.jpg")
    place(tmp_path, "elsewhere/3.jpg")
    (source / "amd/more").symlink_to(tmp_path / "elsewhere")
    (source / "amd/round").symlink_to(source)
    (source / "aaa").symlink_to(source / "dr")
    (source / "dr/gone.jpg").symlink_to(source / "nowhere")
    (source / "dr/loop").symlink_to("loop")
    listing = generic.scan(source)
    assert labels(listing) == {"amd/1.jpg": "amd", "dr/2.jpg": "dr", "amd/more/3.jpg": "amd"}
    assert reasons(listing) == {"folder seen before": 2, "broken link": 2}


def test_a_text_in_the_place_of_a_link_is_a_reject(tmp_path):
    place(tmp_path, "amd/1.jpg", "dr/2.jpg", "elsewhere/amd/3.jpg")
    place(tmp_path, "amd/site2", content=b"../elsewhere/amd")
    assert reasons(generic.scan(tmp_path)) == {"broken link": 1}


def test_a_folder_that_cannot_be_read_is_a_reject(tmp_path, monkeypatch):
    place(tmp_path, "amd/1.jpg", "dr/2.jpg", "dr/closed/3.jpg")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", refuse)
    listing = generic.scan(tmp_path)
    assert len(listing.items) == 2
    assert [(one.key, one.reason) for one in listing.rejects] == [
        ("dr/closed", "unreadable folder")
    ]


def test_what_is_no_file_is_a_reject(tmp_path):
    place(tmp_path, "amd/1.jpg", "dr/2.jpg")
    os.mkfifo(tmp_path / "dr/pipe.jpg")
    assert reasons(generic.scan(tmp_path)) == {"not a file": 1}


FORMS = {
    "a.JPG": JPEG,
    "b.jfif": JPEG,
    "c.jpe": JPEG,
    "d.gif": JPEG,
    "e.dcm": JPEG,
    "f": JPEG,
    "g.dat": b"\x89PNG\r\n\x1a\n",
    "h.pgm": b"P5",
    "i.mpo": JPEG,
    "eye.left": b"II*\0",
}
UNREAD = {
    "a.gif": b"GIF89a",
    "b.heic": b"\0\0\0\x18ftypheic",
    "c.dcm": b"x",
    "d": bytes(128) + b"DICM",
    "e.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "f.avif": b"\0\0\0\x1cftypavif",
    "g.bin": b"GIF87a",
}


def test_photographs_are_known_by_name_or_content(tmp_path):
    for name, content in FORMS.items():
        place(tmp_path, f"dr/{name}", content=content)
    place(tmp_path, "amd/1.jpg")
    listing = generic.scan(tmp_path)
    assert len(listing.items) == len(FORMS) + 1
    assert "5 files are photographs by their content, not by their names." in listing.guesses


def test_photographs_of_other_forms_are_rejected_with_the_remedy(tmp_path):
    for name, content in UNREAD.items():
        place(tmp_path, f"dr/{name}", content=content)
    place(tmp_path, "amd/1.jpg", "dr/1.jpg")
    place(tmp_path, "dr/notes", "dr/x.xml", "dr/Thumbs.db", content=b"text")
    listing = generic.scan(tmp_path)
    assert reasons(listing) == {"unsupported format": len(UNREAD)}
    assert all("save it as PNG or JPEG" in reject.detail for reject in listing.rejects)
    assert any(note.startswith("Files that are not read: ") for note in listing.guesses)


def test_an_archive_is_to_be_unpacked(tmp_path):
    place(tmp_path, "mine.zip", content=b"PK")
    with pytest.raises(ValueError, match=r"unpack mine\.zip"):
        generic.scan(tmp_path)
    with pytest.raises(ValueError, match=r"mine\.zip: is not read: unpack it"):
        generic.scan(tmp_path / "mine.zip")
    place(tmp_path, "dr/1.jpg", "amd/2.jpg")
    assert "Archives are not read, unpack them: mine.zip." in generic.scan(tmp_path).guesses


def test_a_sample_of_two_images_is_rejected(tmp_path):
    tar(
        tmp_path / "a.tar",
        {
            "0.jpg": b"x",
            "0.png": b"mask",
            "0.txt": b"one",
            "1.jpg": b"x",
            "1.seg.png": b"mask",
            "1.txt": b"two",
            "2.image.png": b"x",
            "2.txt": b"three",
            "3.jpg": b"x",
            "3.jpg ": b"",
            "3.npy": b"x",
            "3.txt": b"four",
        },
    )
    listing = generic.scan(tmp_path)
    assert [(item.key, item.caption) for item in listing.items] == [
        ("1", "two"),
        ("2", "three"),
        ("3", "four"),
    ]
    assert reasons(listing) == {"two images in a sample": 1}
    assert any("1 .seg.png" in note and "1 .npy" in note for note in listing.guesses)


def test_a_second_sample_of_a_key_is_rejected_as_that(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for name in ("1.jpg", "1.txt", "2.jpg", "2.txt", "1.jpg", "1.txt"):
            info = tarfile.TarInfo(name)
            info.size = 1
            file.addfile(info, BytesIO(b"x"))
    listing = generic.scan(tmp_path)
    assert [item.key for item in listing.items] == ["1", "2"]
    assert reasons(listing) == {"second sample of a key": 1}


def test_the_splits_of_shards_are_those_of_the_json_then_of_folders(tmp_path):
    members = {
        "train/0.jpg": b"x",
        "train/0.cls": b"1",
        "val/1.jpg": b"x",
        "val/1.cls": b"1",
        "val/2.jpg": b"x",
        "val/2.json": b'{"label": 1, "split": "test", "patient": 7, "age": 60}',
        "3.jpg": b"x",
        "3.json": b'{"label": 2, "split": "train", "patient": 7}',
        "4.jpg": b"x",
        "4.json": b'{"label": 2, "split": "fold 3"}',
    }
    tar(tmp_path / "a.tar", members)
    listing = generic.scan(tmp_path)
    assert {item.key: item.split for item in listing.items} == {
        "train/0": "train",
        "val/1": "validation",
        "val/2": "test",
        "3": "train",
    }
    assert reasons(listing) == {"unknown split": 1}
    assert listing.columns == {"patient": str, "age": str}
    values = {item.key: item.values for item in listing.items}
    assert (values["val/2"], values["3"], values["val/1"]) == (("7", "60"), ("7", ""), ("", ""))
    assert data_card.patients(listing, listing.items)["in_several_splits"] == 1


def test_a_competitions_form_is_no_table_of_labels(tmp_path):
    place(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "train.csv").write_text("image,label\n1,dr\n")
    (tmp_path / "sample_submission.csv").write_text("image,label\n2,0\n")
    with pytest.raises(ValueError, match=r"sample_submission\.csv: .* form to fill in"):
        generic.scan(tmp_path)
    assert len(generic.scan(tmp_path / "sample_submission.csv", classes="0").items) == 1


def test_an_archive_of_a_folder_with_a_table_is_no_shard(tmp_path):
    tar(tmp_path / "a.tar", {"mine/1.jpg": b"x", "mine/labels.csv": b"image,label\n1,dr\n"})
    with pytest.raises(
        ValueError, match=r"a\.tar: it holds the table mine/labels\.csv, .* unpack it"
    ):
        generic.scan(tmp_path)


def test_shards_and_tables_in_one_folder_are_refused(tmp_path):
    tar(tmp_path / "a.tar", {"1.jpg": b"x", "1.cls": b"1"})
    (tmp_path / "a.csv").write_text("image,label\n1,dr\n")
    with pytest.raises(ValueError, match=r"both a\.tar and a\.csv list photographs"):
        generic.scan(tmp_path)


# --- Any tree.

PARTS = st.sampled_from(
    ("dr", "AMD", "train", "Testing Set", "images", "左眼", "site 1", "__MACOSX", ".hidden", "x.y")
)
FILES = st.sampled_from(
    ("1.jpg", "2.PNG", "3.gif", "4", "5.txt", "._6.jpg", "7.heic", "eye.tif", "label.xml", "8.JPE")
)
TREES = st.lists(st.tuples(st.lists(PARTS, max_size=4), FILES), min_size=1, max_size=12)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(TREES)
def test_every_photograph_of_any_tree_is_listed_or_rejected(tmp_path_factory, tree):
    root = tmp_path_factory.mktemp("tree")
    keys = {"/".join([*parts, name]) for parts, name in tree}
    for key in keys:
        place(root, key, content=b"text" if key.endswith(("txt", "xml")) else JPEG)
    hidden = {k for k in keys if any(p.startswith(".") or p == "__MACOSX" for p in k.split("/"))}
    photographs = {k for k in keys - hidden if not k.endswith((".txt", ".xml"))}
    try:
        listing = generic.scan(root)
    except ValueError as error:
        text = str(error)
        assert "\n" not in text
        reasons = ("one folder", "neither .tar", "differ by case", "which look like the classes")
        assert any(reason in text for reason in reasons)
        return
    accounted = [item.key for item in listing.items] + [reject.key for reject in listing.rejects]
    assert sorted(accounted) == sorted(photographs)


def test_suffixes_are_lower_case():
    assert all(suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


def test_folders_of_patients_above_the_classes_are_refused(tmp_path):
    place(
        tmp_path, *(f"P{p}/{c}/{i}.jpg" for p in range(3) for c in ("dr", "normal") for i in "ab")
    )
    with pytest.raises(ValueError, match=r"P0, P1, P2 hold the folders dr, normal, which look"):
        generic.scan(tmp_path)


def test_eyes_or_cameras_below_the_classes_are_no_classes(tmp_path):
    place(
        tmp_path,
        *(f"{c}/{s}/{i}.jpg" for c in ("dr", "正常") for s in ("left", "Topcon") for i in "ab"),
    )
    assert generic.scan(tmp_path).classes == ("dr", "正常")
