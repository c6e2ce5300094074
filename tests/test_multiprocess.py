"""Several processes train, save, restore and evaluate as one does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vclip_jax.evaluation.metrics import predictions

pytestmark = pytest.mark.multiprocess

ROOT = Path(__file__).parents[1]
STEPS = 6
# Neither the training pairs nor the photographs that are scored divide by the processes.
EVALS = {
    "messidor_like": 41,
    "fives_like": 30,
    "refuge_like": 17,
    "messidor_far": 9,
    "fives_far": 9,
    "refuge_far": 9,
}
# A model without convolutions, which compiles fast, with what depends on the rows' places.
LIGHT = [
    "--config.model.vision_layers=(1,)",
    "--config.model.vision_width=64",
    "--config.model.vision_patch_size=16",
    "--config.model.whiten_pairs=0",
    "--config.model.text_dropout=0.3",
    "--config.heat_maps=False",
]


def arguments(data_dir: Path, steps: int) -> list[str]:
    values = {
        "total_steps": steps,
        "global_batch_size": 16,
        "eval_batch_size": 16,
        "log_every": 1,
        "checkpoint_every": 3,
        "validation_batches": 1,
        "data.data_dir": data_dir,
        "data.dataset": "synthetic/synfundus_like-32px-203-s0",
        "data.image_size": 32,
        # At the quickstart's rate one device more or less can switch a unit at the edge of its
        # ReLU by rounding alone: with seed 0, 8 devices of one process differ by 5e-5 from 4, 2
        # or 1 of the same process in the sixth step; with seeds 1 and 2, by less than 1e-6.
        "optimizer.learning_rate": 1e-4,
        "model.embed_dim": 16,
        "model.vision_width": 8,
        "model.text_width": 16,
        "model.text_layers": 1,
        "model.text_heads": 2,
        "model.text_mlp_width": 16,
        "model.whiten_pairs": 48,
        "evals.idrid.source": "",
        **{
            f"evals.{name}.dataset": f"synthetic/{name}-32px-{count}-s1"
            for name, count in EVALS.items()
        },
    }
    return [f"--config.{key}={value}" for key, value in values.items()]


def run(
    processes: int,
    workdir: Path,
    data_dir: Path,
    *extra: str,
    steps: int = STEPS,
    order: str = "",
    config: str = "configs/quickstart.py",
) -> None:
    """Train with `processes` processes of as many devices as make eight.

    `order` says whose device stands at each place of the mesh, see `permuted.py`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // processes} "
        "--xla_backend_optimization_level=0",
    }
    command = [
        sys.executable,
        *(["tests/permuted.py", order] if order else ["-m", "vclip_jax.main"]),
        "--config",
        config,
        "--workdir",
        str(workdir),
        *(arguments(data_dir, steps) if steps else ()),
        *extra,
    ]
    started = []
    for index in range(processes):
        together = [
            f"--coordinator=127.0.0.1:{port}",
            f"--num_processes={processes}",
            f"--process_id={index}",
        ]
        started.append(
            subprocess.Popen(
                [*command, *(together if processes > 1 else [])],
                cwd=ROOT,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    outputs = [process.communicate(timeout=600)[0] for process in started]
    for process, output in zip(started, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]


def losses(workdir: Path) -> list[float]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    trained = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert len(trained) == sum("loss" in row for row in rows), "a step was written twice"
    return [trained[step] for step in sorted(trained)]


def evaluation(workdir: Path) -> dict[str, float]:
    """The figures of the last evaluation."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if "eval/validation/loss" in row][-1]
    return {key: value for key, value in last.items() if key.startswith("eval/")}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data_dir):
    workdir = tmp_path_factory.mktemp("alone")
    run(1, workdir, data_dir)
    return workdir


@pytest.fixture(scope="module")
def light_alone(tmp_path_factory, data_dir):
    workdir = tmp_path_factory.mktemp("light_alone")
    run(1, workdir, data_dir, *LIGHT, steps=2)
    return workdir


@pytest.mark.parametrize(("processes", "extra"), [(2, ()), (4, ()), (2, ("--config.mesh.fsdp=4",))])
def test_several_processes_are_as_one(alone, data_dir, tmp_path, processes, extra):
    run(processes, tmp_path, data_dir, *extra)
    assert len(losses(alone)) == STEPS
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=2e-5)
    expected = json.loads((alone / "zero_shot.json").read_text())
    scored = json.loads((tmp_path / "zero_shot.json").read_text())
    assert scored.keys() == expected.keys()
    assert {name: scored[name]["n"] for name in EVALS} == EVALS
    for name, entry in expected.items():
        assert abs(np.array(scored[name]["confusion"]) - entry["confusion"]).sum() <= 2
    mine, theirs = (
        json.loads((workdir / "retrieval.json").read_text()) for workdir in (tmp_path, alone)
    )
    assert mine["n"] == theirs["n"]


@pytest.mark.parametrize(
    ("order", "extra"),
    [
        ("0,1,0,1,0,1,0,1", ()),  # v4:2x2x2 and v5p:2x2x2
        ("1,0,0,1,1,1,0,0", ("--config.mesh.fsdp=2",)),
    ],
)
def test_a_mesh_in_any_order_is_as_one_in_order(light_alone, data_dir, tmp_path, order, extra):
    alone = light_alone
    run(2, tmp_path, data_dir, *LIGHT, *extra, steps=2, order=order)
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=2e-5)
    figures, expected = (evaluation(workdir) for workdir in (tmp_path, alone))
    for key in ("eval/validation/loss", "eval/test/loss"):
        assert figures[key] == pytest.approx(expected[key], rel=1e-4)
    for key, value in expected.items():
        assert figures[key] == pytest.approx(value, abs=0.1), key
    for name in EVALS:
        found, wanted = (
            predictions.load(predictions.path_of(workdir, name)) for workdir in (tmp_path, alone)
        )
        np.testing.assert_array_equal(found.hash, wanted.hash)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-3)
    shown, meant = (
        json.loads((workdir / "examples.json").read_text()) for workdir in (tmp_path, alone)
    )
    for name in EVALS:
        known = {entry["image"]: entry["label"] for entry in meant[name]}
        both = [entry for entry in shown[name] if entry["image"] in known]
        assert len(both) >= len(known) // 2
        assert all(entry["label"] == known[entry["image"]] for entry in both)


@pytest.mark.parametrize(("first", "then"), [(2, 4), (4, 1), (1, 2)])
def test_others_go_on_from_a_checkpoint(alone, data_dir, tmp_path, first, then):
    # A run that is cut off leaves a checkpoint and no end; fewer steps with the same schedule
    # would be another config, so the newer checkpoint is taken away instead.
    run(first, tmp_path, data_dir)
    shutil.rmtree(tmp_path / "checkpoints" / str(STEPS))
    (tmp_path / "zero_shot.json").unlink()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:3]))
    run(then, tmp_path, data_dir)
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=2e-5)
    assert (tmp_path / "zero_shot.json").exists()


def test_all_processes_know_the_figures_of_every_system(data_dir, tmp_path, portable_folder):
    run(
        2,
        tmp_path,
        data_dir,
        "--mode=eval",
        f"--config.systems.visionclip.weights={portable_folder}",
        # The tiny model reads Chinese alone.
        f"--config.systems.flair.weights={portable_folder}",
        "--config.systems.flair.prompts=zh",
        "--config.evals.fives.dataset=synthetic/fives_like-32px-30-s1",
        "--config.bootstrap_resamples=0",
        "--config.evals.fives.split=test",
        "--config.heat_maps=False",
        f"--config.data.data_dir={data_dir}",
        config="configs/table1.py:fives",
        steps=0,
    )
    table = json.loads((tmp_path / "table1.json").read_text())
    for name in ("flair", "visionclip"):  # the second one starts only after the first has its row
        assert table[name]["results"]["fives"]["n"] == 30


def test_half_a_description_of_the_processes_is_refused(tmp_path):
    completed = subprocess.run(
        [
            sys.executable,
            "-m",
            "vclip_jax.main",
            "--config",
            "configs/quickstart.py",
            "--workdir",
            str(tmp_path),
            "--num_processes=2",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1
    assert completed.stderr.splitlines()[-1] == (
        "error: --coordinator, --num_processes and --process_id go together"
    )
