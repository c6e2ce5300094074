"""The pages and the table that a run leaves behind."""

from vclip_jax.report.build import write_report
from vclip_jax.report.systems import write_systems_report
from vclip_jax.report.table import format_table

__all__ = ["format_table", "write_report", "write_systems_report"]
