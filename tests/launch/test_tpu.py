"""Cloud TPU: the exact gcloud commands, preemption, idempotence."""

import shlex
import shutil
import subprocess

import pytest

from .conftest import eventually

RUN = ("--config=configs/visionclip.py", "--workdir=/mnt/b/w")
SLICE = ("--zone=us-x1-a", "--accelerator=v5litepod-16")
ABSENT = ("", "ERROR: (gcloud) NOT_FOUND: Resource was not found\n", 1)
START = "worker.sh start"


def gcloud(verb, *what, zone="us-x1-a"):
    return ["gcloud", "compute", "tpus", "queued-resources", verb, *what, f"--zone={zone}"]


DESCRIBE = gcloud("describe", "vclip", "--format=value(state.state)")
CREATE = gcloud(
    "create",
    "vclip",
    "--node-id=vclip",
    "--accelerator-type=v5litepod-16",
    "--runtime-version=v2-alpha-tpuv5-lite",
)
DELETE = gcloud("delete", "vclip", "--force", "--quiet")


def verbs(launch):
    """The commands in short: the verb, or what is done on the workers."""
    short = []
    for call in launch.calls:
        command = call[-2].removeprefix("--command=") if call[4] == "ssh" else ""
        word = next(
            (w for w in ("status", "install", "start", "log") if f"worker.sh {w}" in command), ""
        )
        short.append(f"ssh {word}" if command else call[4])
    return short


def test_create_asks_once(launch):
    launch.answer({"describe": ABSENT})
    assert launch("tpu.sh", "create", *SLICE).code == 0
    assert launch.calls == [DESCRIBE, CREATE]

    launch.forget()
    launch.answer({"describe": "WAITING_FOR_RESOURCES\n"})
    result = launch("tpu.sh", "create", *SLICE)
    assert result.code == 0
    assert "WAITING_FOR_RESOURCES" in result.err
    assert launch.calls == [DESCRIBE]


@pytest.mark.parametrize("state", ["SUSPENDED", "PREEMPTED", "FAILED"])
def test_create_replaces_what_was_lost(launch, state):
    launch.answer({"describe": ["SUSPENDING\n", f"{state}\n"]})
    assert launch("tpu.sh", "create", *SLICE).code == 0
    assert launch.calls == [DESCRIBE, DESCRIBE, DELETE, CREATE]


def test_create_of_several_spot_slices(launch):
    launch.answer({"describe": ABSENT})
    launch(
        "tpu.sh",
        "create",
        "--name=big",
        "--zone=z",
        "--project=p",
        "--accelerator=v6e-64",
        "--node-count=4",
        "--spot",
        "--service-account=a@p.iam.gserviceaccount.com",
    )
    assert launch.calls[1] == [
        *gcloud(
            "create",
            "big",
            "--node-count=4",
            "--node-prefix=big",
            "--accelerator-type=v6e-64",
            "--runtime-version=v2-alpha-tpuv6e",
            "--spot",
            "--service-account=a@p.iam.gserviceaccount.com",
            zone="z",
        ),
        "--project=p",
    ]


def test_run_waits_copies_installs_starts_and_watches(launch):
    launch.answer(
        {
            "describe": ["PROVISIONING\n", "PROVISIONING\n", "ACTIVE\n"],
            "worker.sh status": ["absent\n", "running\n", "exit 0\n"],
        }
    )
    (launch.root / "new file.py").write_text("new")
    (launch.root / "gone.py").write_text("gone")
    launch.git("add", "gone.py")
    (launch.root / "gone.py").unlink()
    (launch.root / ".venv").mkdir()
    (launch.root / ".venv" / "ignored").write_text("")

    result = launch("tpu.sh", "run", *SLICE, *RUN, "--env=A=b c")
    assert result.code == 0, result.err
    archive = launch.root / "runs/.launch/vclip.tgz"
    everywhere = ("--node=all", "--worker=all")
    look = "bash vclip/launch/worker.sh status vclip 2>/dev/null || echo absent"
    status = gcloud("ssh", "vclip", "--node=0", "--worker=0", f"--command={look}")
    calls = launch.calls
    assert calls[:4] == [DESCRIBE, DESCRIBE, DESCRIBE, status]
    assert calls[4] == gcloud("scp", str(archive), "vclip:vclip.tgz", *everywhere)
    assert calls[5][:8] == gcloud("ssh", "vclip", *everywhere)[:8]
    assert calls[5][8].endswith("&& tar -xzf ../vclip.tgz && bash launch/worker.sh install tpu")
    start = "bash vclip/launch/worker.sh start vclip 'A=b c' -- --config configs/visionclip.py"
    assert calls[6] == gcloud(
        "ssh",
        "vclip",
        *everywhere,
        f"--command={start} --workdir /mnt/b/w --distributed --preempted_exit_code=75",
    )
    assert calls[7:] == [DESCRIBE, status, DESCRIBE, status]
    names = subprocess.run(["tar", "-tzf", archive], capture_output=True, text=True).stdout.split(
        "\n"
    )
    assert {"new file.py", "launch/worker.sh"} <= set(names)
    assert not {"gone.py", ".venv/ignored"} & set(names)


