"""A mixture and balanced classes are opened as the config says, or refused by their key."""

import json
import logging

import pytest

from vclip_jax import config as config_lib
from vclip_jax import datasets
from vclip_jax.config.checks import validate
from vclip_jax.train import sources
from vclip_jax.train.inputs import check_data, open_training_data, training_data_of

# --- Mixtures.

DRAWN = ("synthetic/synfundus_like-32px-40-s0", "synthetic/messidor_like-32px-40-s1")


@pytest.fixture(scope="module")
def drawn_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixtures")
    for name in DRAWN:
        datasets.prepare(name, "", folder)
    return folder


def mixed(data_dir, **weights):
    """A config of the two datasets; `a` and `b` in a name stand for them."""
    config = config_lib.small()
    config.global_batch_size, config.data.image_size, config.data.data_dir = 8, 32, str(data_dir)
    names = {"a": DRAWN[0], "b": f"{DRAWN[1]}:test"}
    config.data.mixture = {names.get(name, name): weight for name, weight in weights.items()}
    return config


def test_a_mixture_is_opened_with_the_splits_that_its_datasets_have(drawn_dir, tmp_path, caplog):
    config = mixed(drawn_dir, a=3, b=1)
    validate(config, devices=1)
    with caplog.at_level(logging.INFO, "vclip_jax"):
        train, validation = open_training_data(config)
    assert f"mixture: 75.00 % of the examples from {DRAWN[0]} (" in caplog.text
    assert f"no pairs of {DRAWN[1]} are held back: no split validation" in caplog.text
    assert len(train) == sum(len(source) for source in train.sources)
    assert [source.split for source in train.sources] == ["test", "train"]  # sorted by name
    assert {record["key"].rpartition("/")[0] for record in validation} == {""}
    drawn = train.drawn_from(640, config.seed)
    assert drawn == {f"{DRAWN[1]}:test": 160, DRAWN[0]: 480}
    check_data(tmp_path, {"train": train})
    entry = json.loads((tmp_path / "data.json").read_text())["train"]
    assert entry["data"] == f"{DRAWN[1]}:test, {DRAWN[0]}:train" == training_data_of(tmp_path)
    assert entry["drawn"] == [[f"{DRAWN[1]}:test", "1"], [DRAWN[0], "3"]]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 1, "mien": 1}, r"config\.data\.mixture\.mien: no dataset is called 'mien'"),
        (
            {"a": 1, "fives": 1},
            r"config\.data\.mixture\.fives: fives is not built in .*: build it: vclip datasets bui",
        ),
        ({"a": 1, DRAWN[1]: 1}, r"config\.data\.mixture\.synthetic/mess.* has no split 'train'"),
        ({"b": 1, f"{DRAWN[0]}:train": 1, "a": 1}, r"names the same split of a dataset twice"),
        ({"a": 1, "b": 1e-6}, r"config\.data\.mixture: the weight 1e-06 of 1 is less than one ex"),
    ],
)
def test_a_mixture_that_cannot_be_drawn_is_refused_with_its_key(drawn_dir, weights, message):
    with pytest.raises(ValueError, match=message) as raised:
        open_training_data(mixed(drawn_dir, **weights))
    assert "\n" not in str(raised.value)


