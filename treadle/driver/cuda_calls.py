"""Answers of the CUDA driver, as cuda-python gives them: a status, then the results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.ir.diagnostics import TreadleError


class DriverFailure(TreadleError):
    """A call of the CUDA driver that failed."""

    code = "TRD546"
    template = "the CUDA driver refuses {call}: {reason}"


def done(answer: Sequence[Any], call: str) -> tuple[Any, ...]:
    """Return what a driver call gives besides its status; raises DriverFailure."""
    status, *results = answer
    if status:
        raise DriverFailure(call=call, reason=getattr(status, "name", str(status)))
    return tuple(results)
