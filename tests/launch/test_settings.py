"""What all launchers do with their settings."""

import shlex
from pathlib import Path

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
    for result in (
        launch(script, "delete", f"--name={name}"),
        launch(script, "delete", VCLIP_NAME=name),
    ):
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


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("recipe", ["configs/none.py", "configs/none.py:idrid", "configs"])
def test_a_recipe_that_is_not_there_is_named_before_anything_starts(launch, script, recipe):
    for command in ("run", "resume"):
        for more in ((), ("--dry-run",)):
            result = launch(
                script, command, *REQUIRED[script], "--config", recipe, "--workdir=w", *more
            )
            assert f"there is no {recipe.split(':')[0]} in {launch.root}" in result.error
            assert "configs/visionclip.py" in result.error
            assert (result.out, result.err.count("\n")) == ("", 1)
    assert not launch.calls
    assert not (launch.root / "runs").exists()


def test_a_recipe_by_its_whole_path_is_looked_for_where_the_training_is(launch):
    run = ("run", "--dry-run", "--workdir=w", "--config")
    for script in ("single.sh", "slurm.sh"):
        assert "no /none.py: name" in launch(script, *run, "/none.py:a").error
        assert launch(script, *run, f"{launch.root}/configs/table1.py:fives").code == 0
    assert launch("single.sh", *run, "/none.py", "--host=box").code == 0
    assert launch("tpu.sh", *run, "/none.py", *REQUIRED["tpu.sh"]).code == 0


@pytest.mark.parametrize(
    ("script", "command", "tool", "remedy"),
    [
        ("slurm.sh", "run", "squeue", "on a login node"),
        ("slurm.sh", "run", "sbatch", "on a login node"),
        ("slurm.sh", "status", "squeue", "on a login node"),
        ("tpu.sh", "create", "gcloud", "install Google Cloud's command line"),
        ("gke.sh", "run", "kubectl", "install it"),
        ("single.sh", "run", "ssh", "install it"),
    ],
)
def test_a_program_that_is_not_installed_is_named_with_the_remedy(
    launch, tmp_path, script, command, tool, remedy
):
    python = launch.root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    # Tools of this machine but for the one that is missing.
    (launch.tools / tool).unlink()
    for folder in ("/usr/bin", "/bin"):
        for program in Path(folder).iterdir():
            if program.name != tool and not (launch.tools / program.name).exists():
                (launch.tools / program.name).symlink_to(program)
    host = ("--host=box",) if script == "single.sh" else ()
    result = launch(script, command, *REQUIRED[script], *RUN, *host, PATH=str(launch.tools))
    assert result.error.startswith(f"error: there is no {tool} on this machine: ")
    assert remedy in result.error
    assert result.err.count("\n") == 1


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
        "single.sh",
        "run",
        "--host=box",
        "--dry-run",
        "--config",
        "configs/q.py:a b",
        "--workdir",
        odd,
        f"--config.tokenizer.vocab={odd}",
        "--env",
        f"HF_HOME={odd}",
        "--",
        "--mode",
        "eval",
    )
    ssh, host, remote = shlex.split(result.out)
    assert (ssh, host) == ("ssh", "box")
    assert shlex.split(remote)[2:] == [
        "start",
        "vclip",
        f"HF_HOME={odd}",
        "--",
        "--config",
        "configs/q.py:a b",
        "--workdir",
        odd,
        f"--config.tokenizer.vocab={odd}",
        "--mode",
        "eval",
    ]
    assert "--workdir" in launch("single.sh", "run", "--workdir=-rf").error
    assert "control" in launch("single.sh", "run", "--config.a=b\nc").error


# --- Secrets.

