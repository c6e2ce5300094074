import io
import json
import tarfile

import pytest

from vclip_jax.datasets.fixtures import generic as fixture
from vclip_jax.datasets.formats import blobs, webdataset
from vclip_jax.datasets.own import generic

from ..own.listings import JPEG, labels, reasons, tar


@pytest.fixture(scope="module")
def records():
    return fixture.records()


def scan(folder):
    paths = sorted(folder.glob("*.tar"))
    return [sample for path in paths for sample in webdataset.scan_tar(path)[0]]


def test_what_was_written_is_found_again(records, tmp_path):
    paths = webdataset.write(records, tmp_path, 4, "train", fixture.CLASSES)
    assert [path.name for path in paths] == [f"train-{i:06d}.tar" for i in range(3)]
    samples = scan(tmp_path)
    assert [sample.key for sample in samples] == [record["key"] for record in records]
    for sample, record in zip(samples, records, strict=True):
        assert blobs.read(sample.image) == record["image"]
        assert sample.captions == [record["caption"]]
        label = record["label"]
        assert sample.labels[:1] == ([] if label < 0 else [fixture.CLASSES[label]])


def test_labels_are_numbers_where_classes_have_no_names(records, tmp_path):
    webdataset.write(records, tmp_path)
    assert [s.labels for s in scan(tmp_path)] == [*map(list, "00112233"), []]


def test_the_same_records_give_the_same_bytes(records, tmp_path):
    first = webdataset.write(records, tmp_path / "a", 5)
    second = webdataset.write(iter(records), tmp_path / "b", 5)
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with tarfile.open(first[0]) as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_names_are_what_webdataset_takes_for_one_sample(records, tmp_path):
    path = webdataset.write(records[:1], tmp_path)[0]
    with tarfile.open(path) as tar:
        assert {m.name for m in tar} == {f"00000000.{s}" for s in ("jpg", "txt", "cls", "json")}
        assert json.load(tar.extractfile("00000000.json")) == {"key": "train/eye.0"}


def test_foreign_shards_are_understood(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"image")
    (tmp_path / "a.json").write_text('{"text": "眼底正常。", "label": 3}')
    (tmp_path / "b.png").write_bytes(b"other")
    (tmp_path / "b.json").write_text("not json")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for file, name in (
            ("a.jpg", "sub/a.x.JPG"),
            ("a.jpg", "sub/a.jpg"),
            ("a.json", "sub/a.json"),
            ("b.png", "b.png"),
            ("b.json", "b.json"),
            ("a.json", ".hidden.json"),
        ):
            tar.add(tmp_path / file, name)
    (first, second), hidden = webdataset.scan_tar(tmp_path / "x.tar")
    assert hidden == []
    assert (first.name, first.captions, first.labels) == ("sub/a", ["眼底正常。"], ["3"])
    assert blobs.read(first.image) == b"image"
    assert blobs.read(second.image) == b"other"
    assert "b.json" in second.broken


