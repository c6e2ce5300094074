"""The trainer end to end, on tiny generated images: files, resume, eval, and refusals."""

import itertools
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

import vclip_jax
from vclip_jax import config as config_lib
from vclip_jax import datasets, prompts
from vclip_jax import main as trainer
from vclip_jax.config import checks
from vclip_jax.data import prefetch
from vclip_jax.devices import sharding
from vclip_jax.drills.tiny import get_config
from vclip_jax.evaluation import measurement
from vclip_jax.evaluation.metrics import bootstrap, classification, predictions
from vclip_jax.evaluation.tasks import usual_prompts
from vclip_jax.files import packaged
from vclip_jax.interop import folder as portable
from vclip_jax.interop import source
from vclip_jax.interop import workdir as saved_run
from vclip_jax.interop.__main__ import main as interop
from vclip_jax.interop.restore import restore_other
from vclip_jax.interop.weights import Weights, complete_config
from vclip_jax.prompts import own
from vclip_jax.report.reader import read_run
from vclip_jax.report.run_page import write_report
from vclip_jax.tracking.metrics_log import MetricsLog
from vclip_jax.train.build import make_training
from vclip_jax.train.inputs import load_tokenizer

ROOT = Path(__file__).parents[1]
STEPS = 6


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def tiny(data_dir: Path):
    """A config of a model without convolutions, which compiles fast."""
    plain = config_lib.default()
    config = get_config()
    config.total_steps = STEPS
    for key in ("keep_checkpoints", "keep_best", "eval_every", "bootstrap_resamples"):
        config[key] = plain[key]
    config.optimizer = plain.optimizer
    config.data.data_dir = str(data_dir)
    config.data.enhance = True
    config.model.vision_layers = (1,)
    config.model.vision_width = 64
    config.model.vision_patch_size = 16
    return config


@pytest.fixture
def config(data_dir):
    return tiny(data_dir)


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """A workdir whose run was never interrupted."""
    workdir = tmp_path_factory.mktemp("finished")
    trainer.main(tiny(data_dir), workdir)
    return workdir


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir: Path) -> dict[int, float]:
    return {row["step"]: row["loss"] for row in rows(workdir) if "loss" in row}


def test_a_run_leaves_the_files_of_the_contract(finished):
    names = {path.name for path in finished.iterdir()}
    assert names >= {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "zero_shot.json",
        "retrieval.json",
        "report.html",
        "vocab.txt",
        "prompts.json",
    }
    training = [row for row in rows(finished) if "loss" in row]
    assert [row["step"] for row in training] == list(range(1, STEPS + 1))
    for row in training:
        for key in (
            "loss",
            "logit_scale",
            "learning_rate",
            "grad_norm",
            "examples_per_second",
            "data_wait_fraction",
        ):
            assert math.isfinite(row[key])
    evaluation = [row for row in rows(finished) if "eval/messidor_like/accuracy" in row]
    assert [row["step"] for row in evaluation] == [STEPS]
    result = json.loads((finished / "zero_shot.json").read_text())["messidor_like"]
    assert result["n"] == np.sum(result["confusion"]) == 40
    assert result["accuracy"] == evaluation[0]["eval/messidor_like/accuracy"]
    assert len(result["classes"]) == 4
    for key in classification.SCALARS:
        assert f"{key}_ci95" in result
    assert len(result["per_class"]) == len(result["auc_per_class"]) == 4
    assert result["prompt_sensitivity"].keys() == {"template", "phrase", "single"}
    assert result["prompts"]["source"]
    assert own.load(finished) == prompts.load("zh/messidor")


def test_a_run_is_loaded_without_other_libraries_warnings(finished, caplog):
    source.load_weights(finished)
    assert not caplog.records


def test_the_answers_behind_the_figures_are_kept(finished):
    result = json.loads((finished / "zero_shot.json").read_text())["messidor_like"]
    kept = predictions.load(predictions.path_of(finished, "messidor_like"))
    assert len(np.unique(kept.hash)) == len(kept.labels) == 40
    assert list(kept.classes) == result["classes"]
    again = bootstrap.classification(
        kept.probabilities, kept.labels, ordered=kept.ordered, resamples=10_000
    )
    assert kept.ordered
    assert result["kappa"] is not None
    assert again == {key: result[key] for key in again}


