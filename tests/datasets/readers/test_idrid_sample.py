"""The photographs of IDRiD that come with the package: what is shipped, and that it is scored."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from vclip_jax.datasets import SourceNeededError, open_source, prepare
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.readers import idrid

FOLDER = Path(DATASETS["idrid_sample"].source)
REAL = Path(__file__).parents[4] / "shared/data/idrid"


@pytest.fixture(scope="module")
def shipped():
    return DATASETS["idrid_sample"].scan(FOLDER)


def test_each_grade_is_shipped_with_its_licence(shipped):
    assert Counter(item.label for item in shipped.items) == {0: 4, 1: 2, 2: 2, 3: 2, 4: 2}
    assert shipped.rejects == []
    assert shipped.notes == []  # every picture in the folder is in a record
    assert shipped.licence == "CC BY 4.0"
    text = (FOLDER / "LICENCE.txt").read_text()
    for author in ("Prasanna Porwal", "Samiksha Pachade", "Manesh Kokare"):
        assert author in text
        assert author in shipped.description
    assert "https://creativecommons.org/licenses/by/4.0/" in text


def test_the_photographs_are_small_and_hold_no_metadata(shipped):
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert len(files) == len(shipped.items) + 2  # the labels and the licence
    assert sum(path.stat().st_size for path in files) < 2**20
    for item in shipped.items:
        with Image.open(item.image.path) as image:
            assert (image.format, image.size) == ("JPEG", (512, 340))
            assert not image.getexif()
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_no_training_takes_them(shipped):
    assert {item.split for item in shipped.items} == {"test"}


def test_they_are_built_without_a_source(tmp_path, shipped):
    prepare("idrid_sample", "", tmp_path)
    source = open_source("idrid_sample", tmp_path, "test")
    stored = {record["key"]: record for record in source}
    assert {key: record["label"] for key, record in stored.items()} == {
        item.key: item.label for item in shipped.items
    }
    # Whoever has the whole of IDRiD still scores the whole.
    with pytest.raises(SourceNeededError):
        prepare("idrid", "", tmp_path)


@pytest.mark.skipif(not REAL.exists(), reason="IDRiD is not at hand")
def test_the_lowest_numbers_of_each_grade_are_taken_with_their_grades(shipped):
    whole = sorted(idrid.scan(REAL).items, key=lambda item: item.key)
    chosen = []
    for grade, count in ((0, 4), (1, 2), (2, 2), (3, 2), (4, 2)):
        chosen += [item for item in whole if item.label == grade][:count]
    found = {item.key: (item.label, item.values, item.caption) for item in shipped.items}
    assert found == {item.key: (item.label, item.values, item.caption) for item in chosen}
