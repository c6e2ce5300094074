"""The report of a step that was compiled ahead of time: `compile.json`, and a table for terminals.

Times are predictions (see `vclip_jax.compilation.cost`). On GPUs they are lower bounds, and so is
the memory, because cuDNN's work space is unknown before the program runs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vclip_jax.compilation.compiler import Compilation, too_large
from vclip_jax.compilation.cost import Cost, cost_of, ms_by_scope
from vclip_jax.compilation.topologies import Topology
from vclip_jax.devices.chips import GIB
from vclip_jax.files.writing import write_json, write_text

Report = dict[str, Any]

LISTED = 10
"""The number of kernels and scopes to list."""
LONGEST_NAME = 70
"""Characters of a listed kernel's name."""


def make_report(
    topology: Topology,
    compilation: Compilation,
    *,
    global_batch: int,
    model_flops: float | None = None,
    placements: Mapping[str, str] | None = None,
) -> Report:
    """Return the content of `compile.json`.

    Args:
        topology: the devices that the step was compiled for.
        compilation: the compiled step.
        global_batch: pairs in a step, over all devices.
        model_flops: operations of the model in a step, over all devices, from
            `vclip_jax.models.flops`, for the MFU. None takes the program's operations, which count
            rematerialised values twice.
        placements: path of an array -> its placement on the devices.
    """
    chip, memory = topology.chip, compilation.memory
    cost = cost_of(compilation.text, chip)
    devices = len(topology.devices)
    device_flops = cost.flops if model_flops is None else model_flops / devices
    seconds = cost.predicted_ms / 1e3
    return {
        "topology": topology.name,
        "devices": devices,
        "global_batch": global_batch,
        "compile_seconds": round(compilation.seconds, 1),
        "per_device": {
            "argument_bytes": memory.argument_bytes,
            "temp_bytes": memory.temp_bytes,
            "output_bytes": memory.output_bytes,
            "peak_bytes": memory.peak_bytes,
            "capacity_bytes": chip.hbm_bytes,
            "flops": int(cost.flops),
            "bytes_accessed": int(cost.hbm_bytes),
            "estimated_cycles": int(cost.estimated_cycles),
            "predicted_ms": cost.predicted_ms,
        },
        "fits": memory.peak_bytes <= chip.hbm_bytes,
        "mfu": device_flops / (seconds * chip.peak_flops) if seconds else None,
        "examples_per_second": global_batch / seconds if seconds else None,
        "collectives": {
            kind: {"count": traffic.count, "bytes": traffic.bytes}
            for kind, traffic in sorted(cost.collectives.items())
        },
        "scopes": dict(list(ms_by_scope(cost).items())[:LISTED]),
        "kernels": _kernels(cost),
        "notes": list(cost.notes),
        "placements": dict(placements or {}),
    }


def _kernels(cost: Cost) -> list[dict[str, Any]]:
    return [
        {
            "name": kernel.name,
            "op_name": kernel.op_name,
            "runs": kernel.runs,
            "ms": kernel.ms,
            "bytes": int(kernel.hbm_bytes),
            "flops": int(kernel.flops),
        }
        for kernel in cost.kernels[:LISTED]
    ]


def write_report(workdir: Path, report: Report, compilation: Compilation) -> None:
    """Write `compile.json` and `compile_hlo.txt`."""
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "compile.json", report)
    write_text(workdir / "compile_hlo.txt", compilation.text)


def format_report(report: Report, topology: Topology, suggestions: Sequence[str] = ()) -> str:
    """Format a report as a table for a terminal.

    Args:
        report: the report, from `make_report`.
        topology: the devices that the step was compiled for.
        suggestions: flags to try if the step does not fit; GPU compilers do not refuse it.
    """
    each, chip = report["per_device"], topology.chip
    ms, mfu = each["predicted_ms"], report["mfu"]
    rows = [
        (
            "topology",
            f"{report['topology']}: {report['devices']} devices of "
            f"{chip.peak_flops / 1e12:.0f} TFLOP/s",
        ),
        ("global batch", f"{report['global_batch']}"),
        ("compiled in", f"{report['compile_seconds']:.0f} s"),
        (
            "memory of a device",
            f"{_gib(each['peak_bytes'])} of {_gib(each['capacity_bytes'])} GiB at the peak",
        ),
        ("  arguments", f"{_gib(each['argument_bytes'])} GiB"),
        ("  temporaries", f"{_gib(each['temp_bytes'])} GiB"),
        ("  results", f"{_gib(each['output_bytes'])} GiB"),
        ("arithmetic", f"{each['flops'] / 1e12:.2f} TFLOP"),
        ("memory traffic", f"{each['bytes_accessed'] / 1e9:.1f} GB"),
        ("predicted step", f"{ms:.1f} ms" + (f", MFU {mfu:.1%}" if mfu is not None else "")),
    ]
    for kind, traffic in report["collectives"].items():
        rows.append((kind, f"{traffic['count']} with {traffic['bytes'] / 1e6:.1f} MB"))
    lines = [f"{name:20}{value}" for name, value in rows]
    if not report["fits"]:
        lines.append(f"DOES NOT FIT: {too_large(topology, each['peak_bytes'], suggestions)}")
    lines += ["", f"{'ms':>8} {'share':>6}  scope"]
    lines += [
        f"{time:8.2f} {_share(time, ms):>6}  {name}" for name, time in report["scopes"].items()
    ]
    lines += ["", f"{'ms':>8} {'share':>6} {'runs':>5} {'GB':>6} {'GFLOP':>7}  kernel"]
    for kernel in report["kernels"]:
        lines.append(
            f"{kernel['ms']:8.2f} {_share(kernel['ms'], ms):>6} {kernel['runs']:5} "
            f"{kernel['bytes'] / 1e9:6.2f} {kernel['flops'] / 1e9:7.1f}  "
            f"{kernel['name']} ({_short(kernel['op_name'])})"
        )
    lines += [f"note: {note}" for note in report["notes"]]
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _short(op_name: str) -> str:
    return op_name if len(op_name) <= LONGEST_NAME else f"...{op_name[3 - LONGEST_NAME :]}"
