"""One host: the worker's background run, here and through ssh."""

import shlex
import subprocess

import pytest

from .conftest import eventually

RUN = ("--config=c", "--workdir=w x")


@pytest.fixture
def host(launch):
    """A checkout whose python says what it is given, and ends when it is told to."""
    python = launch.root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        "#!/bin/bash\ntrap 'echo saved; exit 3' TERM\nprintf '%s|' \"$@\" \"$HF_HOME\"; echo\n"
        "while [[ ! -e end ]]; do sleep 0.02; done\n"
    )
    python.chmod(0o755)
    yield launch
    (launch.root / "end").touch()
    eventually(lambda: launch("single.sh", "status").out != "running\n")


def test_a_run_in_the_background(host):
    assert host("single.sh", "status").out == "absent\n"
    assert host("single.sh", "logs").error == "error: vclip has no log here: 'run' it first"
    assert host("single.sh", "run", *RUN, "--env=HF_HOME=a b").code == 0
    assert host("single.sh", "status").out == "running\n"
    assert "running already" in host("single.sh", "resume", *RUN).err
    assert host("single.sh", "status", "--name=other").out == "absent\n"
    expected = "-m|vclip_jax.main|--config|c|--workdir|w x|a b|\n"
    eventually(lambda: host("single.sh", "logs").out == expected)
    (host.root / "end").touch()
    eventually(lambda: host("single.sh", "status").out == "exit 0\n")
    (host.root / "end").unlink()

    # Stopped: the training may save, its exit code is kept; stopped again: nothing.
    assert host("single.sh", "resume", *RUN).code == 0
    eventually(lambda: host("single.sh", "logs").out.count("main") == 2)
    assert host("single.sh", "delete").code == 0
    assert host("single.sh", "status").out == "exit 3\n"
    assert host("single.sh", "logs").out.endswith("saved\n")
    assert host("single.sh", "delete").code == 0


def test_secrets_reach_the_training_by_standard_input(host):
    file = host.root.parent / "secrets"
    value = """it's "odd" $(touch x) \\ = #"""
    file.write_text(f"HF_HOME={value}\n")
    file.chmod(0o600)
    assert host("single.sh", "run", *RUN, "--env-file", file).code == 0
    eventually(lambda: host("single.sh", "logs").out.count("|\n") == 1)
    assert host("single.sh", "logs").out == f"-m|vclip_jax.main|--config|c|--workdir|w x|{value}|\n"
    processes = subprocess.run(["ps", "axww", "-o", "args="], capture_output=True, text=True)
    # Other tests' processes hold quotes too: only the whole value is this secret.
    assert value not in processes.stdout
    assert "running already" in host("single.sh", "resume", *RUN, "--env-file", file).err


def test_secrets_go_through_ssh_by_standard_input(launch):
    file = launch.root.parent / "secrets"
    file.write_text("# comment\nA=b c\nD=e")
    file.chmod(0o600)
    assert launch("single.sh", "run", *RUN, "--host=box", "--env-file", file, "--env=F=g").code == 0
    [call] = launch.calls
    assert shlex.split(call[2])[2:6] == ["start", "vclip", "-", "F=g"]
    assert launch.stdin(0) == b"A=b c\nD=e\n"


def test_a_number_that_another_program_has_is_not_ours(host):
    folder = host.root / "runs/.launch"
    folder.mkdir(parents=True)
    (folder / "vclip.pid").write_text("1\n")
    assert host("single.sh", "status").out == "absent\n"
    assert host("single.sh", "delete").code == 0


def test_another_host_through_ssh(launch):
    at = ("--host=me@box", "--folder=my code")
    for command in ("create", "run", "status", "logs", "delete"):
        assert launch("single.sh", command, *at, *RUN, "--platform=cuda").code == 0
    worker = ["bash", "my code/launch/worker.sh"]
    assert {tuple(call[:2]) for call in launch.calls} == {("ssh", "me@box")}
    assert launch.stdin(0)[:2] == b"\x1f\x8b"
    assert [shlex.split(call[2]) for call in launch.calls[1:]] == [
        [*worker, "install", "cuda"],
        [*worker, "start", "vclip", "--", "--config", "c", "--workdir", "w x"],
        [*worker, "status", "vclip"],
        [*worker, "log", "vclip", "50"],
        [*worker, "stop", "vclip"],
    ]


def test_a_copy_replaces_a_copy_and_nothing_else(launch):
    launch("single.sh", "create", "--host=box", "--folder=my code")
    home = launch.root.parent / "home"
    home.mkdir()

    def unpack():
        return subprocess.run(
            ["bash", "-c", launch.calls[0][2]], cwd=home, input=launch.stdin(0), capture_output=True
        )

    copy = home / "my code"
    assert unpack().returncode == 0
    assert (copy / "launch/worker.sh").exists()
    for file in ("old.py", "runs/w/metrics.jsonl", ".venv/x", "data/x"):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (copy / file).write_text("")
    assert unpack().returncode == 0
    assert not (copy / "old.py").exists()
    assert all((copy / file).exists() for file in ("runs/w/metrics.jsonl", ".venv/x", "data/x"))

    (copy / "runs/.launch/copy").unlink()
    (copy / "theirs").write_text("")
    refused = unpack()
    assert refused.returncode == 1
    assert b"holds other files" in refused.stderr
    assert (copy / "theirs").exists()


def test_errors_say_what_to_do(launch):
    launch.answer({"ssh": ("", "Connection refused\n", 255)})
    assert "must work without a question" in launch("single.sh", "create", "--host=box").error
    assert "cpu, cuda or tpu" in launch("single.sh", "create", "--platform=x").error
    launch.git("init", "--quiet")
    (launch.root / ".git").rename(launch.root / "no-git")
    assert "not a git checkout" in launch("single.sh", "create", "--host=box").error


def test_worker_has_no_other_commands(launch):
    assert launch("worker.sh", "touch", launch.root / "x").error
    assert not (launch.root / "x").exists()
