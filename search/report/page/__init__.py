"""The report as one page, of one run or of two."""

from .write import write_report
