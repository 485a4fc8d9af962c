"""The report of a plan: one self-contained HTML page."""

from treadle.codegen.report.page import render
from treadle.codegen.report.sections import ReviewFigures

__all__ = ["ReviewFigures", "render"]
