"""The HTML reports of runs: one page for each run, and one that compares runs."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vclip_jax.evaluation.metrics.table import format_table
    from vclip_jax.report.comparison_page import write_comparison
    from vclip_jax.report.run_page import write_report
    from vclip_jax.report.table1_page import write_systems_report

__all__ = ["format_table", "write_comparison", "write_report", "write_systems_report"]

_HOMES = {
    "format_table": "vclip_jax.evaluation.metrics.table",
    "write_comparison": "vclip_jax.report.comparison_page",
    "write_report": "vclip_jax.report.run_page",
    "write_systems_report": "vclip_jax.report.table1_page",
}


def __getattr__(name: str) -> Any:
    # Imported on demand, so that the command line is parsed without importing NumPy.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
