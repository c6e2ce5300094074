"""The page and the table that a run leaves behind."""

from vclip_jax.report.build import write_report
from vclip_jax.report.table import format_table

__all__ = ["format_table", "write_report"]
