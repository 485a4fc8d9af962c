"""How long a run takes, before it begins, and how its time is shared out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

CHECK_SHARE = 0.45
"""Share of a run's time in which kernels are checked side by side; rows behind it are checked when they are timed."""
CHECK_S = {"triton": 8.0, "gluon": 16.0}
"""Seconds of one core to compile a kernel for two shapes and check both, by language."""
TIME_S = 3.0
"""Seconds to make inputs and time a kernel and three contenders."""
FIRST_S = {"gemm": 15.0, "attention_fwd": 30.0, "swiglu": 20.0, "grouped_gemm": 30.0, "kmeans_assign": 15.0}
"""Seconds by which the first rows of a family take longer: contenders are compiled and tuned."""
MEMORY_BYTES = 18 << 30
"""What a process that checks kernels may need of the GPU."""
MOST_PROCESSES = 8


def processes_for(memory_bytes: int, cores: int = os.cpu_count() or 1) -> int:
    """Return how many processes check kernels side by side: as cores and the memory of the GPU allow."""
    return max(1, min(MOST_PROCESSES, cores // 2, memory_bytes // MEMORY_BYTES))


def estimate(rows: Sequence[Mapping[str, Any]], processes: int, *, timed: bool = True) -> dict[str, float]:
    """Return the seconds that checking (`check`) and timing (`time`) the rows of a suite will take, about."""
    own = [row for row in rows if not row.get("refused")]
    check_s = sum(CHECK_S[row.get("language", "triton")] for row in own) / processes
    first = {row["family"]: FIRST_S.get(row["family"], 5.0) for row in own}
    return {"check": check_s, "time": TIME_S * len(own) + sum(first.values()) if timed else 0.0}


def estimate_line(rows: Sequence[Mapping[str, Any]], processes: int, limit_s: float, *, timed: bool = True) -> str:
    """Return what a run is going to be, in words."""
    own = [row for row in rows if not row.get("refused")]
    taken = estimate(rows, processes, timed=timed)
    by = "1 process" if processes == 1 else f"{processes} processes"
    kernels = "1 kernel" if len(own) == 1 else f"{len(own)} kernels"
    words = f"{kernels}: about {taken['check']:.0f} s to compile and check by {by}"
    if timed:
        words += f", {taken['time']:.0f} s to time"
    over = sum(taken.values()) > limit_s
    return f"{words}; limit {limit_s:.0f} s{', the last rows may not be reached' if over else ''}"
