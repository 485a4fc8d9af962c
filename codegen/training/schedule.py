"""The pipeline schedule as PyTorch reads it: one row per rank, cells `[stage][F, B, I or W][microbatch]`.

`PipelineScheduleMulti._load_csv` of `torch.distributed.pipelining` (2.13) takes the file; torchtitan passes it on with
`pipeline_parallel_schedule_csv`. B is a whole backward, I the gradient of inputs, W that of weights.
"""

from __future__ import annotations

import re

from treadle.codegen.training.errors import NotReadBack
from treadle.costmodels.training_schedules import BACKWARD, FORWARD, WEIGHT, Entry, schedule_of
from treadle.ir.training.plan import Degrees, ParallelBody

_CELL = re.compile(r"(\d+)([FBIW])(\d+)")


def schedule_text(body: ParallelBody) -> str:
    """Return the schedule of every pipeline rank."""
    degrees = body.degrees
    count = degrees.microbatches(body.spec.global_batch)
    rows = (schedule_of(rank, degrees, count) for rank in range(degrees.pipeline))
    return "".join(",".join(_cell(degrees, rank, entry) for entry in row) + "\n" for rank, row in enumerate(rows))


def _cell(degrees: Degrees, rank: int, entry: Entry) -> str:
    kind, chunk, microbatch = int(entry[0]), entry[1], entry[2]
    backward = "I" if degrees.schedule.splits_backward else "B"
    letter = {FORWARD: "F", BACKWARD: backward, WEIGHT: "W"}[kind]
    return f"{degrees.slots_of(rank)[chunk]}{letter}{microbatch}"


def parse_schedule(text: str, degrees: Degrees) -> tuple[tuple[Entry, ...], ...]:
    """Return the entries of every rank; raises NotReadBack."""
    kinds = {"F": FORWARD, "B": BACKWARD, "I": BACKWARD, "W": WEIGHT}
    found: list[tuple[Entry, ...]] = []
    for rank, line in enumerate(text.splitlines()):
        slots = degrees.slots_of(rank) if rank < degrees.pipeline else ()
        entries: list[Entry] = []
        for cell in line.split(","):
            match = _CELL.fullmatch(cell.strip())
            if match is None or int(match[1]) not in slots:
                raise NotReadBack(file="schedule.csv", reason=f"`{cell}` in row {rank} is no entry of that rank")
            entries.append((kinds[match[2]], slots.index(int(match[1])), int(match[3])))
        found.append(tuple(entries))
    return tuple(found)
