"""SLURM: submission, the batch script's own requeueing."""

import os
import shutil
import signal
import subprocess

import pytest

from .conftest import eventually

RUN = ("--config=configs/visionclip.py", "--workdir=/scratch/my run")


@pytest.fixture
def cluster(launch):
    """A checkout that is installed."""
    python = launch.root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    return launch


def squeue(name="vclip"):
    user = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    return ["squeue", f"--user={user}", f"--name={name}", "--noheader", "--format=%i %T %R"]


def test_run_submits_one_process_per_gpu(cluster):
    assert cluster("slurm.sh", "run", *RUN, "--nodes=2", "--gpus=4", "--partition=gpu").code == 0
    sbatch = [
        "sbatch",
        "--job-name=vclip",
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--cpus-per-task=8",
        "--time=24:00:00",
        f"--chdir={cluster.root}",
        "--output=runs/.launch/vclip.log",
        "--partition=gpu",
        "--export=ALL",
        f"{cluster.root}/launch/slurm.sbatch",
        "--config",
        "configs/visionclip.py",
        "--workdir",
        "/scratch/my run",
    ]
    assert cluster.calls == [squeue(), sbatch]
    assert (cluster.root / "runs/.launch").is_dir()


def test_run_submits_one_process_per_node(cluster):
    cluster("slurm.sh", "resume", *RUN, "--processes=node", "--gpus=4", "--cpus-per-gpu=6")
    assert {"--ntasks-per-node=1", "--gpus-per-node=4", "--cpus-per-task=24"} <= set(
        cluster.calls[1]
    )


def test_a_queued_training_is_not_submitted_again(cluster):
    cluster.answer({"squeue": "7 PENDING (Resources)\n"})
    for command in ("run", "resume"):
        result = cluster("slurm.sh", command, *RUN)
        assert result.code == 0
        assert "7 PENDING" in result.err
    assert cluster.calls == [squeue()] * 2
    assert cluster("slurm.sh", "status").out == "7 PENDING (Resources)\n"


def test_delete_cancels_what_is_there(cluster):
    assert cluster("slurm.sh", "delete", "--name=n").code == 0
    assert cluster.calls == [squeue("n")]
    cluster.answer({"squeue": "7 RUNNING node1\n"})
    assert cluster("slurm.sh", "delete", "--name=n").code == 0
    assert cluster.calls[-1] == ["scancel", squeue()[1], "--name=n"]


def test_logs_show_the_last_lines_or_say_that_there_are_none(cluster):
    assert "no log yet" in cluster("slurm.sh", "logs").error
    log = cluster.root / "runs/.launch/vclip.log"
    log.parent.mkdir(parents=True)
    log.write_text("1\n2\n3\n")
    assert cluster("slurm.sh", "logs", "--lines=2").out == "2\n3\n"


def test_errors_say_what_to_do(cluster):
    cluster.answer({"squeue": ("", "slurm_load_jobs error: no controller\n", 1)})
    assert "no controller: run this on a login node" in cluster("slurm.sh", "run", *RUN).error
    cluster.answer({"sbatch": ("", "sbatch: error: invalid partition\n", 1)})
    assert "sinfo" in cluster("slurm.sh", "run", *RUN).error
    assert "gpu or node" in cluster("slurm.sh", "run", *RUN, "--processes=core").error
    assert "--time" in cluster("slurm.sh", "run", *RUN, "--time=tomorrow").error
    shutil.rmtree(cluster.root / ".venv")
    cluster.answer({})
    assert "'create' first" in cluster("slurm.sh", "run", *RUN).error


def test_the_headers_give_each_process_one_gpu_and_a_signal_before_the_end(launch):
    lines = (launch.root / "launch/slurm.sbatch").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    headers = dict(
        line.removeprefix("#SBATCH --").partition("=")[::2]
        for line in lines[:first]
        if line.startswith("#SBATCH")
    )
    assert lines[0].startswith("#!")
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]  # SLURM ignores these
    # jax.distributed: one process per GPU, and no GPU hidden from any of them.
    assert headers["ntasks-per-node"] == headers["gpus-per-node"]
    assert not {"gpus-per-task", "gres"} & set(headers)
    assert headers["signal"].startswith("B:USR1@")
    assert {"requeue", "open-mode", "time", "nodes", "cpus-per-task"} <= set(headers)


