"""One self-contained HTML page about a run: pictures, numbers and how to open the results."""

from teramind.report.page import write_report

__all__ = ["write_report"]