def test_a_batch_with_more_examples_than_a_dataset_has_is_refused(drawn_dir):
    config = mixed(drawn_dir, a=1, b=20)
    config.global_batch_size = 48
    with pytest.raises(ValueError, match=r"a batch takes 46 examples of its 40 records, the same"):
        open_training_data(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.dataset": "idrid"}, r"config\.data\.dataset='idrid' and config\.data\.mixture do "),
        ({"data.source": "x"}, r"config\.data\.source='x' and config\.data\.mixture do not go tog"),
        ({"data.shuffle": "grain"}, r"config\.data\.shuffle='grain' is for one dataset"),
        (
            {
                "data.mixture": {},
                "data.dataset": "mine",
                "data.balance": "label",
                "data.shuffle": "grain",
            },
            r"config\.data\.shuffle='grain' is for one dataset as it is: .* config\.data\.balance",
        ),
        ({"data.balance": "class"}, r"config\.data\.balance='class' must be label, finding or"),
        ({"data.mixture": {"mine": 0}}, r"config\.data\.mixture\.mine=0 must be a positive num"),
        ({"data.mixture": {"mine": -1.5}}, r"config\.data\.mixture\.mine=-1\.5 must be a posi"),
        ({"data.mixture": {"mine": "3"}}, r"config\.data\.mixture\.mine='3' must be a positive"),
    ],
)
def test_a_mixture_is_checked_before_it_is_opened(changes, message):
    config = mixed("none", a=1)
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        config[section][name] = value
    with pytest.raises(ValueError, match=message):
        validate(config, devices=1)


# --- Balance.


def test_classes_are_balanced_within_each_dataset(drawn_dir, caplog):
    config = mixed(drawn_dir, a=1, b=1)
    config.data.balance = "finding"
    validate(config, devices=1)
    with caplog.at_level(logging.INFO, "vclip_jax"):
        train, _ = open_training_data(config)
    assert "balance: 1 example in " in caplog.text
    assert list(train.drawn_from(6400, 0).values()) == pytest.approx([3200, 3200], abs=16)
    for number in (0, 1):
        weights = {group.weight for group in train.groups if group.rows[0] in train.rows_of(number)}
        assert len(weights) == 1


@pytest.mark.parametrize(("split", "names"), [("train", DRAWN[:1]), ("test", DRAWN[1:])])
def test_held_back_pairs_that_are_trained_on_are_warned_of(drawn_dir, caplog, split, names):
    config = mixed(drawn_dir, a=3, b=1)
    config.data.validation_split = split
    open_training_data(config)
    assert f"config.data.validation_split={split}: {names[0]}:{split} is trained on" in caplog.text


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("train", "validation", False),
        ("train+test", "test", True),
        ("train[:90%]", "train[90%:]", False),
        ("train", "train[90%:]", True),
        ("train[:90%]", "test + train[:90%]", True),
    ],
)
def test_slices_of_a_split_may_be_held_back(one, other, overlap):
    assert sources._overlap(one, other) == sources._overlap(other, one) == overlap


def test_records_without_a_label_are_left_out_and_counted(drawn_dir, monkeypatch, caplog):
    config = config_lib.small()
    config.global_batch_size, config.data.image_size, config.data.data_dir = 8, 32, str(drawn_dir)
    config.data.dataset, config.data.balance = DRAWN[1], "label"
    config.data.train_split, config.data.validation_split = "test", ""
    train, _ = open_training_data(config)
    assert "have no label" not in caplog.text
    assert set(train.origins) == set(train.class_names)
    found = datasets.RecordSource.__getitem__

    def unlabelled(self, index):
        return found(self, index) | ({"label": -1} if index % 2 else {})

    monkeypatch.setattr(datasets.RecordSource, "__getitem__", unlabelled)
    train, _ = open_training_data(config)
    assert f"warning: 20 of 40 records of {DRAWN[1]}:test have no label: config" in caplog.text
    assert all(row % 2 == 0 for group in train.groups for row in group.rows)
    monkeypatch.setattr(
        datasets.RecordSource, "__getitem__", lambda self, index: found(self, index) | {"label": -1}
    )
    with pytest.raises(
        ValueError,
        match=r"balance='label' needs two groups of records, and .*:test"
        r" has no record with a label: set it to '', or use other data",
    ):
        open_training_data(config)


def test_a_class_that_is_rarer_than_its_share_of_a_batch_is_warned_of(drawn_dir, caplog):
    config = config_lib.small()
    config.global_batch_size, config.data.image_size, config.data.data_dir = 36, 32, str(drawn_dir)
    config.data.dataset, config.data.balance = DRAWN[1], "label"
    config.data.train_split, config.data.validation_split = "test", ""
    open_training_data(config)
    assert "warning: batches can have the same record of " in caplog.text
