"""The pages and the table that runs leave behind."""

from vclip_jax.evaluation.metrics.table import format_table
from vclip_jax.report.comparison_page import write_comparison
from vclip_jax.report.run_page import write_report
from vclip_jax.report.table1_page import write_systems_report

__all__ = ["format_table", "write_comparison", "write_report", "write_systems_report"]
