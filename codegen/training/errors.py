"""Errors of the training files."""

from __future__ import annotations

from treadle.ir.diagnostics import TreadleError


class NotReadBack(TreadleError):
    """A trainer file that does not say what the plan says, or cannot be read."""

    code = "TRD520"
    template = "`{file}` cannot be read back: {reason}"
    hint = "write the plan again with `treadle parallel -o`"