VALUE = "hunter2 'quoted' \"$(touch x)\" \\ =#"
RUN = ("--config=c", "--workdir=w")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    "setting",
    [
        "WANDB_API_KEY=hunter2",
        "HF_TOKEN=hunter2",
        "MLFLOW_TRACKING_PASSWORD=hunter2",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        "my_apikey=hunter2",
        "GITHUB_PAT=hunter2",
        "API_TOKENS=hunter2",
        "DB_PASS=hunter2",
        "TOKEN_FOR_X=hunter2",
        "https_proxy=http://me:hunter2@proxy:80",
    ],
)
def test_env_refuses_what_looks_secret_and_does_not_show_it(launch, script, setting):
    for flags in (("--env", setting), (f"--env={setting}",), ("--dry-run", "--env", setting)):
        result = launch(script, "run", *REQUIRED[script], *RUN, *flags)
        assert "--env-file" in result.error
        assert setting.split("=")[0] in result.error
        assert "hunter2" not in result.out + result.err
    assert not launch.calls


@pytest.mark.parametrize(
    "setting",
    [
        "TOKENIZERS_PARALLELISM=false",
        "HF_HOME=/a",
        "GLIBC_TUNABLES=a.b=1",
        "KEYBOARD=x",
        "PATH=/a:/b",
        "PASSES=2",
        "HTTPS_PROXY=http://proxy:80",
        "AUTHOR=x",
    ],
)
def test_env_takes_what_does_not(launch, setting):
    result = launch("single.sh", "run", *RUN, "--env", setting, "--dry-run")
    assert setting in result.out


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (None, None, "not a readable file"),
        ("A=1", 0o644, "others: chmod 600"),
        ("A=1", 0o640, "others: chmod 600"),
        ("A=1", 0o602, "others: chmod 600"),
        ("A=1\nhunter2", 0o600, "line 2 is not KEY=VALUE"),
        ("\n# comment\n1A=hunter2", 0o600, "line 3 is not KEY=VALUE"),
        ("export A=hunter2", 0o600, "line 1 is not KEY=VALUE"),
        ("A=hunter2\r\n", 0o600, "line 1 is not KEY=VALUE"),
        ('A="hunter2"', 0o600, "line 1: leave out the quotes"),
    ],
)
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_file_that_others_read_or_that_is_odd_is_refused(launch, script, content, mode, message):
    file = launch.root.parent / "my secrets"
    if content is not None:
        file.write_text(content)
        file.chmod(mode)
    for command in ("run", "resume"):
        result = launch(script, command, *REQUIRED[script], *RUN, "--env-file", file)
        assert message in result.error
        assert "hunter2" not in result.out + result.err
    assert not launch.calls


@pytest.mark.parametrize("script", SCRIPTS)
def test_secrets_are_on_no_command_line_and_in_no_output(launch, script):
    file = launch.root.parent / "my secrets"
    file.write_text(f"# for W&B\nWANDB_API_KEY={VALUE}\n\nEMPTY=\nHF_TOKEN=hunter2 b")
    python = launch.root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to("/bin/true")
    launch.answer({"describe": "ACTIVE\n", "worker.sh status": ["absent\n", "exit 0\n"]})
    host = ("--host=box",) if script == "single.sh" else ()
    for mode in (0o600, 0o400):
        file.chmod(mode)
        for flags in (("--dry-run",), ()):
            result = launch(
                script, "run", *REQUIRED[script], *RUN, *host, "--env-file=my secrets", *flags
            )
            assert result.code == 0, result.err
            assert "hunter2" not in result.out + result.err
            assert flags or result.err.count("+ ") > 0
    assert launch.calls
    assert "hunter2" not in str(launch.calls)
    kept = [path for path in launch.root.rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in kept if b"hunter2" in path.read_bytes()]


def test_a_file_that_would_be_copied_with_the_code_is_refused(launch):
    file = launch.root / "secrets"
    file.write_text("A=1")
    file.chmod(0o600)
    refused = launch("single.sh", "run", *RUN, "--dry-run", "--env-file", file).error
    assert ".gitignore" in refused
    (launch.root / ".gitignore").write_text("/secrets\n")
    assert launch("single.sh", "run", *RUN, "--dry-run", "--env-file", file).code == 0