def test_the_end_alone_looks_at_the_test_pairs_and_draws_heat_maps(config, finished, tmp_path):
    config.restore_from = str(finished)
    config.data.test_split = "test"
    config.heat_maps = True
    trainer.main(config, tmp_path, "eval")
    found = json.loads((tmp_path / "retrieval.json").read_text())
    validation = json.loads((finished / "retrieval.json").read_text())
    assert {key: found[key] for key in validation} == validation
    assert found["test"].keys() == validation.keys()
    builder = datasets.open_source(config.data.dataset, config.data.data_dir, "test")
    assert found["test"]["n"] == len(builder)
    row = next(row for row in rows(tmp_path) if "eval/test/loss" in row)
    assert row["eval/test/image_to_text_r1"] == found["test"]["image_to_text"]["r1"]
    assert row["eval/validation/image_to_text_r1"] == validation["image_to_text"]["r1"]
    examples = json.loads((tmp_path / "examples.json").read_text())["messidor_like"]
    plain = json.loads((finished / "examples.json").read_text())["messidor_like"]
    assert [{k: e[k] for k in e if k != "heat"} for e in examples] == plain
    assert all(e["heat"].startswith("data:image/jpeg;base64,") for e in examples)
    assert len({e["heat"] for e in examples}) == len(examples)


def test_the_test_pairs_stay_unseen_while_a_run_goes_on(config, tmp_path):
    class Untouchable:
        def __iter__(self):
            raise AssertionError("the test pairs were looked at")

        __len__ = __iter__

    log = MetricsLog(tmp_path / "metrics.jsonl")
    during = measurement.Measurement(
        None, None, [], config, tmp_path, log, write_report, Untouchable()
    )
    during((None, None), 1)
    during.log_points((None, None), 2)
    with pytest.raises(AssertionError, match="were looked at"):
        during((None, None), 3, final=True)


@pytest.mark.slow
def test_a_sigmoid_in_a_ring_trains_on_captions_and_its_checkpoint_is_scored(config, tmp_path):
    config.loss.kind = "sigmoid_ring"
    config.loss.targets = "caption"
    config.loss.label_smoothing = 0.01
    config.total_steps = 2
    trainer.main(config, tmp_path)
    training = [row for row in rows(tmp_path) if "loss" in row]
    assert training[0]["logit_bias"] == -10
    before = json.loads((tmp_path / "zero_shot.json").read_text())
    trainer.main(config, tmp_path, mode="eval")
    assert json.loads((tmp_path / "zero_shot.json").read_text()) == before


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    config, finished, tmp_path, monkeypatch
):
    to_device = prefetch.prefetch_to_device

    class Interrupted:
        """Gives four batches, then what Ctrl-C gives."""

        def __init__(self, batches):
            self.batches, self.left = batches, 4

        def __next__(self):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            return next(self.batches)

        def __getattr__(self, name):
            return getattr(self.batches, name)

    with monkeypatch.context() as patch:
        patch.setattr(prefetch, "prefetch_to_device", lambda *a: Interrupted(to_device(*a)))
        with pytest.raises(KeyboardInterrupt):
            trainer.main(config, tmp_path)
    assert max(losses(tmp_path)) == 4
    trainer.main(config, tmp_path)
    assert losses(tmp_path) == losses(finished)
    steps = [row["step"] for row in rows(tmp_path) if "loss" in row]
    assert steps == sorted(set(steps))
    for name in ("zero_shot.json", "retrieval.json"):
        assert json.loads((tmp_path / name).read_text()) == json.loads(
            (finished / name).read_text()
        )


