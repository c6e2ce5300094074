"""How a process ends: with one line, at once, and with a code that says why."""

import errno
import fcntl
import os
import subprocess
import sys
import time

import jax
import pytest

from vclip_jax.devices import processes

SCRIPT = """
import threading, time
from vclip_jax.devices import processes
threading.Thread(target=time.sleep, args=[60]).start()  # what a failed save leaves behind
with processes.ending_together():
    {body}
print("done", end="")
processes.leave(3)
"""


def run(body: str) -> tuple[int, str, str]:
    completed = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body=body)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return completed.returncode, completed.stdout, completed.stderr


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", (3, "done", "")),
        ("raise ValueError('a is wrong')", (1, "", "error: a is wrong\n")),
        ("raise OSError(28, 'No space', 'f')", (1, "", "error: [Errno 28] No space: 'f'\n")),
    ],
)
def test_a_process_ends_at_once_whatever_its_threads_do(body, expected):
    started = time.monotonic()
    assert run(body) == expected
    assert time.monotonic() - started < 40


HOLDER = """
import sys, time
from pathlib import Path
from vclip_jax.devices import processes
with processes.alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_a_workdir_is_refused_while_the_first_lives(tmp_path):
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        with (
            pytest.raises(ValueError, match=rf"in use by process {first.pid} on .*--workdir"),
            processes.alone_in(tmp_path),
        ):
            pass
        first.kill()
        first.wait()
        with processes.alone_in(tmp_path):  # the kernel has given it back
            assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_a_run_on_another_machine_is_waited_for_and_then_named(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "OTHER_HOST_SECONDS", 0.5)
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "held\n"
        (tmp_path / ".lock").write_text("process 7 on elsewhere")
        with (
            pytest.raises(ValueError, match="process 7 on elsewhere"),
            processes.alone_in(tmp_path),
        ):
            pass
        first.kill()


def test_a_lock_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "own").write_text("own")
    (tmp_path / ".lock").symlink_to("own")
    with (
        pytest.raises(ValueError, match=r"\.lock is a symbolic link"),
        processes.alone_in(tmp_path),
    ):
        pass
    assert (tmp_path / "own").read_text() == "own"


def test_where_nothing_can_be_locked_a_run_goes_on_and_says_so(tmp_path, monkeypatch, caplog):
    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", unsupported)
    with processes.alone_in(tmp_path):
        assert "cannot be locked (No locks available)" in caplog.text


# Errors in the words of JAX, XLA, TensorStore and the coordination service.
HEARTBEAT = (
    "UNAVAILABLE: Task /job:jax_worker/replica:0/task:0 heartbeat timeout. This indicates that the "
    "remote task has failed, got preempted, or crashed unexpectedly."
)
NCCL = (
    "INTERNAL: external/xla/xla/service/gpu/nccl_utils.cc:216: NCCL operation async_err failed: "
    "remote process exited or there was a network error"
)
TPU_COMPILE = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
    "Used 21.95G of 15.48G hbm. Exceeded hbm capacity by 6.47G.\n\nTotal hbm usage >= 22.47G:\n"
    "    reserved        530.00M\n    program          21.95G"
)
TPU_ALLOCATE = (
    "RESOURCE_EXHAUSTED: Error allocating device buffer: Attempting to allocate 196.00M. That was "
    "not possible. There are 134.44M free.; (1x0x0_HBM0)"
)
GPU_EXECUTE = (
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 4770354232 bytes.\n"
    "BufferAssignment OOM Debugging.\nBufferAssignment stats:\n"
    "             parameter allocation:  372.76MiB"
)
GPU_REQUEST = (
    "RESOURCE_EXHAUSTED: Failed to allocate request for 2.99GiB (3206250496B) on device ordinal 0"
)
NCCL_MEMORY = (
    "INTERNAL: NCCL operation ncclCommInitRank(&comm, nranks, id, rank) failed: unhandled cuda "
    "error. Last NCCL warning(error) log entry 'Cuda failure 2 'out of memory''."
)
CPU = "RESOURCE_EXHAUSTED: Out of memory allocating 1099511627776 bytes."
DISK = (
    'RESOURCE_EXHAUSTED: Error writing "a/0": Failed to write 9 bytes to file 10: No space left '
    "on device [os_error_code='28']"
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection reset by peer"), "lost"),
        (RuntimeError("while saving\nDEADLINE_EXCEEDED: Barrier timed out. Id: x"), "lost"),
        (jax.errors.JaxRuntimeError(HEARTBEAT), "lost"),
        (jax.errors.JaxRuntimeError(NCCL), "lost"),
        (
            jax.errors.JaxRuntimeError(
                "FAILED_PRECONDITION: Buffer Definition Event: Gloo all-reduce "
                "failed: Connection closed by peer [10.0.0.2]:1"
            ),
            "lost",
        ),
        (jax.errors.JaxRuntimeError("ABORTED: the coordinator was restarted"), "lost"),
        (jax.errors.JaxRuntimeError(TPU_COMPILE), "memory"),
        (ValueError(TPU_ALLOCATE), "memory"),
        (jax.errors.JaxRuntimeError(GPU_EXECUTE), "memory"),
        (jax.errors.JaxRuntimeError(GPU_REQUEST), "memory"),
        (jax.errors.JaxRuntimeError(NCCL_MEMORY), "memory"),
        (jax.errors.JaxRuntimeError(CPU), "memory"),
        (MemoryError("Unable to allocate 1.00 TiB for an array"), "memory"),
        (jax.errors.JaxRuntimeError("INTERNAL: ptxas exited with non-zero error code 2"), "other"),
        (jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Argument does not match"), "other"),
        (ValueError(DISK), "other"),
        (OSError(28, "No space left on device"), "other"),
        (ValueError("RESOURCE_EXHAUSTED: Received message larger than max"), "other"),
    ],
)
def test_a_lost_process_and_a_full_memory_are_told_from_other_trouble(monkeypatch, error, kind):
    assert not processes.is_lost_peer(error)  # there is no other process
    assert processes.is_out_of_memory(error) == (kind == "memory")
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    assert processes.is_lost_peer(error) == (kind == "lost")


def test_out_of_memory_ends_with_its_own_code_the_compilers_table_and_advice():
    code, _, told = run(f"raise RuntimeError({TPU_COMPILE!r})")
    assert code == processes.OUT_OF_MEMORY
    *table, last = told.splitlines()
    assert "    program          21.95G" in table
    assert last.startswith("error: a device has too little memory (RESOURCE_EXHAUSTED: XLA:TPU")
    for key in ("global_batch_size", "micro_batches", "remat.image", "mesh.fsdp"):
        assert f"config.{key}" in last
    assert "Traceback" not in told


@pytest.mark.slow
def test_xla_words_a_full_memory_so():
    body = "import jax; jax.numpy.zeros((1 << 45,)).block_until_ready()"
    code, _, told = run(body)
    assert code == processes.OUT_OF_MEMORY, told