def test_secrets_are_copied_as_a_file_that_is_read_once(launch):
    launch.answer({"describe": "ACTIVE\n", "worker.sh status": ["absent\n", "exit 0\n"]})
    source = launch.root.parent / "secrets"
    source.write_text("A=it's b\nC=d")
    source.chmod(0o600)
    # What is copied is gone after the run: the stand-in keeps it, as scp does, with its mode.
    tool = launch.tools / "gcloud"
    (launch.tools / "gcloud-record").write_text(
        tool.read_text().replace("os.path.basename(sys.argv[0])", '"gcloud"')
    )
    (launch.tools / "gcloud-record").chmod(0o755)
    tool.write_text(
        '#!/bin/bash\n[[ $5 != *.env ]] || cp -p "$5" "$(dirname "$0")/copied"\n'
        'exec gcloud-record "$@"\n'
    )
    assert launch("tpu.sh", "run", *SLICE, *RUN, "--env-file", source).code == 0
    copied = launch.tools / "copied"
    assert copied.read_text() == "A=it's b\nC=d\n"
    assert copied.stat().st_mode & 0o777 == 0o600
    assert not (launch.root / "runs/.launch/vclip.env").exists()
    assert verbs(launch)[2:6] == ["ssh status", "scp", "ssh install", "scp"]
    assert "vclip:vclip.env" in launch.calls[5]

    # What is done on a worker: started with them, and the file is gone.
    home = launch.root.parent / "home"
    shutil.copytree(launch.root / "launch", home / "vclip/launch")
    python = home / "vclip/.venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "$A|$C" >got\n')
    python.chmod(0o755)
    (home / "vclip.env").write_text(copied.read_text())
    command = launch.calls[6][8].removeprefix("--command=")
    assert subprocess.run(["bash", "-c", command], cwd=home).returncode == 0
    assert not (home / "vclip.env").exists()
    eventually((home / "vclip/runs/.launch/vclip.exit").exists)
    assert (home / "vclip/got").read_text() == "it's b|d\n"


def test_a_dry_run_prints_what_a_run_does(launch):
    launch.answer(
        {"describe": ["SUSPENDED\n", "ACTIVE\n"], "worker.sh status": ["absent\n", "exit 0\n"]}
    )
    arguments = ("resume", *SLICE, *RUN, "--spot", "--config.seed=1")
    launch("tpu.sh", *arguments)
    printed = launch("tpu.sh", *arguments, "--dry-run").out.splitlines()
    assert [
        shlex.split(line.split("  # ")[0]) for line in printed if line[0] != "#"
    ] == launch.calls


def test_a_preempted_slice_is_replaced_and_the_training_goes_on(launch):
    launch.answer(
        {
            "describe": [
                "ACTIVE\n",
                "ACTIVE\n",
                "ACTIVE\n",
                "SUSPENDING\n",
                "SUSPENDED\n",
                "WAITING_FOR_RESOURCES\n",
                "ACTIVE\n",
            ],
            "worker.sh status": ["absent\n", "running\n", "absent\n", "exit 0\n"],
        }
    )
    result = launch("tpu.sh", "run", *SLICE, *RUN, "--spot")
    assert result.code == 0, result.err
    assert "restart 1 of 20" in result.err
    began = ["ssh status", "scp", "ssh install", "ssh start"]
    assert verbs(launch) == [
        "describe",
        "describe",
        *began,
        "describe",
        "ssh status",
        "describe",
        "describe",
        "delete",
        "create",
        "describe",
        "describe",
        *began,
        "describe",
        "ssh status",
    ]


def test_restarts_are_bounded(launch):
    launch.answer({"describe": "SUSPENDED\n"})
    result = launch("tpu.sh", "run", *SLICE, *RUN, "--max-restarts=2")
    assert "lost 3 times" in result.error
    assert "resume" in result.error
    assert verbs(launch).count("create") == 2
    assert verbs(launch).count("delete") == 2


def test_processes_that_die_of_a_preemption_are_no_failure(launch):
    launch.answer(
        {
            "describe": [
                "ACTIVE\n",
                "ACTIVE\n",
                "ACTIVE\n",
                "SUSPENDED\n",
                "SUSPENDED\n",
                "ACTIVE\n",
            ],
            "worker.sh status": ["absent\n", "exit 134\n", "absent\n", "exit 0\n"],
        }
    )
    assert launch("tpu.sh", "run", *SLICE, *RUN).code == 0
    assert verbs(launch).count("create") == 1


