"""Several systems side by side: rows for all, figures for those that have weights."""

import json
import shutil

import pytest

from vclip_jax import main as trainer
from vclip_jax import prompts
from vclip_jax.config import default, system, zero_shot_eval
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.evaluation import table1
from vclip_jax.evaluation.metrics.paper import TABLE_1


@pytest.fixture
def english_folder(tmp_path, portable_folder):
    """The portable folder with a vocabulary of as many entries that spells FLAIR's prompts."""
    texts = [text for texts in prompts.load("flair/fives").prompts for text in texts]
    own, other = (
        set(WordPiece.from_captions(texts).vocabulary),
        WordPiece.load(str(portable_folder / "vocab.txt")),
    )
    spare = [token for token in other.vocabulary if token not in own]
    tokens = [*other.vocabulary[:5], *sorted(own - set(other.vocabulary[:5]))]
    path = tmp_path / "english"
    shutil.copytree(portable_folder, path)
    tokens += [token for token in spare if token not in tokens]
    (path / "vocab.txt").write_text("\n".join(tokens[: other.vocab_size]) + "\n", "utf-8")
    return path


@pytest.fixture
def config(tmp_path, portable_folder, english_folder):
    config = default()
    config.data.data_dir = str(tmp_path / "data")
    config.eval_batch_size = 8
    config.bootstrap_resamples = 200
    config.heat_maps = False
    config.evals.fives_like = zero_shot_eval("synthetic/fives_like-32px-24-s0", "zh/fives")
    config.systems.visionclip = system(str(portable_folder), prompts="zh")
    config.systems.flair = system(str(english_folder), prompts="flair")
    config.systems.clip = system(prompts="en", where="somewhere.example")
    config.systems.biomedclip = system("/nowhere/w", prompts="en", where="elsewhere.example")
    return config


def test_every_system_has_a_row_and_only_weights_make_figures(config, tmp_path, capsys):
    trainer.main(config, tmp_path / "run", "eval")
    table = json.loads((tmp_path / "run/table1.json").read_text())
    assert list(table) == ["clip", "biomedclip", "flair", "visionclip"]  # as in the paper
    for name in ("visionclip", "flair"):
        assert table[name]["missing"] is None
        assert table[name]["results"]["fives_like"]["n"] == 24
        assert (tmp_path / "run/systems" / name / "report.html").exists()
    prompts = table["flair"]["results"]["fives_like"]["prompts"]["prompts"]
    assert all("A fundus photograph of" in text for texts in prompts for text in texts)
    assert table["clip"]["results"] == table["biomedclip"]["results"] == {}
    page = (tmp_path / "run/report.html").read_text()
    assert "weights: somewhere.example" in page
    assert "flair, visionclip" in page
    printed = capsys.readouterr().out
    assert (
        "clip: no weights: set --config.systems.clip.weights; weights: somewhere.example" in printed
    )
    assert "biomedclip: there is no /nowhere/w; weights: elsewhere.example" in printed


def test_a_missing_prompt_set_is_said_before_anything_is_computed(config, tmp_path):
    config.systems.late = system("x", prompts="latin")
    with pytest.raises(ValueError, match="no prompt set is called 'latin/fives'"):
        trainer.main(config, tmp_path / "run", "eval")
    assert not (tmp_path / "run/systems").exists()


def test_the_papers_figure_stands_beside_ours_on_the_papers_datasets_alone():
    result = {"accuracy": 0.5, "accuracy_ci95": [0.4, 0.6], "balanced_accuracy": 0.45}
    results = {"fives": result, "fives_like": result}
    table = {
        "flair_ek": {"missing": None, "results": results},
        "mine": {"missing": None, "results": results},
        "clip": {"missing": "no weights", "results": {}},
    }
    header, _, flair, mine, clip, reason = table1.format_systems(table).splitlines()
    assert header.split("  ")[0] == "system"
    assert flair.split() == [
        "flair_ek",
        "0.500",
        "[0.400,",
        "0.600]",
        "0.450",
        f"{TABLE_1['FLAIR_EK'][1]}",
        "0.500",
        "[0.400,",
        "0.600]",
        "0.450",
        "–",
    ]
    assert mine.split()[5] == "–"
    assert clip.split() == ["clip", "–", "–", f"{TABLE_1['CLIP'][1]:.3f}", "–", "–", "–"]
    assert reason == "clip: no weights"


def test_results_come_from_memory_as_other_processes_see_no_file(config, tmp_path):
    table = table1.evaluate_systems(config, tmp_path, lambda run, folder: {"fives_like": {"n": 3}})
    assert table["flair"]["results"] == table["visionclip"]["results"] == {"fives_like": {"n": 3}}
    assert table["clip"]["results"] == {}
