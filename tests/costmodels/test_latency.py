"""Percentiles of load latency: measured steps only, refused where there are none, the same in plan and review."""

from __future__ import annotations

from dataclasses import replace

import pytest

from treadle.costmodels.latency import (
    NoLatencyDistribution,
    PercentileOutOfRange,
    at_percentile,
    at_percentile_of,
    latency_words,
    measured_percentiles,
)
from treadle.costmodels.machines import load_machine

H100 = load_machine("h100")


@pytest.mark.parametrize(("percentile", "cycles"), [(1, 556), (50, 556), (51, 744), (90, 744), (100, 744)])
def test_a_percentile_takes_the_next_measured_step(percentile: int, cycles: int) -> None:
    late = at_percentile(H100, percentile)
    assert late.value("global_latency_cycles") == cycles
    more = cycles - H100.value("global_latency_cycles")
    assert late.value("tma_latency_base_cycles") == H100.value("tma_latency_base_cycles") + more
    assert late.value("load_latency_percentile") == percentile


def test_every_measured_figure_has_a_source() -> None:
    assert list(measured_percentiles(H100)) == [50, 100]
    assert all(figure.source and figure.date for figure in measured_percentiles(H100).values())
    assert "a mean" in latency_words(H100)
    assert "percentile 90" in latency_words(at_percentile(H100, 90))


@pytest.mark.parametrize("machine", ["a100", "h200", "b200", "mi300x"])
def test_a_machine_without_measurements_is_refused(machine: str) -> None:
    with pytest.raises(NoLatencyDistribution, match=machine):
        at_percentile(load_machine(machine), 90)


def test_what_is_beyond_the_measurements_is_refused() -> None:
    kept = tuple(figure for figure in H100.figures if figure.name != "global_latency_p100_cycles")
    with pytest.raises(PercentileOutOfRange):
        at_percentile(replace(H100, figures=kept), 51)
    with pytest.raises(PercentileOutOfRange):
        at_percentile(H100, 0)


def test_the_review_derives_the_same_machine() -> None:
    late = at_percentile(H100, 90)
    assert at_percentile_of(H100, late) == late
    assert at_percentile_of(H100, H100) == H100
    forged = replace(late, figures=tuple(f for f in late.figures if f.name != "global_latency_cycles"))
    assert at_percentile_of(H100, forged) != forged