@pytest.mark.slow
def test_an_evaluation_that_was_cut_off_is_made_up_for(config, tmp_path, monkeypatch):
    config.eval_every = 2
    config.checkpoint_every = 100
    measured = measurement.Measurement.__call__

    def interrupted(self, variables, step):
        if step == 4:
            raise KeyboardInterrupt
        measured(self, variables, step)

    with monkeypatch.context() as patch:
        patch.setattr(measurement.Measurement, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trainer.main(config, tmp_path)
    assert saved_run.steps(tmp_path) == (2, 4)  # what it had trained by then is not lost
    trainer.main(config, tmp_path)
    assert evaluated(tmp_path) == [2, 4, STEPS]


@pytest.mark.slow
def test_the_best_checkpoint_outlasts_the_newest_and_can_be_chosen(
    config, tmp_path, monkeypatch, capsys
):
    config.eval_every = 1
    config.keep_checkpoints = 1
    config.keep_best = "eval/validation/loss"
    found, worse = measurement.evaluate_pairs, itertools.count(1.0)

    def rising(*arguments, **options):
        values, retrieval = found(*arguments, **options)
        return values | {"eval/validation/loss": next(worse)}, retrieval

    monkeypatch.setattr(measurement, "evaluate_pairs", rising)
    trainer.main(config, tmp_path)
    assert saved_run.steps(tmp_path) == (1, STEPS)
    assert saved_run.load(tmp_path, "best")[2] == 1
    export = ["export", "--format=safetensors", f"--model={tmp_path}", "--step=best"]
    assert interop([*export, f"--out={tmp_path / 'best'}"]) == 0
    assert f"{tmp_path}: step 1\n" in capsys.readouterr().err
    assert "step 1" in (tmp_path / "best/README.md").read_text()
    config.restore_step = "best"
    trainer.main(config, tmp_path, "eval")
    results = json.loads((tmp_path / "zero_shot.json").read_text())
    assert {result["step"] for result in results.values()} == {1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_best": "loss", "eval_every": 2}, r"keep_best='loss' is no metric .* validation"),
        ({"keep_best": "eval/mesidor/auc", "eval_every": 2}, "one of messidor_like, validation"),
        ({"keep_best": "eval/validation/loss"}, r"needs config\.eval_every"),
        ({"checkpoint_errors": "ignore"}, "must be one of stop, continue"),
        ({"restore_step": "last"}, "'last' must be latest, best or a step"),
    ],
)
def test_checkpoint_settings_that_cannot_work_are_refused(config, tmp_path, changes, message):
    config.update(changes)
    with pytest.raises(ValueError, match=message):
        trainer.main(config, tmp_path)


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(config, finished, tmp_path, caplog):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    shutil.rmtree(workdir / f"checkpoints/{STEPS}/state")
    log = logging.getLogger("vclip_jax")
    with caplog.at_level(logging.WARNING, log.name):
        trainer.main(config, workdir)
    assert f"checkpoint {STEPS} in {workdir}/checkpoints is damaged" in caplog.text
    assert losses(workdir) == losses(finished)
    assert saved_run.steps(workdir) == (4, STEPS)
    arrays = [
        json.loads((w / f"checkpoints/{STEPS}/position/metadata").read_text())["arrays"]
        for w in (workdir, finished)
    ]
    assert arrays[0] == arrays[1]


def test_eval_mode_restores_and_scores_the_same(config, finished, tmp_path):
    before = json.loads((finished / "zero_shot.json").read_text())
    config.restore_from = str(finished)
    config.model.embed_dim = 24  # is the checkpoint's, whatever the config says
    asked = config.to_dict()
    trainer.main(config, tmp_path, "eval")
    assert json.loads((tmp_path / "zero_shot.json").read_text()) == before
    assert (tmp_path / "report.html").exists()
    assert config.to_dict() == asked


def test_a_finished_run_can_be_evaluated_in_place(config, finished):
    written = (finished / "metrics.jsonl").read_text()
    before = json.loads((finished / "zero_shot.json").read_text())
    trainer.main(config, finished, "eval")
    assert json.loads((finished / "zero_shot.json").read_text()) == before
    assert (finished / "metrics.jsonl").read_text() == written


