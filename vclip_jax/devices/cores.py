"""The number of CPU cores that this process may use."""

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def usable(cgroup: Path = CGROUP) -> int:
    """Return the number of cores in the process's affinity, limited by its cgroup's quota.

    A SLURM job or a container with 4 of 128 cores gets 4, while `os.cpu_count()` returns 128.

    Args:
        cgroup: the folder of the kernel's control groups (version 2: `cpu.max`; version 1:
            `cpu/cpu.cfs_quota_us` and `cpu/cpu.cfs_period_us`).
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _quota(cgroup)
    return max(1, min(allowed or 1, math.ceil(quota) if quota else allowed or 1))


def _quota(cgroup: Path) -> float | None:
    """Return the CPU time that the control group grants, in cores; None without a limit."""
    limits = [
        (folder / "cpu.max").read_text().split()
        for folder in _own_groups(cgroup)
        if (folder / "cpu.max").is_file()
    ]
    version_1 = cgroup / "cpu"
    if not limits and (version_1 / "cpu.cfs_quota_us").is_file():
        limits = [
            [
                (version_1 / "cpu.cfs_quota_us").read_text().strip(),
                (version_1 / "cpu.cfs_period_us").read_text().strip(),
            ]
        ]
    shares = [
        int(limit[0]) / int(limit[1]) for limit in limits if limit[0].isdecimal() and int(limit[1])
    ]
    return min(shares, default=None)


def _own_groups(cgroup: Path) -> list[Path]:
    """Return the folders of the process's control group of version 2 and of its parents."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    name = next((line[3:].lstrip("/") for line in lines if line.startswith("0::")), "")
    group = cgroup / name
    return [group, *(parent for parent in group.parents if parent.is_relative_to(cgroup))]
