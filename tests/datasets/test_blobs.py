import os
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from vclip_jax.datasets import blobs
from vclip_jax.datasets.listing import Blob


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("blobs")
    (folder / "plain.png").write_bytes(b"plain")
    with zipfile.ZipFile(folder / "some.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Part0/眼.png", b"zipped" * 100)
    with tarfile.open(folder / "some.tar", "w") as archive:
        archive.add(folder / "plain.png", "a.png")
    values = [{"bytes": b"row%d" % i, "path": f"{i}.png"} for i in range(10)]
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    table = pyarrow.table(
        {
            "image": pyarrow.array([*values, {"bytes": None, "path": "x.png"}], kind),
            "raw": [*(b"raw%d" % i for i in range(10)), None],
        }
    )
    pyarrow.parquet.write_table(table, folder / "some.parquet", row_group_size=4)
    (folder / "bad.zip").write_bytes(b"not a zip")
    (folder / "bad.parquet").write_bytes(b"not a parquet")
    return folder


def read(path, member=""):
    return blobs.read(Blob(str(path), member))


def test_bytes_come_from_files_and_from_containers_alike(folder):
    assert read(folder / "plain.png") == b"plain"
    assert read(folder / "some.zip", "Part0/眼.png") == b"zipped" * 100
    with tarfile.open(folder / "some.tar") as archive:
        member = archive.getmember("a.png")
    assert read(folder / "some.tar", f"{member.offset_data}:{member.size}") == b"plain"


def test_rows_of_parquet_are_read_in_any_order_from_struct_or_binary_columns(folder):
    for row in (0, 9, 3, 4, 5):
        assert read(folder / "some.parquet", f"image:{row}") == b"row%d" % row
        assert read(folder / "some.parquet", f"raw:{row}") == b"raw%d" % row


def test_rows_in_order_read_every_row_group_once_and_keep_one(folder):
    blobs._row_group.cache_clear()
    for row in range(10):
        read(folder / "some.parquet", f"image:{row}")
    info = blobs._row_group.cache_info()
    assert info.misses == 3
    assert info.currsize == 1


def test_an_archive_is_opened_once_in_a_process(folder):
    blobs._zip.cache_clear()
    for _ in range(3):
        read(folder / "some.zip", "Part0/眼.png")
    assert blobs._zip.cache_info().misses == 1


def test_a_forked_process_opens_archives_anew(folder):
    read(folder / "some.zip", "Part0/眼.png")
    assert blobs._zip(str(folder / "some.zip"), os.getpid()) is not blobs._zip(
        str(folder / "some.zip"), os.getpid() + 1
    )


@pytest.mark.parametrize(
    ("name", "member", "says"),
    [
        ("some.zip", "gone.png", "no such member"),
        ("bad.zip", "a.png", "not a zip"),
        ("some.tar", "0:99999999", "ends early"),
        ("some.tar", "a.png", "OFFSET:SIZE"),
        ("some.parquet", "image:11", "has 11 rows"),
        ("some.parquet", "image:10", "no image bytes"),
        ("some.parquet", "raw:10", "no image bytes"),
        ("some.parquet", "gone:0", "no such column"),
        ("some.parquet", "image", "COLUMN:ROW"),
        ("bad.parquet", "image:0", "Parquet"),
        ("plain.png", "a.png", "no .zip"),
    ],
)
def test_an_error_is_one_line_that_names_the_blob(folder, name, member, says):
    with pytest.raises(ValueError, match=says) as caught:
        read(folder / name, member)
    assert str(caught.value).startswith(f"{folder / name}::{member}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_os_error(folder):
    for name, member in (("gone.png", ""), ("gone.zip", "a"), ("gone.tar", "0:1")):
        with pytest.raises(OSError, match="gone"):
            read(folder / name, member)
