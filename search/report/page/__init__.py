"""The report as one page, of one run or of two."""

from .compare import write_comparison
from .write import FOLDER, write_report

__all__ = ["FOLDER", "write_comparison", "write_report"]
