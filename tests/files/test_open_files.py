"""Many files under a low limit, and errors of the system that are no damage."""

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vclip_jax.datasets import DatasetError, open_source
from vclip_jax.datasets.__main__ import main
from vclip_jax.datasets.ingest import build as ingest
from vclip_jax.datasets.ingest.shards import write_in_order
from vclip_jax.datasets.listing import Blob, Item, Listing

RECORDS, SHARDS = 160, 80


def build(folder: Path, caption: str = "眼底") -> Path:
    picture = folder / "eye.png"
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(picture)
    items = [Item(f"k{i}", "train", Blob(str(picture)), caption, 0) for i in range(RECORDS)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            ingest, "write_in_order", lambda *args: write_in_order(*args[:3], files=SHARDS)
        )
        return ingest.build(Listing("many", ("a",), items), folder, workers=1)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    assert len(list(build(folder).glob("*.array_record-*"))) == SHARDS
    return folder


UNDER_A_LOW_LIMIT = """
import json, os, resource, sys
from concurrent.futures import ThreadPoolExecutor
from vclip_jax.datasets import open_source
from vclip_jax.files import open_files

source = open_source("many", sys.argv[1], "train")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
with ThreadPoolExecutor(8) as pool:
    read = list(pool.map(lambda i: source[i * 37 % len(source)]["key"], range(3 * len(source))))
held = len(os.listdir("/proc/self/fd"))
taken = []

def take_all():
    try:
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass

take_all()
again = [record["key"] for record in source]
open_files._readers(os.getpid()).cache_clear()
take_all()
try:
    source[0]
    refusal = ""
except Exception as error:
    refusal = f"{type(error).__name__}: {error}"
for one in taken:
    os.close(one)
print(json.dumps([sorted(set(read)), held, refusal, again]))
"""


@pytest.fixture(scope="module")
def low_limit(data_dir):
    arguments = [sys.executable, "-c", UNDER_A_LOW_LIMIT, str(data_dir)]
    run = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def test_more_files_than_may_be_open_are_read(low_limit):
    keys, open_files, _, _ = low_limit
    assert sorted(keys) == sorted(f"k{i}" for i in range(RECORDS))
    assert open_files < 64 - 8


def test_files_are_given_up_where_others_have_opened_all_that_were_left(low_limit):
    _, _, _, again = low_limit
    assert sorted(again) == sorted(f"k{i}" for i in range(RECORDS))


def test_too_many_open_files_are_not_called_damage(low_limit):
    _, _, refusal, _ = low_limit
    assert refusal.startswith("DatasetError: many:train: ")
    assert "Too many open files" in refusal
    assert "may open 64" in refusal
    assert "ulimit -n" in refusal
    assert "damaged" not in refusal


def test_a_command_takes_the_limit_that_it_may_have():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = min(before[0], 200)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
        assert main(["list"]) == 0
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert hard == before[1]
    assert soft == (65_536 if hard == resource.RLIM_INFINITY else hard)


def test_a_missing_file_is_named_when_the_dataset_is_opened(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    (lost,) = tmp_path.rglob("many-train.array_record-00007-*")
    lost.unlink()
    with pytest.raises(DatasetError, match=f"{lost.name} is missing"):
        open_source("many", tmp_path, "train")
    assert len(open_source("many", tmp_path, "train[:10]")) == 10


def test_a_file_that_cannot_be_read_is_not_called_damage(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path, dirs_exist_ok=True)
    source = open_source("many", tmp_path, "train")
    (lost,) = tmp_path.rglob("many-train.array_record-00007-*")
    lost.unlink()
    with pytest.raises(DatasetError, match="No such file or directory") as caught:
        source[14]
    assert "damaged" not in str(caught.value)
    assert str(lost) in str(caught.value)


def test_a_dataset_built_anew_is_read_anew(tmp_path):
    folder = build(tmp_path)
    assert open_source("many", tmp_path, "train")[0]["caption"] == "眼底"
    shutil.rmtree(folder)
    build(tmp_path, "另一个")
    assert open_source("many", tmp_path, "train")[0]["caption"] == "另一个"