def test_a_run_that_is_evaluated_with_other_words_has_their_figures(config, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    written = (finished / "metrics.jsonl").read_text()
    config.evals.messidor_like.prompts = "zh_grammar/messidor"
    trainer.main(config, workdir, "eval")
    assert (workdir / "metrics.jsonl").read_text().startswith(written)
    again = rows(workdir)[-1]
    earlier = next(row for row in rows(finished) if row.get("evaluation"))
    assert again["step"] == STEPS
    assert again["evaluation"] != earlier["evaluation"]
    result = json.loads((workdir / "zero_shot.json").read_text())["messidor_like"]
    shown = [row for row in read_run(workdir).metrics if "eval/messidor_like/auc" in row]
    assert [row["eval/messidor_like/auc"] for row in shown] == [result["auc"]]
    assert [row["step"] for row in shown] == [STEPS]


def evaluated(workdir: Path) -> list[int]:
    return [row["step"] for row in rows(workdir) if "eval/messidor_like/accuracy" in row]


def test_every_checkpoint_makes_a_point_of_the_curve_once(config, finished, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(finished, workdir)
    config.eval_all_checkpoints = True
    trainer.main(config, workdir, "eval")
    assert sorted(evaluated(workdir)) == [4, STEPS]
    before = json.loads((finished / "zero_shot.json").read_text())
    assert json.loads((workdir / "zero_shot.json").read_text()) == before
    earlier = next(row for row in rows(workdir) if row["step"] == 4 and "loss" not in row)
    newest = next(row for row in rows(finished) if "eval/messidor_like/accuracy" in row)
    assert earlier.keys() == newest.keys()
    written = (workdir / "metrics.jsonl").read_text()
    trainer.main(config, workdir, "eval")
    assert (workdir / "metrics.jsonl").read_text() == written
    assert "Evaluation by training step" in (workdir / "report.html").read_text()


def test_the_curve_of_another_run_is_the_same_and_its_model_is_named(config, finished, tmp_path):
    config.restore_from = str(finished)
    config.eval_all_checkpoints = True
    trainer.main(config, tmp_path, "eval")
    assert evaluated(tmp_path) == [4, STEPS]
    noted = json.loads((tmp_path / "scored.json").read_text())
    assert (noted["model"], noted["step"]) == (str(finished), STEPS)
    assert noted["sha256"] == vclip_jax.load(finished).weights_digest
    assert noted["config"]["gate"] == config.gate
    assert noted["environment"]["versions"]
    page = (tmp_path / "report.html").read_text()
    assert "Scored model" in page
    assert noted["sha256"][:16] in page
    assert not (finished / "scored.json").exists()


def test_two_prompt_sets_share_the_images_and_are_compared(config, finished, tmp_path, monkeypatch):
    config.restore_from = str(finished)
    config.validation_batches = 0
    config.evals.grammar = config_lib.zero_shot_eval(
        config.evals.messidor_like.dataset, "zh_grammar/messidor"
    )
    calls = []
    embed = measurement.embed_images
    monkeypatch.setattr(
        measurement, "embed_images", lambda *a, **b: calls.append(a[2].name) or embed(*a, **b)
    )
    trainer.main(config, tmp_path, "eval")
    assert calls == ["grammar"]
    assert (
        "grammar</strong> against <strong>messidor_like" in (tmp_path / "report.html").read_text()
    )


def test_all_checkpoints_are_for_evaluation_and_of_a_run(config, portable_folder, tmp_path):
    config.eval_all_checkpoints = True
    with pytest.raises(ValueError, match=r"eval_all_checkpoints=True needs `vclip eval`"):
        trainer.main(config, tmp_path)
    config.restore_from = str(portable_folder)
    with pytest.raises(ValueError, match="is not a training run's workdir: it lacks checkpoints"):
        trainer.main(config, tmp_path, "eval")


@pytest.mark.parametrize("resamples", [-1, 99])
def test_too_few_resamples_are_refused(config, tmp_path, resamples):
    config.bootstrap_resamples = resamples
    with pytest.raises(ValueError, match=rf"bootstrap_resamples={resamples} .* at least 100, or 0"):
        trainer.main(config, tmp_path)


def test_a_step_that_is_not_there_is_answered_with_those_there_are(finished):
    assert saved_run.steps(finished) == (4, STEPS)
    assert saved_run.load(finished, 4)[2] == 4
    assert saved_run.load(finished)[2] == STEPS
    for step in (5, "5"):
        with pytest.raises(ValueError, match=r"no checkpoint of step 5: it has 4, 6"):
            saved_run.load(finished, step)
    with pytest.raises(ValueError, match=r"without config\.keep_best.*name a step, it has 4, 6"):
        saved_run.load(finished, "best")
    with pytest.raises(ValueError, match=r"latest, best or a number, got 'last'.* has 4, 6"):
        saved_run.load(finished, "last")


def test_eval_without_a_checkpoint_says_what_to_do(config, tmp_path):
    with pytest.raises(ValueError, match=r"no checkpoint to evaluate.*restore_from"):
        trainer.main(config, tmp_path, "eval")


def test_another_config_is_not_mixed_into_a_run(config, finished):
    config.optimizer.learning_rate = 1e-4
    with pytest.raises(ValueError, match=r"learning_rate=0\.0005, not 0\.0001.*--workdir"):
        trainer.main(config, finished)


def test_too_few_records_for_a_batch_are_refused(config, tmp_path):
    config.global_batch_size = 512
    with pytest.raises(ValueError, match=r"records in train, fewer than .*global_batch_size=512"):
        trainer.main(config, tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_written(config, tmp_path):
    config.optimizer.learning_rate = 1e30
    config.max_skipped = 3
    with pytest.raises(ValueError, match=r"3 updates in a row were skipped.*learning_rate"):
        trainer.main(config, tmp_path)
    assert all(math.isfinite(row.get("loss", 0)) for row in rows(tmp_path))
    told = json.loads((tmp_path / "diagnosis.json").read_text())
    assert (len(told["records"]), told["in_a_row"]) == (16, 3)
    assert told["gradient_norms"]["bert/embeddings"] == "nan"
    skipped = [row["skipped_steps"] for row in rows(tmp_path) if "skipped_steps" in row]
    assert skipped == [1, 2, 3]


COMMAND = [sys.executable, "-m", "vclip_jax.main", "--config", "configs/idrid.py"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.data.source=/nowhere"], "/nowhere"),
        (["--config.totl_steps=3"], "did you mean config.total_steps?"),
        (["--config.evals.idrod.split=test"], "did you mean idrid?"),
        (["--config.total_steps=many"], "--config.total_steps=many"),
        (["--config.global_batch_size=30"], "config.global_batch_size=30 does not divide"),
        (["--config.tokenizer.vocab=missing.txt"], "config.tokenizer.vocab: missing.txt: No such"),
        (["--config.data.augment=strong"], "data.augment='strong' must be one of"),
        (["--config.data.dataset=imagenet"], "no dataset is called 'imagenet'"),
        (["--config.evals.idrid.prompts=zh/idird"], "did you mean zh/idrid?"),
    ],
)
def test_bad_input_is_one_line_that_names_it(arguments, message, tmp_path, write_idrid):
    source = write_idrid(tmp_path / "idrid", train=60)
    given = [f"--config.data.source={source}", *arguments]
    completed = _run(*given, f"--config.data.data_dir={tmp_path}/data", workdir=tmp_path / "run")
    assert completed.returncode == 1
    line = completed.stderr.splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
    assert "Traceback" not in completed.stderr
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_model_that_is_not_there_is_named_with_its_key(config, tmp_path):
    config.restore_from = "nowhere"
    with pytest.raises(ValueError, match=r"^config\.restore_from: there is no nowhere: name a "):
        trainer.evaluate(config, tmp_path)
    config.systems.mine = config_lib.system(str(tmp_path), prompts="zh")
    with pytest.raises(ValueError, match=r"^config\.systems\.mine: config\.restore_from: "):
        trainer.main(config, tmp_path, mode="eval")
    config.systems.mine.prompts = "latin"
    with pytest.raises(ValueError, match=r"^config\.systems\.mine\.prompts: no prompt set is"):
        trainer.main(config, tmp_path, mode="eval")


def test_an_image_that_is_none_is_named_before_training(tmp_path, write_idrid):
    source = write_idrid(tmp_path / "idrid", train=60)
    bad = next(source.rglob("IDRiD_007.jpg"))
    bad.write_bytes(b"this is no image")
    completed = _run(
        f"--config.data.source={source}",
        f"--config.data.data_dir={tmp_path}/data",
        workdir=tmp_path / "run",
    )
    assert completed.returncode == 1
    assert "IDRiD_007.jpg" in completed.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("asked", [False, True])
def test_xla_is_asked_for_the_same_bits_before_it_has_a_device(tmp_path, asked):
    code = (
        "import os, jax\nfrom vclip_jax import main\nfrom vclip_jax.config import command_line\n"
        "def show(*_): print(jax.numpy.ones(2).sum(), os.environ['XLA_FLAGS'])\n"
        "main.main = show\ncommand_line.run(main.run_flags)"
    )
    completed = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "--config=configs/quickstart.py",
            f"--workdir={tmp_path}",
            *(["--deterministic"] if asked else []),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    # XLA ends the process at a flag that it does not know.
    assert completed.stdout.startswith("2.0 ")
    assert ("--xla_gpu_deterministic_ops=true" in completed.stdout) == asked


def _run(*arguments: str, workdir: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, "--workdir", str(workdir), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


# --- Kinds of start.


def start(config, workdir: Path):
    """The state with which a run in a new workdir begins, and from what."""
    checks.validate(config, devices=8)
    mesh = sharding.make_mesh(1)
    size = load_tokenizer(config, [], workdir).vocab_size
    training = make_training(config, mesh, size)
    fresh = jax.tree.map(
        lambda leaf, place: jax.device_put(np.ones(leaf.shape, leaf.dtype), place),
        training.abstract,
        training.placement,
    )
    fresh = fresh.replace(step=fresh.step * 0)
    state, origin = restore_other(config, fresh, training.placement, size)
    assert int(state.step) == 0
    return state, fresh, origin


def same(one, other) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_a_run_from_another_workdir_trains_its_weights_from_step_0(
    config, finished, tmp_path, caplog
):
    config.restore_from = str(finished)
    with caplog.at_level(logging.INFO, "vclip_jax"):
        trainer.main(config, tmp_path)
    assert sorted(losses(tmp_path)) == list(range(1, STEPS + 1))
    assert f"starts at step 0 from {finished}, step {STEPS} (weights)" in caplog.text
    content = json.loads((tmp_path / "start.json").read_text())
    assert content == {"source": str(finished), "step": STEPS, "taken": "weights"}
    assert (
        f"{finished}, step {STEPS} (weights), trained further"
        in (tmp_path / "report.html").read_text()
    )
    rates = {row["step"]: row["learning_rate"] for row in rows(tmp_path) if "loss" in row}
    expected = {row["step"]: row["learning_rate"] for row in rows(finished) if "loss" in row}
    assert rates[1] == expected[1]  # the warm-up begins anew
    with caplog.at_level(logging.INFO, "vclip_jax"):
        trainer.main(config, tmp_path)  # its own checkpoint counts now
    assert f"restored step {STEPS}" in caplog.text
    assert "nothing is left to train" in caplog.text
    assert sorted(losses(tmp_path)) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("step", ["latest", "4"])
def test_another_workdirs_weights_alone_are_taken(config, finished, tmp_path, step):
    config.restore_from, config.restore_step = str(finished), step
    state, fresh, origin = start(config, tmp_path)
    loaded, _, number = saved_run.load(finished, step)
    assert same((state.params, state.batch_stats), loaded.variables)
    assert same(state.opt_state, fresh.opt_state)
    assert (origin.step, origin.taken) == (number, "weights")


def test_an_optimizer_of_other_stages_is_refused_by_its_key(config, finished, tmp_path):
    config.restore_from, config.restore_optimizer = str(finished), True
    config.optimizer.layer_decay = 0.5
    with pytest.raises(ValueError, match=r"do not both use config\.optimizer\.layer_decay: set it"):
        start(config, tmp_path)


@pytest.mark.slow
def test_the_bias_of_a_run_with_low_rank_parts_is_taken_over(config, tmp_path):
    config.loss.kind, config.train.image, config.train.text = "sigmoid", "lora:2", "lora:2"
    config.total_steps = config.checkpoint_every = 2
    config.optimizer.warmup_steps, config.optimizer.learning_rate = 0, 0.1
    trainer.main(config.copy_and_resolve_references(), tmp_path / "first")
    config.restore_from, config.restore_optimizer = str(tmp_path / "first"), True
    whole, *_ = start(config, tmp_path)
    config.restore_optimizer = False
    merged, fresh, _ = start(config, tmp_path)
    bias = whole.params["logit_bias"]
    assert float(merged.params["logit_bias"]) == float(bias) != float(fresh.params["logit_bias"])


def test_the_optimizer_is_taken_on_request(config, finished, tmp_path):
    config.restore_from, config.restore_optimizer = str(finished), True
    state, fresh, origin = start(config, tmp_path)
    assert same((state.params, state.batch_stats), saved_run.load(finished)[0].variables)
    [adam] = [n for n in jax.tree.leaves(state.opt_state, is_leaf=is_adam) if is_adam(n)]
    assert int(adam.count) == STEPS
    [rate] = [n for n in jax.tree.leaves(state.opt_state, is_leaf=is_rate) if is_rate(n)]
    assert int(rate.count) == 0
    assert not same(state.opt_state, fresh.opt_state)
    assert origin.taken == "weights and optimizer"


def is_adam(node) -> bool:
    return isinstance(node, optax.ScaleByAdamState)


def is_rate(node) -> bool:
    return isinstance(node, optax.ScaleByScheduleState)


def test_the_best_checkpoint_of_another_run_is_found_by_its_own_metric(config, finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    config.restore_from, config.restore_step = str(other), "best"
    with pytest.raises(ValueError, match=r"=best: .* without config.keep_best.* it has 4, 6"):
        trainer.main(config, tmp_path / "new")
    content = json.loads((other / "config.json").read_text())
    content["keep_best"] = "eval/validation/loss"
    (other / "config.json").write_text(json.dumps(content))
    with (other / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "eval/validation/loss": 0.0}\n')
    assert start(config, tmp_path)[2].step == 4


def test_a_portable_folder_gives_its_weights(config, finished, tmp_path):
    loaded, tokenizer, _ = saved_run.load(finished)
    portable.save(tmp_path / "portable", loaded, tokenizer)
    config.restore_from = str(tmp_path / "portable")
    state, fresh, origin = start(config, tmp_path)
    assert same((state.params, state.batch_stats), loaded.variables)
    assert same(state.opt_state, fresh.opt_state)
    assert (origin.step, origin.taken) == (None, "weights")
    config.restore_optimizer = True
    with pytest.raises(ValueError, match=r"restore_optimizer needs the workdir of a run"):
        trainer.main(config, tmp_path / "new")


def test_a_packaged_model_gives_weights_vocabulary_and_prompts_by_its_name(
    config, finished, tmp_path, monkeypatch
):
    monkeypatch.setattr(packaged, "ROOT", tmp_path / "packaged")
    loaded, tokenizer, _ = saved_run.load(finished)
    portable.save(tmp_path / "portable", loaded, tokenizer, prompts=own.load(finished))
    packaged.pack(tmp_path / "portable", "tiny")
    config.restore_from, config.evals = "tiny", {}
    state, _, origin = start(config, tmp_path)  # with the size of its vocabulary
    assert same((state.params, state.batch_stats), loaded.variables)
    assert str(origin) == "tiny (weights)"
    assert load_tokenizer(config, [], tmp_path) == tokenizer
    nameless = SimpleNamespace(class_names=())
    assert usual_prompts(config, [], nameless, tokenizer) == own.load(finished)
    (tmp_path / "packaged/tiny/vocab.txt").write_text("x")
    with pytest.raises(ValueError, match=r"vocab\.txt is damaged"):
        trainer.main(config, tmp_path / "new")


def test_a_text_tower_leaves_the_image_tower_at_random(config, finished, tmp_path):
    loaded, tokenizer, _ = saved_run.load(finished)
    whole = loaded.config
    text = complete_config(
        {
            "kind": "text",
            "model": {k: v for k, v in whole["model"].items() if k.startswith("text_")},
            "tokenizer": whole["tokenizer"],
        },
        origin="test",
    )
    arrays = {k: v for k, v in loaded.arrays.items() if k.startswith("bert.")}
    portable.save(tmp_path / "text", Weights(text, arrays), tokenizer)
    config.restore_from = str(tmp_path / "text")
    state, fresh, origin = start(config, tmp_path)
    assert same(state.params["bert"], loaded.variables[0]["bert"])
    assert same(state.params["visual"], fresh.params["visual"])
    assert origin.taken == "text tower"


def test_a_sigmoid_loss_can_start_from_a_softmax_run(config, finished, tmp_path):
    config.restore_from, config.loss.kind = str(finished), "sigmoid"
    state, fresh, _ = start(config, tmp_path)
    assert same(state.params["visual"], saved_run.load(finished)[0].variables[0]["visual"])
    assert same(state.params["logit_bias"], fresh.params["logit_bias"])


def test_low_rank_parts_are_merged_wherever_a_run_is_read(config, finished, tmp_path):
    config.restore_from, config.total_steps = str(finished), 2
    config.checkpoint_every, config.optimizer.learning_rate = 2, 0.01
    config.train.image, config.train.text, config.train.lora_targets = "lora:2", "lora:1", "mlp|que"
    trainer.main(config.copy_and_resolve_references(), tmp_path / "tuned")
    loaded, tokenizer, _ = saved_run.load(tmp_path / "tuned")
    before = saved_run.load(finished)[0]
    assert loaded.arrays.keys() == before.arrays.keys()
    moved = {n for n in before.arrays if not np.array_equal(loaded.arrays[n], before.arrays[n])}
    assert "visual.transformer.resblocks.0.mlp.c_fc.kernel" in moved
    assert "bert.layer.0.attention.self_.query.kernel" in moved
    assert not any("layer.0.output" in n or "attn.in_proj" in n or "embed" in n for n in moved)
    portable.save(tmp_path / "portable", loaded, tokenizer)
    scored = tiny(Path(config.data.data_dir))
    scored.restore_from = str(tmp_path / "portable")
    trainer.main(scored, tmp_path / "scored", mode="eval")
    [own, other] = (rows(tmp_path / run)[-1]["eval/validation/loss"] for run in ("tuned", "scored"))
    assert own == pytest.approx(other, abs=1e-5)
    # Another run starts from the merged kernels, with or without low-rank parts of its own.
    config.restore_from, config.train.text = str(tmp_path / "tuned"), "full"
    state, fresh, _ = start(config, tmp_path)
    kernel = state.params["bert"]["layer"][0]["attention"]["self_"]["query"]["kernel"]
    assert np.array_equal(kernel, loaded.arrays["bert.layer.0.attention.self_.query.kernel"])
    added = state.params["visual"]["transformer"]["resblocks"][0]["mlp"]["c_fc"]["low_rank"]
    assert same(
        added, fresh.params["visual"]["transformer"]["resblocks"][0]["mlp"]["c_fc"]["low_rank"]
    )


def test_what_shapes_do_not_show_is_said(config, finished, tmp_path, caplog):
    config.restore_from, config.model.text_pool = str(finished), "mean"
    with caplog.at_level(logging.INFO, "vclip_jax"):
        start(config, tmp_path)
    assert 'trained with config.model.text_pool="first" (here "mean")' in caplog.text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("restore_step", "5", r"restore_step=5: .* no checkpoint of step 5: it has 4, 6"),
        ("restore_step", "first", r"restore_step='first' must be latest, best or a step"),
        ("restore_from", "nowhere", r"restore_from=nowhere is neither a workdir"),
        ("restore_from", "hub:a/b", r"restore_from=hub:a/b .* download it and name the folder"),
    ],
)
def test_a_start_that_is_not_there_is_refused_before_any_data(
    config, finished, tmp_path, key, value, message
):
    config.restore_from = str(finished)
    config[key] = value
    config.data.dataset = "idrid"  # is not built, and would be asked for
    with pytest.raises(ValueError, match=message):
        trainer.main(config, tmp_path / "run")


def test_a_portable_folder_is_evaluated_like_the_run_it_came_from(config, finished, tmp_path):
    exported = tmp_path / "exported"
    arguments = ["export", "--format", "safetensors", "--model", finished, "--out", exported]
    assert interop([str(argument) for argument in arguments]) == 0
    config.restore_from = str(exported)
    trainer.main(config, tmp_path / "run", "eval")
    results = json.loads((tmp_path / "run/zero_shot.json").read_text())
    expected = json.loads((finished / "zero_shot.json").read_text())
    assert [(result.pop("step"), result) for result in results.values()] == [
        (0, result) for result in expected.values() if result.pop("step") == STEPS
    ]


def test_a_folder_of_another_size_is_refused_with_every_name(config, finished, tmp_path):
    exported = tmp_path / "exported"
    arguments = ["export", "--format", "safetensors", "--model", finished, "--out", exported]
    assert interop([str(argument) for argument in arguments]) == 0
    config.restore_from, config.model.embed_dim = str(exported), 24
    with pytest.raises(ValueError, match=r"does not fit.*text_projection has the shape"):
        trainer.main(config, tmp_path / "run")


def test_missing_training_data_is_told_before_the_hub_is_asked_for_words(config, tmp_path):
    config.data.dataset, config.data.data_dir = "synfundus", str(tmp_path)
    config.tokenizer.vocab = "hub:nobody/words"
    with pytest.raises(datasets.SourceNeededError, match="synfundus is not built"):
        trainer.main(config, tmp_path / "W")
