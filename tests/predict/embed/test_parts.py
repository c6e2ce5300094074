"""Parts of a file: whole or made again, of one job, joined to the same bytes."""

import hashlib
import os

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.predict.embed import columns, parts
from vclip_jax.predict.embed.columns import Seen
from vclip_jax.predict.embed.parts import Parts

JOB = {"model": "m", "photographs": "p"}
SCHEMA = columns.schema(3, ["AMD"], captions=False)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "ROWS", 4)


@pytest.fixture
def ten(tmp_path) -> Parts:
    """The begun parts of ten photographs, of which photograph 5 cannot be read."""
    made = Parts(tmp_path / "x.parquet", 10)
    made.begin(JOB)
    return made


def table(made: Parts, number: int):
    indices = made.rows(number)
    seen = [
        Seen({"key": str(i)}, f"{i:064x}", gate=("too dark",) * (i == 2), error="bad" * (i == 5))
        for i in indices
    ]
    vectors = np.array([[i, 1, 2] for i in indices if i != 5], np.float32)
    return columns.part(seen, vectors, SCHEMA)


def write_all(made: Parts) -> None:
    for number in range(len(made)):
        made.write(number, table(made, number))


@given(st.integers(0, 100))
def test_every_photograph_is_in_one_part(photographs):
    made = Parts(parts.Path("x.parquet"), photographs)
    assert [i for number in range(len(made)) for i in made.rows(number)] == [*range(photographs)]
    assert all(len(made.rows(number)) == parts.ROWS for number in range(len(made) - 1))


def test_the_joined_file_has_a_row_group_for_each_part_and_the_rejects_are_listed(ten):
    write_all(ten)
    refused, rejects = ten.join(SCHEMA.with_metadata({"vclip_jax": "{}"}))
    assert (dict(refused), rejects) == ({"": 8, "too dark": 1}, 1)
    file = pyarrow.parquet.ParquetFile(ten.target)
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [4, 3, 2]
    assert file.schema_arrow.equals(SCHEMA)
    assert file.schema_arrow.metadata == {b"vclip_jax": b"{}"}
    rows = file.read()
    assert rows["key"].to_pylist() == [str(i) for i in range(10) if i != 5]
    assert [vector[0] for vector in rows["vector"].to_pylist()] == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert ten.rejects.read_text() == "key,reason\n5,bad\n"
    assert ten.rejects.name == "x.rejects.csv"


def test_a_list_of_rejects_of_an_earlier_file_does_not_stay(tmp_path):
    made = Parts(tmp_path / "x.parquet", 2)
    made.rejects.write_text("key,reason\nold,bad\n")
    made.begin(JOB)
    write_all(made)
    made.join(SCHEMA)
    assert not made.rejects.exists()


def test_a_file_without_a_readable_photograph_has_columns_and_no_rows(ten):
    lost = [Seen({"key": str(i)}, error="bad") for i in range(10)]
    for number in range(3):
        rows = [lost[i] for i in ten.rows(number)]
        ten.write(number, columns.part(rows, np.empty((0, 3), np.float32), SCHEMA))
    refused, rejects = ten.join(SCHEMA)
    assert (refused.total(), rejects) == (0, 10)
    assert pyarrow.parquet.read_table(ten.target).schema.equals(SCHEMA)


def test_the_digest_of_the_pictures_is_that_of_sha256sums_lines(ten):
    write_all(ten)
    lines = "".join(f"{i:064x}  {i}\n" for i in range(10) if i != 5)
    assert ten.pictures() == hashlib.sha256(lines.encode()).hexdigest()


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "renamed", "unreadable"])
def test_a_damaged_part_is_made_again(ten, damage):
    write_all(ten)
    assert ten.missing() == ([], 0)
    (path,) = ten.folder.glob("000001-*")
    content = path.read_bytes()
    if damage == "renamed":
        path.rename(path.with_name(f"000001-{'0' * 64}.parquet"))
    elif damage == "unreadable":
        path.unlink()
        os.mkfifo(path)
    else:
        middle = len(content) // 2
        other = {"cut": content[:-9], "empty": b""}
        changed = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(other.get(damage, changed))
    assert ten.missing() == ([1], 1)
    assert ten.missing() == ([1], 0)
    ten.write(1, table(ten, 1))
    assert ten.missing() == ([], 0)
    assert path.read_bytes() == content


def test_parts_in_any_order_join_to_the_same_bytes(ten, tmp_path):
    write_all(ten)
    ten.join(SCHEMA)
    other = Parts(tmp_path / "other.parquet", 10)
    other.begin(JOB)
    for number in (2, 0, 1):
        other.write(number, table(other, number))
        other.begin(JOB)
    other.join(SCHEMA)
    assert other.target.read_bytes() == ten.target.read_bytes()


def test_a_part_that_vanishes_while_joining_leaves_no_file(ten):
    ten.write(0, table(ten, 0))
    with pytest.raises(ValueError, match="part 1 was damaged just now"):
        ten.join(SCHEMA)
    assert sorted(path.name for path in ten.target.parent.iterdir()) == ["x.parquet.parts"]


# --- One folder, one job.


def test_the_folder_of_another_job_is_refused_and_kept(ten):
    ten.write(0, table(ten, 0))
    with pytest.raises(ValueError, match="with another model: name another --out") as error:
        ten.begin({**JOB, "model": "other"})
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="with another model, photographs"):
        ten.begin({"model": 1, "photographs": 2})
    ten.begin(JOB)
    assert ten.missing() == ([1, 2], 0)


def test_parts_of_another_size_are_refused(ten, monkeypatch):
    monkeypatch.setattr(parts, "ROWS", 8)
    with pytest.raises(ValueError, match="another size of parts"):
        ten.begin(JOB)


def test_an_existing_file_is_kept_unless_the_same_job_has_just_written_it(ten):
    write_all(ten)
    ten.join(SCHEMA)
    ten.begin(JOB)  # killed between the last two steps
    ten.remove()
    with pytest.raises(ValueError, match="exists: name another --out, or remove the file"):
        ten.begin(JOB)
    assert not ten.folder.exists()


def test_a_folder_of_something_else_or_a_link_is_refused(tmp_path):
    made = Parts(tmp_path / "x.parquet", 1)
    made.folder.mkdir()
    (made.folder / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="has files of something else"):
        made.begin(JOB)
    (made.folder / "notes.txt").rename(tmp_path / "notes.txt")
    made.folder.rmdir()
    made.folder.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="symbolic link"):
        made.begin(JOB)


def test_a_command_that_was_killed_at_its_first_write_begins_again(tmp_path):
    made = Parts(tmp_path / "new" / "x.parquet", 1)
    made.folder.mkdir(parents=True)
    (made.folder / f"{parts.MANIFEST}.123.tmp").write_text("{")
    made.begin(JOB)
    assert made.missing() == ([0], 0)
    (made.folder / parts.MANIFEST).write_text("[]")
    with pytest.raises(ValueError, match="another model, photographs, size of parts"):
        made.begin(JOB)
