"""The start of a prediction: what it imports, and the compiled programs that it finds again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vclip_jax.console import commands

PHOTOGRAPH = next((Path(commands.__file__).parents[1] / "datasets/idrid_sample").rglob("*.jpg"))
SLOW = ("orbax", "tensorstore", "tensorflow_datasets", "scipy", "ftfy", "grain", "pyarrow", "torch")
PROGRAM = f"""
import json, sys
from vclip_jax.predict.__main__ import main
status = main([sys.argv[1], "--format", "jsonl"])
print(json.dumps([status, [name for name in {SLOW!r} if name in sys.modules]]))
"""
VARIABLES = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


def test_a_prediction_imports_nothing_that_it_does_not_need_and_keeps_its_programs(tmp_path):
    clean = {key: value for key, value in os.environ.items() if key not in VARIABLES}
    answers, kept = [], []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(PHOTOGRAPH)],
            env=clean | {"XDG_CACHE_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
        )
        answer, end = map(json.loads, done.stdout.splitlines())
        assert end == [0, []], done.stderr
        answers.append(answer)
        kept.append({path.name for path in tmp_path.rglob("*-cache")})
    assert answers[0] == answers[1]
    assert any("encode_images" in name for name in kept[0])
    assert kept[0] == kept[1]


@pytest.fixture
def no_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that monkeypatch restores it
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_variables")
def test_a_folder_that_the_user_names_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path))
    commands.keep_compiled()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
    assert VARIABLES[1] not in os.environ


@pytest.mark.usefixtures("no_variables")
def test_without_a_home_directory_nothing_is_kept(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    commands.keep_compiled()
    assert VARIABLES[0] not in os.environ


@pytest.mark.usefixtures("no_variables")
def test_another_kind_of_processor_has_another_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folders = set()
    for kind in ("a", "b"):
        monkeypatch.setattr(commands, "_processor", lambda kind=kind: kind)
        monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        commands.keep_compiled()
        folders.add(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folders == {str(tmp_path / "vclip_jax" / kind) for kind in ("a", "b")}
