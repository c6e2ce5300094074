"""What all launchers do with their settings."""

import shlex

import pytest

REQUIRED = {
    "tpu.sh": ("--zone", "z", "--accelerator", "v4-8"),
    "gke.sh": ("--image", "i", "--accelerator", "a", "--topology", "2x2"),
    "slurm.sh": (),
    "single.sh": (),
}
SCRIPTS = tuple(REQUIRED)
COMMANDS = ("create", "run", "resume", "status", "logs", "delete")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_mistakes_name_what_there_is(launch, script):
    help = launch(script, "--help")
    assert help.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in help.out
    assert max(map(len, help.out.splitlines())) <= 120
    assert launch(script).code == 1  # shows the help, too
    assert "'explode'" in launch(script, "explode", *REQUIRED[script]).error
    assert "--nme" in launch(script, "run", "--nme", "x").error
    assert "--config" in launch(script, "run", *REQUIRED[script]).error
    assert "needs a value" in launch(script, "run", "--name").error
    assert "one command" in launch(script, "run", "delete").error
    assert not launch.calls


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "name", ["two words", "a;touch x", "$(touch x)", "`touch x`", "-a", "Upper", "a\nb", "a" * 41]
)
def test_names_that_a_shell_or_the_cloud_would_trip_over_are_refused(launch, script, name):
    for result in (launch(script, "delete", f"--name={name}"),
                   launch(script, "delete", VCLIP_NAME=name)):  # fmt: skip
        assert result.error.startswith("error: --name ")
    assert not launch.calls
    assert not list(launch.root.parent.glob("**/x"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_calls_nothing(launch, script):
    for command in COMMANDS:
        result = launch(
            script, command, "--dry-run", *REQUIRED[script], "--config=c", "--workdir=w"
        )
        assert result.code == 0, result.err
        assert result.out
        assert not result.err
    assert not launch.calls
    assert not (launch.root / "runs").exists()


def test_settings_come_from_flags_before_the_environment(launch):
    out = launch("single.sh", "logs", "--lines=7", "--dry-run", VCLIP_LINES="9", VCLIP_NAME="n").out
    assert shlex.split(out)[-3:] == ["log", "n", "7"]
    assert "--lines" in launch("single.sh", "logs", VCLIP_LINES="many").error
    assert "--follow" in launch("single.sh", "logs", "--follow=1").error


@pytest.mark.parametrize("value", ["NAME", "1A=b", "A B=c", "A=b\nc"])
def test_environment_must_be_key_and_value(launch, value):
    assert "is not KEY=VALUE" in launch("single.sh", "run", "--env", value).error


def test_odd_paths_and_overrides_arrive_as_they_are(launch):
    odd = """it's $(touch x); "quoted" *"""
    result = launch(
        "single.sh", "run", "--host=box", "--dry-run", "--config", "configs/q.py:a b", "--workdir",
        odd, f"--config.tokenizer.vocab={odd}", "--env", f"HF_HOME={odd}", "--", "--mode", "eval",
    )  # fmt: skip
    ssh, host, remote = shlex.split(result.out)
    assert (ssh, host) == ("ssh", "box")
    assert shlex.split(remote)[2:] == [
        "start", "vclip", f"HF_HOME={odd}", "--", "--config", "configs/q.py:a b", "--workdir", odd,
        f"--config.tokenizer.vocab={odd}", "--mode", "eval",
    ]  # fmt: skip
    assert "--workdir" in launch("single.sh", "run", "--workdir=-rf").error
    assert "control" in launch("single.sh", "run", "--config.a=b\nc").error
