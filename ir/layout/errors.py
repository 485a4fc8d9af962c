"""Coded errors of the offline placements."""

from __future__ import annotations

from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import Unmet


class WrongColumns(TreadleError):
    """A table without the columns of any known form."""

    code = "TRD140"
    template = "columns {found} are not those of {kind}"


class BadRow(TreadleError):
    """A row of a table with a value that cannot be."""

    code = "TRD141"
    template = "{field} is {found}: {reason}"


class WrongForm(TreadleError):
    """A JSON document that is not of the form the request needs."""

    code = "TRD142"
    template = "{reason}"


class InconsistentCounts(TreadleError):
    """Counts (slots, GPUs, nodes, groups) that do not divide each other as the rule needs."""

    code = "TRD143"
    template = "{what}"
    hint = "change one of the counts, or use the other policy"


class DoesNotFit(Unmet):
    """More is needed at one moment or in total than the capacity."""

    code = "TRD340"
    template = "{need} {unit} are needed {where}, and the capacity is {capacity}"
    hint = "raise the capacity to at least {need} {unit}"


class NoPlacementFound(Unmet):
    """The search ended at its limit without a placement, and without a proof that there is none."""

    code = "TRD341"
    template = "no placement within {capacity} {unit} was found in {effort}; whether one exists is open"
    hint = "raise --effort, or the capacity: {best}"
