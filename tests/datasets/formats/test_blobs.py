import os
import resource
import subprocess
import sys
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import pytest

from vclip_jax.datasets.formats import blobs
from vclip_jax.datasets.formats.tables import read_table
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
        ("plain.png", "a.png", "not a .zip"),
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


# --- Small containers with large members.


def test_a_member_that_unpacks_to_gigabytes_is_refused_before(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a.png", "w", force_zip64=True) as member:
            for _ in range(260):
                member.write(bytes(1 << 20))
        archive.writestr("b.png", b"good")
    with pytest.raises(ValueError, match=r"bomb\.zip::a\.png: it unpacks to 272,629,760 bytes"):
        read(path, "a.png")
    assert read(path, "b.png") == b"good"


def test_a_member_that_claims_less_than_it_holds_gives_no_more(tmp_path):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(1 << 24))
    data = path.read_bytes()
    path.write_bytes(data.replace((1 << 24).to_bytes(4, "little"), (5).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="CRC"):
        read(path, "a.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_packed_without_limits_is_refused(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", b"x")
    with pytest.raises(ValueError, match="another method than deflate"):
        read(tmp_path / "a.zip", "a.png")


def test_a_large_file_is_not_read_into_memory(tmp_path):
    for name in ("a.png", "a.tar"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(300 << 20)  # a hole
    with pytest.raises(ValueError, match="more than 268,435,456 bytes"):
        read(tmp_path / "a.png")
    with pytest.raises(ValueError, match="more than 268,435,456 bytes"):
        read(tmp_path / "a.tar", f"0:{300 << 20}")
    with pytest.raises(ValueError, match="more than"):
        read(tmp_path / "a.tar", "0:999999999999999999")


def test_an_image_that_a_parquet_file_repeats_is_in_memory_once(tmp_path):
    indices = pyarrow.array([0] * 50_000, pyarrow.int32())
    image = pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([b"x" * 1_000_000]))
    path = tmp_path / "a.parquet"
    nested = pyarrow.StructArray.from_arrays([image], ["bytes"])
    table = pyarrow.table({"raw": image, "image": nested})
    pyarrow.parquet.write_table(table, path, store_schema=False)
    assert path.stat().st_size < 400_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read(path, "raw:49999") == b"x" * 1_000_000  # of 50 GB
    with pytest.raises(ValueError, match="the images of a row group have more than"):
        read(path, "image:49999")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 << 20  # KiB


@pytest.mark.parametrize("name", ["a.png", "a.zip", "a.tar", "a.parquet"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    member = {"a.png": "", "a.zip": "a", "a.tar": "0:1", "a.parquet": "image:0"}[name]
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        read(tmp_path / name, member)


def test_damage_anywhere_in_a_parquet_file_is_one_line(folder, tmp_path):
    good = (folder / "some.parquet").read_bytes()
    refused = 0
    for at in range(0, len(good), 7):
        path = tmp_path / f"{at}.parquet"
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        for use in (lambda path: read(path, "image:5"), read_table):
            try:
                use(path)
            except (ValueError, OSError) as error:
                refused += 1
                found = str(error)
                assert "\n" not in found
    assert refused > 50


FOOTERS = """
import sys
from pathlib import Path

from vclip_jax.datasets.formats import blobs, parquet, tables
from vclip_jax.datasets.listing import Blob

path = Path(sys.argv[1])
data = path.read_bytes()
footer = int.from_bytes(data[-8:-4], "little")
copy = path.with_name("changed.parquet")
readers = [
    tables.read_table,
    lambda path: list(parquet.rows(path, "image", ["label"])),
    lambda path: parquet.class_names(path, "label"),
    lambda path: blobs.read(Blob(str(path), "image:1")),
]
for place in range(len(data) - 8 - footer, len(data) - 8):
    changed = bytearray(data)
    changed[place] ^= 2
    copy.write_bytes(changed)
    for read in readers:
        try:
            read(copy)
        except (ValueError, OSError, KeyError) as error:
            assert "\\n" not in str(error), error
print("alive")
"""


def test_no_footer_of_a_parquet_file_ends_the_process(tmp_path):
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    values = [{"bytes": b"row%d" % i, "path": f"{i}.png"} for i in range(3)]
    table = pyarrow.table({"image": pyarrow.array([*values, None], kind), "label": [0, 1, 2, None]})
    pyarrow.parquet.write_table(table, tmp_path / "some.parquet", store_schema=False)
    command = [sys.executable, "-c", FOOTERS, tmp_path / "some.parquet"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "alive\n"), result.stderr[-2000:]
