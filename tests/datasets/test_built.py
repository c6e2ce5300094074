"""Finding built datasets by their names, and refusals that say what to do."""

import pytest

from vclip_jax.datasets.built import DatasetError, built_datasets, find_dataset, open_builder


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("idrid", "build idrid --source FOLDER --data-dir"),
        (
            "synthetic/messidor_like-64px-10-s3",
            "build synthetic --domain messidor_like --size 64 --count 10 --seed 3 --data-dir",
        ),
    ],
)
def test_a_dataset_that_is_not_built_says_how_to_build_it(tmp_path, name, command):
    with pytest.raises(DatasetError, match=command):
        find_dataset(name, tmp_path)


def test_a_name_that_could_leave_the_folder_is_refused(tmp_path):
    for name in ("../small", "a/b/c", "", "small/"):
        with pytest.raises(DatasetError, match="NAME or NAME/CONFIG"):
            find_dataset(name, tmp_path)


def test_a_damaged_dataset_is_one_line(tmp_path):
    folder = tmp_path / "small" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{")
    with pytest.raises(DatasetError, match="not a readable TFDS dataset") as caught:
        open_builder("small", tmp_path)
    assert "\n" not in str(caught.value)


def placed(folder, *names):
    """Make directories that look like built datasets to all that do not open them."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "dataset_info.json").write_text("{}")


def test_several_configs_must_be_named(tmp_path):
    placed(tmp_path, "small/one/1.0.0", "small/two/1.0.0")
    with pytest.raises(DatasetError, match="name one: small/one, small/two"):
        find_dataset("small", tmp_path)
    assert find_dataset("small/two", tmp_path) == tmp_path / "small/two/1.0.0"


def test_the_newest_version_is_found_by_number(tmp_path):
    placed(tmp_path, "small/0.9.0", "small/0.10.0", "small/0.2.11", "small/0.11.0rc1")
    assert find_dataset("small", tmp_path).name == "0.10.0"


def test_only_versioned_directories_are_listed(tmp_path):
    placed(tmp_path, "b/1.0.0", "a/c/2.0.0", "a/notes", "x/y/z/1.0.0")
    assert built_datasets(tmp_path) == [
        ("a/c", tmp_path / "a/c/2.0.0"),
        ("b", tmp_path / "b/1.0.0"),
    ]
