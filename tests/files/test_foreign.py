"""What strangers hand in: read within limits, shown without effects."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.__main__ import main
from vclip_jax.files import foreign


@given(st.text(st.characters(codec=None)))
def test_what_is_shown_has_no_effect_on_a_terminal(text):
    found = foreign.shown(text)
    hidden = [*range(32), *range(0x7F, 0xA0), 0x2028, *range(0x202A, 0x202F), 0x2066, 0xFEFF]
    assert not set(found) & set(map(chr, hidden))
    found.encode("utf-8")  # no halves of characters


def test_names_in_any_script_are_shown_as_they_are():
    for name in ("眼底 1.png", "Müller\u3000.jpg", "عين.png", "a\\b", "👁.png"):
        assert foreign.shown(name) == name
    assert foreign.shown("a\x1b[2J\n\u202eb\udcff") == "a\\x1b[2J\\n\\u202eb\\udcff"


def test_a_name_in_an_error_of_a_command_is_escaped(tmp_path, capsys):
    folder = tmp_path / "\x1b[31mred\u202e"
    assert main(["build", "idrid", "--source", str(folder), "--data-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "\\x1b[31mred\\u202e" in error
    assert not set(error) & {"\x1b", "\u202e"}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_json_says_what_it_says(value):
    assert foreign.parse_json(json.dumps(value), "x") == value


@given(st.binary(max_size=60))
def test_any_bytes_are_json_or_an_error_of_one_line(data):
    try:
        foreign.parse_json(data, "x")
    except ValueError as error:
        found = str(error)
    else:
        found = ""
    assert "\n" not in found


@pytest.mark.parametrize("levels", [10, 64, 65, 66, 500, 100_000])
@pytest.mark.parametrize(("start", "end"), [("[", "]"), ('{"a":', "}")])
def test_depth_has_a_limit(levels, start, end):
    text = start * levels + "1" + end * levels
    if levels <= foreign.DEEPEST_JSON:
        foreign.parse_json(text, "x")
    elif levels > foreign.DEEPEST_JSON + 1:
        with pytest.raises(ValueError, match=r"^x is nested more than 64 levels deep$"):
            foreign.parse_json(text, "x")


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"b": [{"a\\n": 1, "c": 2, "a\\n": 1}], "d": {}}')
    with pytest.raises(ValueError, match=r"a\.json has the key 'a\\n' twice in one object$"):
        foreign.read_json(path)
    assert foreign.parse_json('[{"a": 1}, {"a": 2}]', "x") == [{"a": 1}, {"a": 2}]


def test_words_that_are_no_numbers_are_taken_on_request_alone():
    for word in ("NaN", "Infinity", "-Infinity"):
        with pytest.raises(ValueError, match=f"{word} is not a number"):
            foreign.parse_json(f'{{"a": {word}}}', "x")
        assert foreign.parse_json(word, "x", constants=True) in (float("inf"), -float("inf")) or (
            word == "NaN"
        )


def test_a_file_has_a_largest_size(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"x" * 10)
    assert foreign.read_bytes(path, 10) == b"x" * 10
    with pytest.raises(ValueError, match="has more than 9 bytes"):
        foreign.read_bytes(path, 9)
    path.write_bytes(b"")
    assert foreign.read_bytes(path, 9) == b""


@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "/dev/null"])
def test_a_pipe_or_a_device_is_no_file(tmp_path, place):
    path = tmp_path / "link"
    if place == "pipe":
        os.mkfifo(tmp_path / "pipe")
    path.symlink_to(tmp_path / place)
    for read in (foreign.read_json, lambda path: foreign.read_bytes(path, 10)):
        with pytest.raises(OSError, match="a pipe, a socket or a device, not a file"):
            read(path)


def test_a_name_on_the_hub_may_have_a_revision():
    assert foreign.hub_name("hub:a/b") == ("a/b", None)
    assert foreign.hub_name("hub:a/b@v1") == ("a/b", "v1")
    assert foreign.hub_name("hub:a/b@refs/pr/1") == ("a/b", "refs/pr/1")
    assert foreign.hub_name("hub:bert-base-chinese") == ("bert-base-chinese", None)
    for name in ("hub:", "hub:/b", "hub:a/b/c", "hub:../a/b", "hub:a b", "hub:a/b\n"):
        with pytest.raises(ValueError, match="is called hub:OWNER/NAME"):
            foreign.hub_name(name)


def test_a_folder_of_files_may_hold_links_to_files_and_folders(tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "other"
    for one in (folder / "a/b", other):
        one.mkdir(parents=True)
        (one / "file").write_text("x")
    (folder / "a/up").symlink_to(folder)  # a circle
    (folder / "linked").symlink_to(other)
    foreign.regular_files(folder)
    (other / "here").symlink_to("/dev/null")
    with pytest.raises(ValueError, match=r"linked/here is neither a file nor a folder$"):
        foreign.regular_files(folder)


def test_a_link_to_nothing_is_no_file_and_what_vanishes_is_no_fault(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    find = foreign._entries
    monkeypatch.setattr(foreign, "_entries", lambda one: [*find(one), os.path.join(one, "part")])
    foreign.regular_files(tmp_path)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ValueError, match="link is neither"):
        foreign.regular_files(tmp_path)


def test_a_folder_has_a_most_of_entries(tmp_path, monkeypatch):
    monkeypatch.setattr(foreign, "MOST_ENTRIES", 3)
    for name in "abc":
        (tmp_path / name).write_text("x")
    foreign.regular_files(tmp_path)
    (tmp_path / "d").write_text("x")
    with pytest.raises(ValueError, match="holds more than 3 entries"):
        foreign.regular_files(tmp_path)


def test_a_file_that_is_passed_on_lies_in_its_folder_or_in_the_hubs_cache(tmp_path):
    snapshot = tmp_path / "models--a--b/snapshots/123"
    for folder in (snapshot, tmp_path / "models--a--b/blobs", tmp_path / "home"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    (snapshot / "own").symlink_to("file")
    (snapshot / "blob").symlink_to("../../blobs/file")
    for name in ("file", "own", "blob"):
        foreign.check_inside(snapshot / name)
    (snapshot / "link").symlink_to(tmp_path / "home/file")
    (snapshot / "twice").symlink_to("link")
    for name in ("link", "twice"):
        with pytest.raises(ValueError, match=f"{name} is a link to a file outside the folder"):
            foreign.check_inside(snapshot / name)
