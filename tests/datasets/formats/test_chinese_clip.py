"""Chinese-CLIP's files: their lines, and writing them."""

import base64
import csv
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.formats import blobs, chinese_clip
from vclip_jax.datasets.formats.chinese_clip import Fault, Image, Text
from vclip_jax.datasets.listing import Blob


def tsv(path, *lines):
    path.write_bytes(b"".join(lines))
    return list(chinese_clip.images(path))


def jsonl(path, text):
    path.write_text(text, "utf-8")
    return list(chinese_clip.texts(path))


def reasons(found):
    return [one.reason if isinstance(one, Fault) else one.id for one in found]


def test_lines_of_images_are_ids_and_places(tmp_path):
    lines = (
        b"\xef\xbb\xbf1\t" + base64.b64encode(b"one") + b"\r\n",
        b"\n",
        b" 2 \t " + base64.b64encode(b"second") + b" \n",
        "左眼\t".encode() + base64.urlsafe_b64encode(b"\xfb\xff\xfe\xff\xff\xff"),
    )
    one, two, three = tsv(tmp_path / "train_imgs.tsv", *lines)
    assert [one.id, two.id, three.id] == ["1", "2", "左眼"]
    assert two.where == "train_imgs.tsv, line 3"
    contents = [blobs.read(image.blob) for image in (one, two, three)]
    assert contents == [b"one", b"second", b"\xfb\xff\xfe\xff\xff\xff"]


def test_lines_that_are_no_images_are_faults(tmp_path):
    lines = (b"1\n", b"2\ta\tb\n", b"\tAAAA\n", b"3\t\n", b"\xff\tAAAA\n", b"4\tAAAA\n")
    found = tsv(tmp_path / "a_imgs.tsv", *lines)
    assert reasons(found) == [
        "not two columns",
        "not two columns",
        "not an id",
        "not two columns",
        "not an id",
        "4",
    ]
    assert found[0].detail == "a_imgs.tsv, line 1: expected an id, a tab and base64"


def test_a_line_that_is_too_long_is_passed_over_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(chinese_clip, "_MOST_LINE", 100)
    lines = (b"1\tAAAA\n", b"2\t" + b"A" * (5 << 20) + b"\n", b"3\tAAAA\n", b"4\t" + b"A" * 100)
    tracemalloc.start()
    found = tsv(tmp_path / "a_imgs.tsv", *lines)
    assert reasons(found) == ["1", "line too long", "3", "line too long"]
    assert blobs.read(found[2].blob) == bytes(3)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    assert len(list(chinese_clip.images(tmp_path / "a_imgs.tsv"))) == 4
    assert tracemalloc.get_traced_memory()[1] - before < 4 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("member", ["0:4", "0:99", "x", "0:-1"])
def test_a_place_that_holds_no_base64_is_one_line(tmp_path, member):
    (tmp_path / "a_imgs.tsv").write_bytes(b"1\tA?")
    with pytest.raises(ValueError, match=r"a_imgs\.tsv::") as refusal:
        blobs.read(Blob(str(tmp_path / "a_imgs.tsv"), member))
    assert "\n" not in str(refusal.value)


