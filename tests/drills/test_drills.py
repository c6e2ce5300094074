"""The drills, shortened: a few faults, none of which costs anything."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vclip_jax.drills import runs

ROOT = Path(__file__).parents[2]


def drill(*arguments: str, timeout: float = 1500) -> dict:
    completed = subprocess.run(
        [sys.executable, "-m", "vclip_jax.drills", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout[-3000:] + completed.stderr[-3000:]
    return json.loads(completed.stdout.splitlines()[-1])


@pytest.mark.slow
def test_damaged_checkpoints_are_recognised():
    result = drill("corrupt", "--times=6")
    assert (result["times"], result["recognised"], result["wrong"]) == (6, 6, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kill", "preempt"])
def test_a_run_that_is_ended_at_random_ends_like_one_left_in_peace(name):
    assert drill(name, "--times=2")["identical"] == 2


@pytest.mark.slow
def test_a_run_on_a_mixture_that_is_killed_ends_like_one_left_in_peace(tmp_path):
    drill = runs.Drill(tmp_path)
    words = (
        "--config.data.dataset=",
        "--config.data.mixture.synthetic/synfundus_like-32px-240-s0=3",
        "--config.data.mixture.synthetic/messidor_like-32px-40-s1:test=1",
        "--config.data.balance=finding",
        "--config.epochs=0.5",
    )
    drill.finish(runs.REFERENCE, *words)
    steps = json.loads((drill.workdir(runs.REFERENCE) / "config.json").read_text())["total_steps"]
    with drill.running("killed", *words) as processes:
        runs.wait_for_step(drill.workdir("killed"), steps // 2, processes)
        runs.send(processes, signal.SIGKILL)
        runs.exit_codes(processes)
    assert 0 < runs.trained(drill.workdir("killed")) < steps
    drill.finish("killed", *words)
    assert runs.trained(drill.workdir("killed")) == steps
    assert runs.differences(drill.workdir(runs.REFERENCE), drill.workdir("killed")) == []
    said = drill.log("killed").read_text()
    counted = [line for line in said.splitlines() if line.startswith("examples: ")]
    assert counted == [
        line
        for line in drill.log(runs.REFERENCE).read_text().splitlines()
        if line.startswith("examples: ")
    ]
    assert len(counted) == 1


@pytest.mark.slow
def test_a_full_disk_costs_nothing_that_was_saved():
    result = drill("disk-full", "--times=3")
    assert (result["recognised"], result["intact"], result["identical"]) == (3, 3, 3)


@pytest.mark.multiprocess
@pytest.mark.parametrize("name", ["kill", "preempt"])
def test_of_several_processes_too(name):
    assert drill(name, "--times=2", "--processes=2")["identical"] == 2


@pytest.mark.multiprocess
def test_a_dead_process_ends_the_others():
    result = drill("peer-death", "--times=3")
    assert (result["ended"], result["identical"]) == (3, 3)


def test_a_folder_that_is_in_use_is_refused(tmp_path):
    (tmp_path / "a").write_text("")
    completed = subprocess.run(
        [sys.executable, "-m", "vclip_jax.drills", "kill", "--out", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 1
    assert completed.stderr.startswith("error: --out=")


def finished(workdir: Path, *rows: dict, fingerprint: str = "a") -> Path:
    position = workdir / "checkpoints/8/position"
    position.mkdir(parents=True)
    (position / "metadata").write_text(json.dumps({"arrays": {"w": fingerprint}}))
    for name in ("zero_shot.json", "retrieval.json", "examples.json"):
        (workdir / name).write_text("{}")
    (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return workdir


def test_runs_differ_in_what_counts_and_not_in_the_time(tmp_path):
    one = finished(tmp_path / "1", {"step": 1, "loss": 2.0, "time": 1.0})
    same = finished(tmp_path / "2", {"step": 1, "loss": 2.0, "time": 9.0})
    other = finished(tmp_path / "3", {"step": 1, "loss": 2.0 + 1e-15}, fingerprint="b")
    twice = finished(tmp_path / "4", {"step": 1, "loss": 2.0}, {"step": 1, "loss": 2.0})
    assert runs.differences(one, same) == []
    assert runs.differences(one, other) == ["metrics.jsonl", "the last checkpoint"]
    assert runs.differences(one, twice) == ["metrics.jsonl"]