def batch(cluster, **environment):
    return subprocess.Popen(
        ["bash", "launch/slurm.sbatch", "--config", "c", "--workdir", "w x"],
        cwd=cluster.root,
        stdin=subprocess.DEVNULL,
        env=cluster.environment
        | {"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "8", "SLURM_GPUS_ON_NODE": "4"}
        | environment,
    )


SRUN = [
    "srun",
    "--kill-on-bad-exit=1",
    "--gpu-bind=none",
    "--cpus-per-task=8",
    ".venv/bin/python",
    "-m",
    "vclip_jax.main",
    "--distributed",
    "--config",
    "c",
    "--workdir",
    "w x",
]


def test_batch_script_runs_and_passes_the_exit_code_on(cluster):
    cluster.answer({"srun": ("", "", 3)})
    assert batch(cluster).wait(20) == 3
    assert cluster.calls == [SRUN]


def test_one_process_per_node_owns_all_gpus(cluster):
    srun = cluster.tools / "srun"
    srun.write_text('#!/bin/sh\necho "$JAX_LOCAL_DEVICE_IDS" > devices\n')
    assert batch(cluster, VCLIP_PROCESSES="node").wait(20) == 0
    assert (cluster.root / "devices").read_text() == "0,1,2,3\n"
    assert batch(cluster).wait(20) == 0
    assert (cluster.root / "devices").read_text() == "\n"


def test_too_little_memory_is_not_queued_again_even_where_the_time_is_up(cluster):
    pid = cluster.root / "pid"
    (cluster.tools / "srun").write_text(
        f"#!/bin/bash\ntrap 'exit 12' TERM\necho $$ > '{pid}'\nwhile :; do sleep 0.05; done\n"
    )
    (cluster.tools / "scancel").write_text(f"#!/bin/bash\nkill -TERM \"$(<'{pid}')\"\n")
    job = batch(cluster)
    eventually(lambda: pid.exists() and pid.read_text())
    os.kill(job.pid, signal.SIGUSR1)
    assert job.wait(20) == 12
    assert cluster.calls == []


def test_the_job_reads_secrets_itself(cluster):
    file = cluster.root.parent / "my secrets"
    file.write_text("A=it's b\n")
    file.chmod(0o600)
    for name, line in (("sbatch", '"$VCLIP_ENV_FILE|$A"'), ("srun", '"$A"')):
        (cluster.tools / name).write_text(f"#!/bin/sh\necho {line} >'{cluster.root}/{name}'\n")
    assert cluster("slurm.sh", "run", *RUN, "--env-file=my secrets").code == 0
    assert (cluster.root / "sbatch").read_text() == f"{file}|\n"  # the path alone
    assert batch(cluster, VCLIP_ENV_FILE=str(file)).wait(20) == 0
    assert (cluster.root / "srun").read_text() == "it's b\n"
    (cluster.root / "srun").unlink()
    file.chmod(0o644)
    assert batch(cluster, VCLIP_ENV_FILE=str(file)).wait(20) == 1
    assert not (cluster.root / "srun").exists()
    assert cluster("slurm.sh", "run", *RUN, "--env-file=", VCLIP_ENV_FILE=str(file)).code == 0
    assert (cluster.root / "sbatch").read_text() == "|\n"


@pytest.mark.parametrize("ended", ["while scancel runs", "later"])
@pytest.mark.parametrize(("restarts", "requeued"), [("0", True), ("2", False)])
def test_when_the_time_is_up_the_steps_end_and_the_job_queues_again(
    cluster, restarts, requeued, ended
):
    pid = cluster.root / "pid"
    (cluster.tools / "srun").write_text(
        f"#!/bin/bash\ntrap 'exit 0' TERM\necho $$ > '{pid}'\nwhile :; do sleep 0.05; done\n"
    )
    record = (cluster.tools / "scancel").read_text()
    (cluster.tools / "scancel-record").write_text(record)
    (cluster.tools / "scancel-record").chmod(0o755)
    (cluster.tools / "scancel").write_text(
        f'#!/bin/bash\nscancel-record "$@"\nkill -TERM "$(<\'{pid}\')"\n'
        + (f"while kill -0 $(<'{pid}') 2>&-; do sleep 0.02; done\n" if ended != "later" else "")
    )
    job = batch(cluster, SLURM_RESTART_COUNT=restarts, VCLIP_MAX_RESTARTS="2")
    eventually(lambda: pid.exists() and pid.read_text())
    os.kill(job.pid, signal.SIGUSR1)
    assert job.wait(20) == 0
    expected = [["scancel-record", "--signal=TERM", "7"], ["scontrol", "requeue", "7"]]
    assert cluster.calls == expected[: 1 + requeued]
