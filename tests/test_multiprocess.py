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

pytestmark = pytest.mark.multiprocess

ROOT = Path(__file__).parents[1]
STEPS = 6
# Neither the training pairs nor the photographs that are scored divide by the processes.
EVALS = {"messidor_like": 41, "fives_like": 30, "refuge_like": 17}


def arguments(data_dir: Path, steps: int) -> list[str]:
    values = {
        "total_steps": steps, "global_batch_size": 16, "eval_batch_size": 16, "log_every": 1,
        "checkpoint_every": 3, "validation_batches": 1, "data.data_dir": data_dir,
        "data.dataset": "synthetic/synfundus_like-32px-203-s0", "data.image_size": 32,
        "model.embed_dim": 16, "model.vision_width": 8, "model.text_width": 16,
        "model.text_layers": 1, "model.text_heads": 2, "model.text_mlp_width": 16,
        "model.whiten_pairs": 48, "evals.idrid.source": "",
        **{f"evals.{name}.dataset": f"synthetic/{name}-32px-{count}-s1"
           for name, count in EVALS.items()},
    }  # fmt: skip
    return [f"--config.{key}={value}" for key, value in values.items()]


def run(processes: int, workdir: Path, data_dir: Path, *extra: str, steps: int = STEPS) -> None:
    """Train with `processes` processes of as many devices as make eight."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={8 // processes} "
        "--xla_backend_optimization_level=0",
    }
    command = [
        sys.executable, "-m", "vclip_jax.main", "--config", "configs/quickstart.py",
        "--workdir", str(workdir), *arguments(data_dir, steps), *extra,
    ]  # fmt: skip
    started = []
    for index in range(processes):
        together = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={processes}",
                    f"--process_id={index}"]  # fmt: skip
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
    outputs = [process.communicate(timeout=300)[0] for process in started]
    for process, output in zip(started, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]


def losses(workdir: Path) -> list[float]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    trained = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert len(trained) == sum("loss" in row for row in rows), "a step was written twice"
    return [trained[step] for step in sorted(trained)]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def alone(tmp_path_factory, data_dir):
    workdir = tmp_path_factory.mktemp("alone")
    run(1, workdir, data_dir)
    return workdir


@pytest.mark.parametrize(("processes", "extra"), [(2, ()), (4, ()), (2, ("--config.mesh.fsdp=4",))])
def test_several_processes_are_as_one(alone, data_dir, tmp_path, processes, extra):
    run(processes, tmp_path, data_dir, *extra)
    assert len(losses(alone)) == STEPS
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=2e-5)
    expected = json.loads((alone / "zero_shot.json").read_text())
    scored = json.loads((tmp_path / "zero_shot.json").read_text())
    assert {name: entry["n"] for name, entry in scored.items()} == EVALS
    for name, entry in expected.items():
        assert abs(np.array(scored[name]["confusion"]) - entry["confusion"]).sum() <= 2
    mine, theirs = (
        json.loads((workdir / "retrieval.json").read_text()) for workdir in (tmp_path, alone)
    )
    assert mine["n"] == theirs["n"]


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


def test_half_a_description_of_the_processes_is_refused(tmp_path):
    completed = subprocess.run(
        [sys.executable, "-m", "vclip_jax.main", "--config", "configs/quickstart.py",
         "--workdir", str(tmp_path), "--num_processes=2"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert completed.returncode == 1
    assert completed.stderr.splitlines()[-1] == (
        "error: --coordinator, --num_processes and --process_id go together"
    )
