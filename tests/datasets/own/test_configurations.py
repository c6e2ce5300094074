"""Several configurations in one folder are several datasets; splits and shards of one are not."""

import pytest

from vclip_jax.datasets.fixtures import generic as fixture
from vclip_jax.datasets.own import generic
from vclip_jax.datasets.own.configurations import check_one

CARD = """---
license: cc-by-4.0
configs:
- config_name: cropped
  data_files:
  - split: train
    path: data/cropped-*
- config_name: "full"
  data_files: [data/full-train-*, 'data/full-test-*']
  default: true
- config_name: away
  data_files:
  - "away/*.parquet"
size_categories:
- n<1K
---
# A card
"""


def place(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return sorted(root.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("names", "said", "such"),
    [
        (
            ["a/train-00000-of-00002.parquet", "b/train-00000-of-00003.parquet", "b/1.parquet"],
            "a, b",
            "a",
        ),
        (["x/a/train/0000.parquet", "x/b/train/0000.parquet"], "x/a, x/b", "x/a"),
        (["train/0000.parquet", "b/train/0000.parquet"], "b, the folder itself", "b"),
    ],
)
def test_folders_that_each_count_from_the_start_are_configurations(tmp_path, names, said, such):
    with pytest.raises(ValueError, match=f"several configurations of a dataset .{said}.") as caught:
        check_one(tmp_path, place(tmp_path, *names))
    assert f"such as {tmp_path / such}, or move" in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
        ["data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
        ["train/0000.parquet", "train/0001.parquet", "test/0000.parquet"],
        ["x/train/a-00000-of-00001.parquet", "x/val/a-00000-of-00001.parquet"],
        ["one/0000.parquet", "two/0001.parquet"],
        ["clinic a/eyes.parquet", "clinic b/eyes.parquet"],
    ],
)
def test_splits_and_shards_are_one_dataset(tmp_path, names):
    check_one(tmp_path, place(tmp_path, *names))


def test_a_card_names_the_configurations_whose_files_are_there(tmp_path):
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo/README.md").write_text(CARD)
    place(tmp_path, "repo/data/full-train-00000-of-00001.parquet", "repo/data/full-test-1.parquet")
    check_one(tmp_path, sorted(tmp_path.rglob("*.parquet")))  # one was downloaded
    files = place(tmp_path, "repo/data/cropped-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=r"\(cropped, full\).* such as .*/repo/data, or move"):
        check_one(tmp_path, files)


@pytest.mark.parametrize("card", ["", "---\nconfigs:\n---", "no head", "---\nconfigs: [\n - x"])
def test_other_cards_name_none(tmp_path, card):
    (tmp_path / "README.md").write_text(card)
    check_one(tmp_path, place(tmp_path, "data/a-0001.parquet", "data/b-0001.parquet"))


def test_a_build_refuses_two_and_takes_one_of_them(tmp_path):
    for name in "ab":
        fixture.write_parquet(tmp_path / name)
    with pytest.raises(ValueError, match=r"\(a/data, b/data\), which may hold the same"):
        generic.scan(tmp_path)
    assert len(generic.scan(tmp_path / "a").items) == 9


SPLITS = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/a-*
  - split: {}
    path:
    - data/b.parquet
---
"""


def test_splits_that_only_a_card_tells_are_refused(tmp_path):
    files = place(tmp_path, "data/a-0.parquet", "data/b.parquet")
    (tmp_path / "README.md").write_text(SPLITS.format("test"))
    with pytest.raises(ValueError, match=r"README\.md puts it into the split '(train|test)'"):
        check_one(tmp_path, files)
    (tmp_path / "README.md").write_text(SPLITS.format("train"))
    check_one(tmp_path, files)