def test_a_damaged_shard_is_one_line(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(ValueError, match=r"bad\.tar: not a readable \.tar"):
        scan(tmp_path)
    with pytest.raises(ValueError, match="at least one record"):
        webdataset.write([], tmp_path, 0)


def test_deep_json_of_a_sample_is_told_and_the_others_are_read(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, data in (
            ("0.jpg", b"x"),
            ("0.json", b'{"a": ' + b"[" * 100_000),
            ("1.jpg", b"x"),
            ("1.json", b'{"caption": "c"}'),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    first, second = scan(tmp_path)
    assert first.broken == "0.json: the JSON is nested more than 64 levels deep"
    assert (second.captions, second.broken) == (["c"], "")


def test_classnames_beside_the_shards_name_the_classes(records, tmp_path):
    webdataset.write(records, tmp_path / "train")
    names = tmp_path / "classnames.txt"
    names.write_text("".join(f"{name}\n" for name in ("c", "b", "a", "d")))
    for source in (tmp_path, tmp_path / "train"):
        listing = generic.scan(source)
        labels = {listing.classes[item.label] for item in listing.items if item.label >= 0}
        assert (listing.classes == ("c", "b", "a", "d")) == (source == tmp_path)
        assert labels == set("abcd" if source == tmp_path else "0123")
        said = "classnames.txt names the classes: 0 is 'c'."
        assert (said in listing.guesses) == (source == tmp_path)
    assert generic.scan(tmp_path, classes="w,x,y,z").classes == ("w", "x", "y", "z")
    names.rename(tmp_path / "train/classnames.txt")
    shard = next((tmp_path / "train").glob("*.tar"))
    assert generic.scan(shard).classes == ("c", "b", "a", "d")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb\n", r"2 names, none for the label 2"),
        ("a\na\nb\nc", "repeated"),
        ("a\n\nb\nc", "empty"),
    ],
)
def test_classnames_that_do_not_fit_are_refused(records, tmp_path, text, message):
    webdataset.write(records, tmp_path)
    (tmp_path / "classnames.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"classnames\.txt: .*{message}"):
        generic.scan(tmp_path)


def test_classnames_beside_labels_that_are_names_are_noted(records, tmp_path):
    webdataset.write(records, tmp_path, classes=fixture.CLASSES)
    (tmp_path / "classnames.txt").write_text("x\ny\n")
    listing = generic.scan(tmp_path)
    assert set(listing.classes) == set(fixture.CLASSES)
    assert "classnames.txt is not read: the labels are not numbers." in listing.guesses


def test_hidden_members_are_counted_as_hidden_files_are(tmp_path):
    names = ("./a.jpg", ".b.jpg", "__MACOSX/c.png", "x/._a.jpg", ".old/d.JPG", ".e.txt")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in (*names, "./a.cls", "f.jpg", "f.cls"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
    samples, hidden = webdataset.scan_tar(tmp_path / "x.tar")
    assert [sample.name for sample in samples] == ["./a", "f"]
    assert hidden == [".b.jpg", "__MACOSX/c.png", "x/._a.jpg", ".old/d.JPG"]
    said = " ".join(generic.scan(tmp_path).guesses)
    assert "3 hidden photographs are skipped, such as x.tar: .b.jpg: rename" in said
    assert "1 files that macOS wrote next to photographs are skipped, such as x.tar: x/._a" in said


@pytest.mark.parametrize("turned", [False, True])
def test_labels_that_contradict_are_rejects_and_a_second_caption_is_noted(tmp_path, turned):
    texts = {
        "a": {"cls": "1", "json": '{"label": 0}'},
        "b": {"cls": "dr", "json": '{"label": "amd"}'},
        "c": {"cls": "1", "json": '{"label": 1.0}'},
        "d": {"txt": "x", "cls": "1", "json": '{"label": 1, "caption": "y"}'},
        "e": {"cls": "0"},
    }
    members = {}
    for name, own in texts.items():
        members[f"{name}.jpg"] = JPEG
        members |= {f"{name}.{suffix}": text.encode() for suffix, text in own.items()}
    if turned:  # members in another order
        members = dict(sorted(members.items(), key=lambda one: (one[0][0], one[0][::-1])))
    tar(tmp_path / "s.tar", members)
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"c": "1", "d": "1", "e": "0"}
    assert reasons(listing) == {"conflicting labels": 2}
    assert {item.key: item.caption for item in listing.items}["d"] == "x"
    assert any(note.startswith("1 samples have another caption") for note in listing.guesses)


@pytest.mark.parametrize("classes", [("1", "2", "3", "4"), ("2", "0", "1", "3")])
def test_numbers_that_are_names_contradict_no_place_of_theirs(records, tmp_path, classes):
    webdataset.write(records, tmp_path, 4, "train", classes)
    listing = generic.scan(tmp_path)
    assert not listing.rejects
    names = [classes[one["label"]] if one["label"] >= 0 else None for one in records]
    assert labels(listing) == dict(zip((one["key"] for one in records), names, strict=True))


def test_two_names_of_one_number_are_noted(tmp_path):
    members = {}
    for name, label in (("a", "dr"), ("b", "amd"), ("c", "dr")):
        members |= {f"{name}.jpg": JPEG, f"{name}.cls": b"1"}
        members[f"{name}.json"] = json.dumps({"label": label}).encode()
    tar(tmp_path / "s.tar", members)
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"a": "dr", "b": "amd", "c": "dr"}
    assert any("1 of .cls has the names amd, dr" in note for note in listing.guesses)
