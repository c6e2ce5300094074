"""Every dataset of the catalogue: its miniature is built and scored, and nothing of it is lost."""

import inspect
import json
from collections import Counter

import pytest

from vclip_jax import main as trainer
from vclip_jax import prompts
from vclip_jax.config import default, published_eval, zero_shot_eval
from vclip_jax.datasets import open_source
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.ingest import build

GRADES = (
    "aptos",
    "brset",
    "ddr",
    "deepdrid",
    "eyepacs",
    "idrid",
    "idrid_sample",
    "mbrset",
    "messidor",
    "messidor2",
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """All miniatures, built."""
    folder = tmp_path_factory.mktemp("catalogue")
    for name, dataset in DATASETS.items():
        dataset.fixture(folder / "source" / name)
        build.build(dataset.scan(folder / "source" / name), folder / "data", workers=1)
    return folder / "data"


@pytest.mark.parametrize("name", DATASETS)
def test_a_miniature_is_built_and_its_rejects_are_accounted_for(name, data_dir):
    (card,) = (data_dir / name).rglob("card.json")
    content = json.loads(card.read_text())
    rejects = (card.parent / "rejects.jsonl").read_text().splitlines()
    assert content["rejected"], "a miniature has quirks"
    assert content["listed"] == content["kept"] + len(rejects)
    assert content["licence"] or name == "generic"
    assert content["ordered_classes"] == (name in GRADES)
    (card.parent / "samples.png").stat()


@pytest.mark.parametrize("name", DATASETS)
def test_its_prompts_are_for_its_classes(name, data_dir):
    dataset = DATASETS[name]
    source = open_source(name, data_dir, dataset.split)
    assert {record["label"] for record in source} - {-1}
    if dataset.prompts != "labels":
        assert prompts.load(dataset.prompts).class_names == source.class_names


@pytest.mark.parametrize(
    "name", ["brset", "deepdrid", "eyepacs", "mbrset", "messidor2", "odir", "papila"]
)
def test_its_records_name_the_patients_of_both_eyes(name, data_dir):
    source = open_source(name, data_dir, DATASETS[name].split)
    images = Counter(record["patient"] for record in source)
    assert "" not in images
    assert max(images.values()) >= 2


def test_a_dataset_without_patients_names_none(data_dir):
    assert "patient" not in open_source("aptos", data_dir, DATASETS["aptos"].split)[0]


def test_findings_and_facts_of_a_dataset_reach_its_records(data_dir):
    records = {record["key"]: record for record in open_source("brset", data_dir, "train+test")}
    assert records["img00005"]["findings"]["drusen"] == 1
    assert records["img00005"]["findings"]["scar"] == 0
    assert records["img00005"]["findings"]["abnormal macula"] == -1
    assert records["img00013"]["facts"] == {
        "eye": "right",
        "sex": "female",
        "age": "91",
        "camera": "Canon CR",
        "quality": "inadequate",
    }


@pytest.mark.parametrize("name", DATASETS)
def test_every_option_is_one_of_the_readers_and_defaults_to_the_first_choice(name):
    parameters = inspect.signature(DATASETS[name].scan).parameters
    for option, choices in DATASETS[name].options.items():
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        if choices:
            assert parameters[option].default == choices[0]


@pytest.mark.slow
def test_all_are_scored_in_one_run(data_dir, tmp_path, portable_folder):
    config = default()
    config.restore_from, config.data.data_dir = str(portable_folder), str(data_dir)
    for name, dataset in DATASETS.items():
        config.evals[name] = published_eval(name)
        if dataset.prompts == "labels":
            # The model reads no English, and the miniature of `generic` has the classes of FIVES.
            config.evals[name].prompts = "zh/fives"
    trainer.main(config, tmp_path, "eval")
    results = json.loads((tmp_path / "zero_shot.json").read_text())
    assert set(results) >= set(DATASETS)
    for name in DATASETS:
        assert results[name]["n"] > 0
        source = open_source(name, data_dir, DATASETS[name].split)
        assert sorted(results[name]["classes"]) == sorted(source.class_names)


def test_prompts_for_other_classes_are_refused(data_dir, tmp_path, portable_folder):
    config = default()
    config.restore_from, config.data.data_dir = str(portable_folder), str(data_dir)
    config.evals.refuge = zero_shot_eval("refuge", "zh/papila")
    with pytest.raises(ValueError, match=r"zh/papila is for the classes no glaucoma, glaucoma, s"):
        trainer.main(config, tmp_path, "eval")