def test_a_training_that_fails_ends_the_run(launch):
    launch.answer({"describe": "ACTIVE\n", "worker.sh status": ["absent\n", "exit 1\n"]})
    result = launch("tpu.sh", "run", *SLICE, *RUN)
    assert "exit 1" in result.error
    assert "logs" in result.error
    assert "delete" not in verbs(launch)


def test_too_little_memory_ends_the_run_at_once(launch):
    launch.answer({"describe": "ACTIVE\n", "worker.sh status": ["absent\n", "exit 12\n"]})
    result = launch("tpu.sh", "run", *SLICE, *RUN)
    assert result.code == 1
    assert "too little memory" in result.error
    assert not {"delete", "create"} & set(verbs(launch))


def test_a_rebooted_worker_is_started_again(launch):
    absent = "absent\n"
    launch.answer(
        {"describe": "ACTIVE\n", "worker.sh status": [absent, absent, absent, "exit 0\n"]}
    )
    assert launch("tpu.sh", "run", *SLICE, *RUN).code == 0
    assert verbs(launch).count("ssh start") == 2
    assert "create" not in verbs(launch)


def test_a_running_training_is_watched_rather_than_started(launch):
    launch.answer({"describe": "ACTIVE\n", "worker.sh status": ["running\n", "exit 0\n"]})
    assert launch("tpu.sh", "resume", *SLICE, *RUN).code == 0
    assert verbs(launch) == ["describe", "describe", "ssh status", "describe", "ssh status"]


def test_detach_returns_after_the_start(launch):
    launch.answer({"describe": "ACTIVE\n", "worker.sh status": "absent\n"})
    assert launch("tpu.sh", "run", *SLICE, *RUN, "--detach").code == 0
    assert verbs(launch)[-1] == "ssh start"


def test_run_wants_a_slice_and_resume_makes_one(launch):
    launch.answer({"describe": ABSENT})
    assert "create" in launch("tpu.sh", "run", *SLICE, *RUN).error
    assert launch.calls == [DESCRIBE]

    launch.answer({"describe": [ABSENT, "ACTIVE\n"], "worker.sh status": ["absent\n", "exit 0\n"]})
    launch.forget()
    assert launch("tpu.sh", "resume", *SLICE, *RUN).code == 0
    assert verbs(launch)[:2] == ["describe", "create"]


def test_errors_are_one_line_and_say_what_to_do(launch):
    launch.answer({"describe": ("", "WARNING: x\nERROR: token has expired\n\n", 1)})
    error = launch("tpu.sh", "run", *SLICE, *RUN).error
    assert "token has expired: check --zone" in error
    assert launch("tpu.sh", "delete", *SLICE).error == error

    launch.answer({"describe": ABSENT, " create ": ("", "no quota\n", 1)})
    assert "quota" in launch("tpu.sh", "create", *SLICE).error

    launch.answer({"describe": "FAILED\n"})
    assert "has failed" in launch("tpu.sh", "run", *SLICE, *RUN).error

    launch.answer({"describe": "ACTIVE\n", "scp": ("", "", 255)})
    assert "could not be prepared" in launch("tpu.sh", "run", *SLICE, *RUN).error

    launch.answer(
        {"describe": "ACTIVE\n", "worker.sh status": ["running\n", ("", "timed out\n", 255)]}
    )
    assert "timed out" in launch("tpu.sh", "run", *SLICE, *RUN).error


def test_a_preemption_while_installing_is_a_restart(launch):
    launch.answer(
        {
            "describe": ["ACTIVE\n", "ACTIVE\n", "SUSPENDED\n", "SUSPENDED\n", "ACTIVE\n"],
            "install": [("", "", 255), ""],
            "worker.sh status": ["absent\n", "absent\n", "exit 0\n"],
        }
    )
    assert launch("tpu.sh", "run", *SLICE, *RUN).code == 0
    assert verbs(launch).count("create") == 1


def test_status_logs_and_delete(launch):
    launch.answer(
        {"describe": "ACTIVE\n", "worker.sh status": "running\n", "worker.sh log": "a line\n"}
    )
    assert launch("tpu.sh", "status", *SLICE).out == "slice: ACTIVE\ntraining: running\n"
    launch.forget()
    result = launch("tpu.sh", "logs", *SLICE, "--lines=5", "--worker=2", "--follow", "--iap")
    assert result.out == "a line\n"
    log = "--command=bash vclip/launch/worker.sh log vclip 5 follow"
    assert launch.calls == [
        [*gcloud("ssh", "vclip", "--node=0", "--worker=2", log), "--tunnel-through-iap"]
    ]
    launch.forget()
    assert launch("tpu.sh", "delete", *SLICE).code == 0
    assert launch.calls == [DESCRIBE, DELETE]

    launch.answer({"describe": ABSENT})
    launch.forget()
    assert launch("tpu.sh", "status", *SLICE).out == "slice: ABSENT\n"
    assert launch("tpu.sh", "delete", *SLICE).code == 0
    assert launch.calls == [DESCRIBE, DESCRIBE]
