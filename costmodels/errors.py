"""Coded errors of the machine descriptions and cost models."""

from __future__ import annotations

from treadle.ir.diagnostics import TreadleError


class UnsupportedOperation(TreadleError):
    """A tile operation that a machine has no unit for."""

    code = "TRD203"
    template = "`{operation}` of program `{program}`: {what} cannot run on {machine}"
    hint = "choose another dtype or another machine"


class MissingTable(TreadleError):
    """No measured table for a system, or no rows for what was asked of it."""

    code = "TRD204"
    template = "no measured {what}"
    hint = "estimate from the machine's figures instead"
