"""The pages and the table that runs leave behind."""

from vclip_jax.report.build import write_report
from vclip_jax.report.comparison import write_comparison
from vclip_jax.report.systems import write_systems_report
from vclip_jax.report.table import format_table

__all__ = ["format_table", "write_comparison", "write_report", "write_systems_report"]
