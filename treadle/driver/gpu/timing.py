"""Times on a GPU: medians over rotating inputs, contenders interleaved so that clocks treat them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

Run = Callable[[int], object]
"""Runs once on the inputs of a number; numbers go round."""


HOST_CYCLES = 300_000
"""Cycles in which the host launches one run: about 150 us at 2 GHz, several times what a launch in Python takes."""

CLOCK_TRIPS = 100_000
"""Looks at the cycle counter, of 10 to 30 cycles each, over which the clock is counted."""


class Timer(Protocol):
    """Measures runs."""

    def times_us(self, run: Run, repeats: int, first: int) -> list[float]:
        """Return the time of each of `repeats` runs, on inputs `first`, `first` + 1, ..., in microseconds."""
        ...


class EventTimer:
    """Measures by CUDA events around every run.

    The GPU sleeps until all runs are queued, so that the host's launches do not show between two events.
    """

    def times_us(self, run: Run, repeats: int, first: int) -> list[float]:
        """Return the time of each run in microseconds."""
        import torch

        sleep: Any = vars(torch.cuda)["_sleep"]
        sleep(repeats * HOST_CYCLES)
        pairs: list[tuple[Any, Any]] = []
        for number in range(first, first + repeats):
            start, end = event(), event()
            start.record()
            run(number)
            end.record()
            pairs.append((start, end))
        torch.cuda.synchronize()
        return [1e3 * start.elapsed_time(end) for start, end in pairs]


class ClockTimer:
    """Measures by the host's clock, for rehearsals on a machine without a GPU: one run stands for all repeats."""

    def times_us(self, run: Run, repeats: int, first: int) -> list[float]:
        """Return the time of one run, so many times, in microseconds."""
        start = time.perf_counter()
        run(first)
        return [1e6 * (time.perf_counter() - start)] * repeats


def event() -> Any:
    """Return a CUDA event that keeps its time."""
    import torch

    make: Any = torch.cuda.Event
    return make(enable_timing=True)


def clock_ghz() -> float:
    """Return the multiprocessors' clock right behind the work that is queued: cycles over nanoseconds, for about 1 ms.

    A tool that is asked afterwards says what an idle GPU does.
    """
    import torch

    from treadle.driver.gpu.machine_kernels import clock_kernel

    out = torch.zeros(2, dtype=torch.int64, device="cuda")
    launch: Any = clock_kernel[(1,)]
    launch(out, CLOCK_TRIPS, num_warps=1)
    cycles, nanoseconds = out.tolist()
    return float(cycles / nanoseconds)


def medians_us(
    contenders: Mapping[str, Run], timer: Timer, *, rounds: int = 5, round_us: float = 40_000, most: int = 100
) -> dict[str, float]:
    """Return the median time of each contender.

    Args:
        contenders: runs by name.
        timer: how they are measured.
        rounds: how often the contenders take turns.
        round_us: time of one turn; `most` is the most runs of it.
    """
    repeats: dict[str, int] = {}
    for name, run in contenders.items():
        timer.times_us(run, 3, 0)  # compile, allocate, warm up
        once = max(0.1, statistics.median(timer.times_us(run, 3, 0)))
        repeats[name] = int(max(3, min(most, round_us / once)))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name, run in contenders.items():
            times[name] += timer.times_us(run, repeats[name], turn * repeats[name])
    return {name: statistics.median(found) for name, found in times.items()}


def rotating_sets(bytes_of_one: int, cache_bytes: int, memory_bytes: int) -> int:
    """Return how many sets of inputs keep any of them from being cached when its turn comes, within a memory budget."""
    wanted = 1 + -(-2 * cache_bytes // max(1, bytes_of_one))
    return int(max(1, min(wanted, 16, memory_bytes // max(1, bytes_of_one))))


class Deadline:
    """When a run must be over."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left_s(self) -> float:
        """Seconds left, possibly negative."""
        return self._end - self._clock()

    def part(self, share: float) -> Deadline:
        """Return the deadline of a share of what is left."""
        return Deadline(max(0.0, self.left_s()) * share, self._clock)


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return the rank correlation of two sequences; None below 3 values or where one is constant."""
    if len(first) < 3:
        return None
    a, b = _ranks(first), _ranks(second)
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return statistics.correlation(a, b)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return ranks from 1; equal values share the mean of theirs."""
    order = sorted(values)
    return [order.index(value) + (order.count(value) + 1) / 2 for value in values]
