"""The miniature of the dataset that a module is about: `test_idrid.py` is of "idrid"."""

import shutil

import pytest

from vclip_jax.datasets.catalog import DATASETS


@pytest.fixture(scope="module")
def dataset(request):
    return DATASETS[request.module.__name__.rpartition("test_")[2]]


@pytest.fixture(scope="module")
def source(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    dataset.fixture(folder)
    return folder


@pytest.fixture(scope="module")
def listing(dataset, source):
    return dataset.scan(source)


@pytest.fixture
def copy(source, tmp_path):
    shutil.copytree(source, tmp_path / "copy")
    return tmp_path / "copy"
