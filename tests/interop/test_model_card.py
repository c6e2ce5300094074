"""The model card, from what a run left behind."""

import json
from pathlib import Path

import pytest
import yaml

from vclip_jax import config as config_lib
from vclip_jax.interop import folder, model_card
from vclip_jax.interop.__main__ import main

RESULT = {
    "n": 1200,
    "classes": ["no glaucoma", "glaucoma"],
    "accuracy": 0.9251,
    "accuracy_ci95": [0.9088, 0.9387],
    "balanced_accuracy": 0.71,
    "balanced_accuracy_ci95": [0.65, 0.77],
    "auc": 0.8802,
    "auc_ci95": None,
    "ece": 0.123,
    "prompts": {"name": "zh/refuge"},
}
ENVIRONMENT = {
    "python": "3.12.3",
    "devices": [{"kind": "TPU v5 lite", "id": index} for index in range(4)],
    "git_commit": "abc123",
    "versions": {"jax": "0.11.0", "flax": "0.12.9", "optax": None},
}
GOODPUT = {
    "starts": 2,
    "seconds": {"start": 600.0, "step": 4500.0, "evaluation": 300.0},
    "step_fraction": 0.8333,
}


@pytest.fixture
def workdir(tmp_path) -> Path:
    """A run's files, without its checkpoints."""
    config = config_lib.default()
    config.data.dataset = "synfundus/annotation"
    config.data.source = "/a/secret/place"
    config.evals.refuge = config_lib.zero_shot_eval("refuge", "zh/refuge")
    config.global_batch_size = 128
    files = {
        "config": json.loads(config.to_json_best_effort()),
        "environment": ENVIRONMENT,
        "goodput": GOODPUT,
        "zero_shot": {"refuge": RESULT},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    rows = [{"step": 100, "loss": 1.0}, {"step": 2000, "eval/refuge/accuracy": 0.9251}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.fixture
def written(workdir, tiny_weights, tokenizer):
    """Writes the card of the run at a step; changes replace keys of its config's sections."""

    def write(step: int = 2000, **data) -> str:
        path = workdir / "config.json"
        config = json.loads(path.read_text())
        config["data"] |= data
        path.write_text(json.dumps(config))
        run = model_card.read_saved_run(workdir, step)
        return model_card.write(tiny_weights(), tokenizer, "exported from w", run)

    return write


def metadata(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_results_have_their_intervals(written):
    text = written()
    row = next(line for line in text.splitlines() if line.startswith("| refuge"))
    assert row == (
        "| refuge | 1,200 | 2 | 0.925 [0.909, 0.939] | 0.710 [0.650, 0.770] | 0.880 | 0.500 |"
    )
    assert "refuge: zh/refuge" in text
    assert "calibration error is up to 0.12 (refuge)" in text


def test_the_hub_can_read_results_and_licence(written):
    found = metadata(written())
    assert found["license"] == "cc-by-nc-sa-4.0"
    assert found["library_name"] == "vclip_jax"
    assert found["pipeline_tag"] == "zero-shot-image-classification"
    assert found["language"] == "zh"
    (result,) = found["model-index"][0]["results"]
    values = {metric["type"]: metric["value"] for metric in result["metrics"]}
    assert values == {"accuracy": 0.9251, "balanced_accuracy": 0.71, "auc": 0.8802}
    assert result["dataset"]["type"] == "refuge"


def test_what_training_took_is_told(written):
    text = written()
    assert "2,000 steps of 128 pairs (256,000 pairs seen)" in text
    assert "Devices: 4 x TPU v5 lite." in text
    assert "1.50 hours of wall time, 6.00 device-hours" in text
    assert "in 2 starts; 83% of it in steps." in text
    assert "jax 0.11.0, flax 0.12.9, Python 3.12.3" in text
    assert "abc123" in text


def test_weights_trained_on_synfundus_carry_its_licence_and_citation(written):
    text = written()
    assert model_card.SYNFUNDUS in text
    assert "arXiv:2312.00377" in text.split("## Citation")[1]
    assert "wei2024visionclip" in text


@pytest.mark.parametrize(
    ("dataset", "licence", "says"),
    [
        ("synthetic/synfundus_like-32px-240-s0", "apache-2.0", "no other terms apply"),
        ("idrid", "cc-by-4.0", "The terms of the data are: CC BY 4.0."),
        ("messidor", "other", "research and education only"),
        ("generic/mine", "other", "not known to the program"),
        ("something_new", "other", "not known to the program"),
    ],
)
def test_each_dataset_has_its_own_terms(written, dataset, licence, says):
    text = written(dataset=dataset)
    assert metadata(text)["license"] == licence
    assert says in text.split("## Training data and licence")[1].split("## Training\n")[0]
    assert "NC-SA" not in text


def test_the_terms_of_all_datasets_of_a_mixture_are_told(written, workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"dataset": "", "mixture": {"idrid:train+test": 1, "synfundus": 3}}
    (workdir / "config.json").write_text(json.dumps(config))
    text = written()
    terms = text.split("## Training data and licence")[1].split("## Training\n")[0]
    assert "Trained on `idrid:train+test`" in terms
    assert "The terms of the data are: CC BY 4.0." in terms
    assert model_card.SYNFUNDUS in terms
    assert metadata(text)["license"] == "other"
    assert "Trained only on generated images" not in text


def test_other_initial_weights_are_remembered(written, workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["restore_from"] = "/a/secret/place/clip"
    (workdir / "config.json").write_text(json.dumps(config))
    assert "started from other weights" in written()


def test_no_path_of_the_machine_is_told(written, workdir):
    text = written()
    assert "/a/secret/place" not in text
    assert str(workdir) not in text


def test_figures_of_another_step_are_told_apart(written):
    assert "These results are of step" not in written(2000)
    assert "These results are of step 2,000, the weights of step 2,500" in written(2500)


def test_what_was_trained_on_is_no_external_dataset(written):
    assert "trained on another split" not in written()
    assert "trained on another split of refuge" in written(dataset="refuge")


def test_a_run_without_figures_says_so(written, workdir):
    for name in ("environment.json", "goodput.json", "zero_shot.json", "metrics.jsonl"):
        (workdir / name).unlink()
    text = written()
    assert "the run has not been evaluated" in text
    assert "model-index" not in text
    assert "hours" not in text
    assert "Devices" not in text


def test_damaged_files_are_named(written, workdir):
    (workdir / "goodput.json").write_text("{")
    with pytest.raises(ValueError, match=r"goodput\.json is not JSON"):
        written()


def test_imported_weights_leave_the_licence_to_their_makers(tiny_weights, tokenizer):
    text = model_card.write(tiny_weights(), tokenizer, "imported from rn.pt (cn_clip)")
    assert "license" not in metadata(text)
    assert "Only their authors can state" in text
    assert "rn.pt (cn_clip)" in text
    assert "## Results" not in text


def test_a_card_that_was_edited_stays(tmp_path, portable_folder):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for path in portable_folder.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / folder.CARD).write_text("---\nlicense: mit\n---\n\nMine.\n")
    command = ["export", "--format", "safetensors", "--model", source, "--out", target]
    assert main([str(part) for part in command]) == 0
    assert (target / folder.CARD).read_text() == (source / folder.CARD).read_text()