def test_lines_of_texts_are_ids_and_their_images(tmp_path):
    found = jsonl(
        tmp_path / "train_texts.jsonl",
        '{"text_id": 5, "text": "青光眼", "image_ids": [1, "b"]}\n\n'
        '{"text_id": "x", "text": "no image"}\n'
        '{"text_id": 6, "text": "", "image_ids": null, "more": 1}\n',
    )
    assert found == [
        Text("5", "青光眼", ("1", "b"), "train_texts.jsonl, line 1"),
        Text("x", "no image", (), "train_texts.jsonl, line 3"),
        Text("6", "", (), "train_texts.jsonl, line 4"),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1]",
        '{"text_id": 1}',
        '{"text": "a", "image_ids": [1]}',
        '{"text_id": true, "text": "a"}',
        '{"text_id": 1.5, "text": "a"}',
        '{"text_id": 1, "text": ["a"]}',
        '{"text_id": 1, "text": "a", "image_ids": {"1": 2}}',
        '{"text_id": 1, "text": "a", "image_ids": [[1]]}',
        '{"text_id": 1, "text": "a", "image_ids": [1.5]}',
        '{"text_id": 1, "text": "a", "text": "b"}',
        '{"text_id": 1, "text": "a", "image_ids": [""]}',
        '{"text_id": ' + "1" * 300 + ', "text": "a"}',
        '{"text_id": ' + "1" * 5000 + ', "text": "a"}',
        '{"text_id": ' + "[" * 100_000,
    ],
    ids=lambda line: line[:60],
)
def test_lines_that_are_no_texts_are_faults(tmp_path, line):
    found = jsonl(tmp_path / "a_texts.jsonl", line + '\n{"text_id": 2, "text": "b"}')
    assert reasons(found) == ["invalid text", "2"]
    assert found[0].detail.startswith("a_texts.jsonl, line 1: ")
    assert "\n" not in found[0].detail


def test_a_long_text_is_a_fault(tmp_path):
    text = "a" * (chinese_clip.MOST_TEXT + 1)
    found = jsonl(tmp_path / "a_texts.jsonl", f'{text}\n{{"text_id": 2, "text": "b"}}')
    assert reasons(found) == ["line too long", "2"]


@given(st.binary(max_size=200))
def test_random_bytes_give_lines_or_faults(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("random") / "a_imgs.tsv"
    path.write_bytes(data)
    for one in chinese_clip.images(path):
        assert isinstance(one, Image | Fault)
    for one in chinese_clip.texts(path):
        assert isinstance(one, Text | Fault)


def test_equal_images_and_equal_captions_are_written_once(tmp_path):
    rows = [("a", b"A", "one"), ("b", b"B", "one"), ("c", b"A", "two"), ("d", b"C", "")]
    rows += [("e", b"B", "one")]
    records = [{"key": k, "image": i, "caption": c, "label": -1} for k, i, c in rows]
    written = chinese_clip.write(records, tmp_path, "valid")
    assert written == chinese_clip.Written(records=5, images=3, texts=2, pairs=3, silent=1)
    images = (tmp_path / "valid_imgs.tsv").read_text().splitlines()
    assert images == ["1\tQQ==", "2\tQg==", "3\tQw=="]
    texts = (tmp_path / "valid_texts.jsonl").read_text().splitlines()
    assert list(map(json.loads, texts)) == [
        {"text_id": 1, "text": "one", "image_ids": [1, 2]},
        {"text_id": 2, "text": "two", "image_ids": [1]},
    ]
    with open(tmp_path / "valid_keys.csv", newline="") as file:
        keys = list(csv.reader(file))
    assert keys[0] == ["image_id", "text_id", "key"]
    assert [" ".join(row) for row in keys[1:]] == ["1 1 a", "2 1 b", "1 2 c", "3  d", "2 1 e"]


def test_the_same_records_give_the_same_bytes_and_keys_can_be_left_out(tmp_path):
    records = [{"key": "a", "image": b"A", "caption": "眼\n\r\u2028", "label": 0}]
    for folder, keys in (("one", True), ("two", True), ("one", False)):
        chinese_clip.write(iter(records), tmp_path / folder, keys=keys)
    for name in ("train_imgs.tsv", "train_texts.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert not (tmp_path / "one/train_keys.csv").exists()
    assert (tmp_path / "two/train_keys.csv").exists()
    # Chinese-CLIP reads the texts line by line in text mode.
    assert len((tmp_path / "one/train_texts.jsonl").open(encoding="utf-8").readlines()) == 1


def test_names_are_those_of_chinese_clip():
    assert chinese_clip.name_of("validation") == "valid"
    assert chinese_clip.name_of("train+test[:10%]") == "train-test-to-10"
