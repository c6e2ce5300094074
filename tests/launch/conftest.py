"""The launchers run against stand-ins of gcloud and the like, which record and answer."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("gcloud", "kubectl", "docker", "sbatch", "squeue", "scancel", "scontrol", "srun", "ssh")
# Appends [tool, arguments...] to calls.jsonl; answers with what the scenario has for the first
# expression found in the command line: [output, complaint, exit code], one after the other.
STAND_IN = """#!{python} -IS
import json, os, re, sys
here = os.path.dirname(os.path.abspath(__file__))
argv = [os.path.basename(sys.argv[0]), *sys.argv[1:]]
with open(here + "/calls.jsonl", "a+") as log:
    log.seek(0)
    number = len(log.readlines())
    log.write(json.dumps(argv) + "\\n")
with open(f"{{here}}/stdin-{{number}}", "wb") as file:
    file.write(sys.stdin.buffer.read())
with open(here + "/scenario.json") as file:
    scenario = json.load(file)
for expression, answers in scenario.items():
    if re.search(expression, " ".join(argv)):
        output, complaint, code = answers[0]
        if len(answers) > 1:
            del answers[0]
            with open(here + "/scenario.json", "w") as file:
                json.dump(scenario, file)
        print(output, end="")
        print(complaint, end="", file=sys.stderr)
        sys.exit(code)
"""


def eventually(condition, seconds=20):
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The error, which must be one line, and the last."""
        *before, last = self.err.splitlines()
        assert self.code, self.err
        assert last.startswith("error: ")
        assert not any(line.startswith("error: ") for line in before)
        return last


class Launcher:
    """A checkout with the launchers, and stand-ins first on PATH."""

    def __init__(self, folder: Path):
        self.root = folder / "a checkout"
        self.tools = folder / "tools"
        self.tools.mkdir(parents=True)
        for name in ("launch", "configs"):
            shutil.copytree(ROOT / name, self.root / name)
        for name in ("c", "configs/q.py"):
            (self.root / name).touch()
        for name in TOOLS:
            file = self.tools / name
            file.write_text(STAND_IN.format(python=sys.executable))
            file.chmod(0o755)
        self.answer({})
        self.environment = {
            "PATH": f"{self.tools}:/usr/bin:/bin",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "VCLIP_POLL": "0",
            # Should a real tool be reached after all, it finds nothing.
            "CLOUDSDK_CONFIG": str(folder / "none"),
            "KUBECONFIG": str(folder / "none"),
        }
        (self.root / ".gitignore").write_text("/runs/\n.venv/\n")
        self.git("init", "--quiet")

    def git(self, *arguments: str) -> None:
        subprocess.run(["git", "-C", self.root, *arguments], check=True, stdin=subprocess.DEVNULL)

    def answer(self, scenario: dict[str, Any]) -> None:
        """Expression -> output, (output, complaint, exit code), or a list of these."""
        full = {}
        for expression, answers in scenario.items():
            listed = answers if isinstance(answers, list) else [answers]
            full[expression] = [(a, "", 0) if isinstance(a, str) else a for a in listed]
        (self.tools / "scenario.json").write_text(json.dumps(full))

    def __call__(self, script: str, *arguments: Any, **environment: str) -> Result:
        done = subprocess.run(
            ["bash", str(self.root / "launch" / script), *map(str, arguments)],
            env=self.environment | environment,
            cwd=self.root.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    @property
    def calls(self) -> list[list[str]]:
        """What the stand-ins were called with, the tool's name first."""
        log = self.tools / "calls.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def stdin(self, call: int) -> bytes:
        return (self.tools / f"stdin-{call}").read_bytes()

    def forget(self) -> None:
        (self.tools / "calls.jsonl").unlink(missing_ok=True)


@pytest.fixture
def launch(tmp_path) -> Launcher:
    if sys.platform == "win32" or shutil.which("git", path="/usr/bin:/bin") is None:
        pytest.skip("needs bash and git")
    return Launcher(tmp_path)


@pytest.fixture(scope="session")
def shell_lines() -> Callable[[Path], list[str]]:
    """The commands in the shell blocks of a guide, continued lines joined."""

    def read(guide: Path) -> list[str]:
        blocks = re.findall(r"^```bash\n(.*?)^```", guide.read_text(), re.M | re.S)
        lines = "".join(blocks).replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]

    return read
