"""Sizes beyond which a number in an input is taken for a mistake: solvers and checkers work with 64-bit numbers."""

from __future__ import annotations

MOST_BYTES = 1 << 60
"""An exbibyte: of one thing, or of all things together."""
MOST_CLOCK = 1 << 60
"""Ticks of a clock."""
LARGEST = 1e15
"""Loads, reads, losses, latencies."""
SMALLEST = 1e-9
"""Speeds and bandwidths."""
