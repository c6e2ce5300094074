import os
import subprocess
import sys
from pathlib import Path

import pytest

from vclip_jax.devices import cores


def test_affinity_limits_the_cores():
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}}); "
        "from vclip_jax.devices import cores; print(cores.usable())"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == "1"


@pytest.mark.parametrize(
    ("limit", "most"), [("100000 100000", 1), ("150000 100000", 2), ("max 100000", 128)]
)
def test_a_quota_of_control_groups_limits_the_cores(tmp_path, monkeypatch, limit, most):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(128)))
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert cores.usable(tmp_path) == most


@pytest.mark.parametrize(("quota", "most"), [("400000", 4), ("-1", 128)])
def test_a_quota_of_the_first_version_limits_the_cores(tmp_path, monkeypatch, quota, most):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(128)))
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota + "\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.usable(tmp_path) == most


def test_without_control_groups_the_affinity_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    assert cores.usable(tmp_path) == 3


def test_nothing_else_counts_cores():
    """os.cpu_count() says 128 where 4 are given; os.sched_getaffinity says nothing of quotas."""
    root = Path(cores.__file__).parent
    counting = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(w in path.read_text("utf-8") for w in ("cpu_count", "sched_getaffinity"))
    }
    assert counting == {"cores.py"}
