"""Every command in the guides works, as far as a dry run can tell."""

import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs").glob("launch-*.md"))


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_the_commands_of_a_guide(launch, shell_lines, guide):
    secrets = launch.root.parent / "secrets.env"
    secrets.write_text("WANDB_API_KEY=hunter2\n")
    secrets.chmod(0o600)
    environment = {}
    commands = set()
    for line in shell_lines(guide):
        first, *words = shlex.split(line)
        if first == "export":
            environment |= dict(word.split("=", 1) for word in words)
            continue
        assert first.startswith("launch/"), f"{line}: what is this?"
        script = first.removeprefix("launch/")
        result = launch(script, *words, "--dry-run", **environment)
        assert result.code == 0, f"{line}: {result.err}"
        assert result.out, line
        assert "hunter2" not in result.out
        commands.add(words[0])
    assert commands == {"create", "run", "resume", "status", "logs", "delete"}
    assert (ROOT / environment["VCLIP_CONFIG"]).exists()
    assert not launch.calls


def test_there_is_a_guide_for_every_launcher():
    named = {line for guide in GUIDES for line in guide.read_text().split() if "launch/" in line}
    for script in ("tpu", "gke", "slurm", "single"):
        assert f"launch/{script}.sh" in named
