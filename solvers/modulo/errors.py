"""Loops that no initiation interval helps."""

from __future__ import annotations

from treadle.ir.errors import Unmet


class MemoryExceeded(Unmet):
    """The rings of a loop do not fit a memory at any interval."""

    code = "TRD301"
    template = (
        "loop `{loop}` does not fit `{memory}`: {rings} need at least {needed} bytes together, and {free} are free"
    )
    hint = "shrink the tiles by {factor:.2f}x, share a ring, or free {missing} bytes of `{memory}`"


class RingTooShallow(Unmet):
    """A ring whose greatest depth is below what its readers' distances need."""

    code = "TRD302"
    template = "ring `{ring}` of loop `{loop}` may have {limit} slots, and no interval makes that enough: {cycle}"
    hint = "allow at least {needed} slots, or read the ring fewer iterations later"
