"""Continue from an earlier plan folder: its legal schedules and their proven bounds are where searches begin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from treadle.ir.certificate import Certificate
from treadle.ir.plan import load
from treadle.ir.tile.claims import recheck
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.tile.loop import Loop
from treadle.ir.tile.schedule import Schedule, check
from treadle.solvers.modulo.solve import Solution


def earlier_schedules(folder: Path) -> dict[Loop, Solution]:
    """Return the schedules of a plan folder by their loop, each checked; none where there is no folder yet.

    Raises:
        NotAPlan, MalformedText, UnsupportedVersion: there is something else.
    """
    if not folder.exists():
        return {}
    kernels: tuple[KernelPlan, ...] = load(folder).body.kernels
    return {
        loop: Solution(schedule, certificate)
        for kernel in kernels
        for loop, schedule, certificate in _scheduled(kernel)
        if not check(loop, schedule) and not recheck(loop, schedule, certificate).findings
    }


def _scheduled(kernel: KernelPlan) -> Iterator[tuple[Loop, Schedule, Certificate]]:
    yield kernel.loop, kernel.schedule, kernel.certificate
    for sibling in kernel.siblings:
        yield sibling.loop, sibling.schedule, sibling.certificate
