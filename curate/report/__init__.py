"""The report of a dataset: what was kept, what was dropped and why, on one self-contained page."""

from curate.report.page import write_report

__all__ = ["write_report"]
