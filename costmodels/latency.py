"""Which latency of a load a machine is taken to have: its mean, or a percentile of what was measured.

A machine file may say what share of loads from memory is there after how many cycles: figures
`global_latency_pNN_cycles`, where NN percent are. Steps between them are not interpolated: a percentile takes the next
one that was measured, so a stated share of loads is never late.
"""

from __future__ import annotations

import re
from dataclasses import replace

from treadle.costmodels.machines import load_machine, machine_ids
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Basis, Figure, Machine

MEAN, BULK = "global_latency_cycles", "tma_latency_base_cycles"
PERCENTILE = "load_latency_percentile"
"""The figure of a machine whose load latency is a percentile: which one."""
_MEASURED = re.compile(r"global_latency_p(\d{1,3})_cycles")


class NoLatencyDistribution(TreadleError):
    """A percentile of load latency is asked of a machine for which none was measured."""

    code = "TRD601"
    template = (
        "nothing is known of how load latency varies on machine `{machine}`; percentile {percentile} is not there"
    )
    hint = "add figures `global_latency_pNN_cycles` with their source to a machine file"


class PercentileOutOfRange(TreadleError):
    """A percentile of load latency beyond all that was measured, or no percentile at all."""

    code = "TRD602"
    template = "percentile {percentile} of load latency is not known on machine `{machine}`"
    hint = "a percentile is from 1 to 100, and not above the greatest that was measured"


def measured_percentiles(machine: Machine) -> dict[int, Figure]:
    """Return the figures of load latency by their percentile, in order."""
    found = {int(match[1]): f for f in machine.figures if (match := _MEASURED.fullmatch(f.name)) is not None}
    return dict(sorted(found.items()))


def at_percentile(machine: Machine, percentile: int) -> Machine:
    """Return the machine with loads as late as a percentile of them is; bulk copies are later by as much.

    Raises:
        NoLatencyDistribution: the machine has no measured percentiles.
        PercentileOutOfRange: it is not from 1 to 100, or above all that were measured.
    """
    known = measured_percentiles(machine)
    if not known:
        others = [name for name in machine_ids() if measured_percentiles(load_machine(name))]
        hint = f"{NoLatencyDistribution.hint}; machines with them: {', '.join(others) or 'none'}"
        raise NoLatencyDistribution(machine=machine.id, percentile=percentile, hint=hint)
    step = next((step for step in known if step >= percentile), None)
    if step is None or percentile < 1:
        measured = ", ".join(str(step) for step in known)
        raise PercentileOutOfRange(machine=machine.id, percentile=percentile, expected=f"up to one of {measured}")
    later = known[step].value - machine.value(MEAN)
    words = f"percentile {percentile} of load latency, by the measured percentile {step}: {known[step].source}"
    figures = [
        replace(figure, value=max(0.0, figure.value + later), source=words, basis=Basis.DERIVED)
        if figure.name in (MEAN, BULK)
        else figure
        for figure in machine.figures
    ]
    which = Figure(PERCENTILE, percentile, "%", words, known[step].date, known[step].basis)
    return replace(machine, figures=(*figures, which))


def at_percentile_of(machine: Machine, other: Machine) -> Machine:
    """Return a machine with loads as late as another states; itself where that one states no percentile it has."""
    stated = next((figure.value for figure in other.figures if figure.name == PERCENTILE), None)
    try:
        return machine if stated is None else at_percentile(machine, int(stated))
    except TreadleError:
        return machine


def latency_words(machine: Machine) -> str:
    """Return what loads are taken to take, and where that is from, in one line."""
    figure = machine.figure(BULK if machine.has("tma") else MEAN)
    stated = any(figure.name == PERCENTILE for figure in machine.figures)
    return f"{figure.value:.0f} cycles{'' if stated else ', a mean'} ({figure.source})"
