"""Files are written whole: whatever goes wrong, the old one stays and nothing lies beside it."""

import json
import os
from pathlib import Path

import pytest
from etils import epath

from vclip_jax.files.writing import check_no_link, replacing, write_json, write_text


@pytest.mark.parametrize("kind", [Path, epath.Path])
def test_a_file_is_replaced_when_all_of_it_is_there(tmp_path, kind):
    path = kind(tmp_path) / "a.txt"
    write_text(path, "一")
    with replacing(path, sync=True) as temporary:
        temporary.write_text("二", "utf-8")
        assert path.read_text("utf-8") == "一"
    assert path.read_text("utf-8") == "二"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_the_old_file_stays_where_writing_fails(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"眼底": 1})
    with pytest.raises(UnicodeEncodeError), replacing(path) as temporary:
        temporary.write_text("{\ud800", "utf-8")  # opens the file, and then fails
    with pytest.raises(TypeError):
        write_json(path, {"no JSON": object()})
    assert json.loads(path.read_text("utf-8")) == {"眼底": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_a_link_in_a_strangers_folder_is_not_written_through(tmp_path):
    (tmp_path / "own").write_text("own")
    (tmp_path / f"a.txt.{os.getpid()}.tmp").symlink_to(tmp_path / "own")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "own").read_text() == "own"
    assert (tmp_path / "a.txt").read_text() == "new"
    assert not (tmp_path / "a.txt").is_symlink()


def test_a_file_that_is_written_in_its_place_is_no_link(tmp_path):
    check_no_link(tmp_path / "a")  # is not there yet
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"b is a symbolic link, and nothing is written through"):
        check_no_link(tmp_path / "b")
