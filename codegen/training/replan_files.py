"""Files of a re-plan: the transfer list, the position of every new rank, and trainer files where they can say it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO

from treadle.codegen.training import files as training_files
from treadle.ir.diagnostics import Finding
from treadle.ir.training.check_replan import as_parallel
from treadle.ir.training.elastic import CHECKPOINT, ReplanBody, Transfer, node_size
from treadle.ir.training.holdings import Part, cell_of
from treadle.ir.training.plan import ParallelBody

_HEADER = ("from", "to", "lanes", "part", "first_piece", "last_piece", "start_byte", "end_byte", "bytes", "copy")
_NOTE = """\
Data ranks run different numbers of microbatches ({least} to {most}), which no trainer file can say: Megatron-LM and
torchtitan want the global batch to be a multiple of data ranks x microbatch. `counts.csv` has them; with `--even` the
plan keeps to what those trainers run.
"""


def replan_files(body: ReplanBody) -> dict[str, bytes]:
    """Return the files by path in the plan folder."""
    found = {"training/transfers.csv": transfers_text(body), "training/seats.csv": seats_text(body)}
    if even := as_even(body):
        return {**{path: text.encode() for path, text in found.items()}, **training_files.files(even)}
    found["training/counts.csv"] = counts_text(body)
    found["training/note.txt"] = _NOTE.format(least=min(body.counts), most=max(body.counts))
    return {path: text.encode() for path, text in found.items()}


def as_even(body: ReplanBody) -> ParallelBody | None:
    """Return the new plan as one that trainers run, or None where data ranks differ."""
    if len(set(body.counts)) > 1:
        return None
    return replace(as_parallel(body), spec=body.before.spec)


def transfers_text(body: ReplanBody) -> str:
    """Return the transfer list: `from` in old ranks (or `checkpoint`), `to` in new ones; lane l adds l to both."""
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_HEADER)
    for item in body.transfers:
        source = "checkpoint" if item.source == CHECKPOINT else item.source
        lanes = body.degrees.tensor
        row = (source, item.target, lanes, item.part.value, item.first, item.after - 1, item.start, item.end)
        writer.writerow((*row, item.lane_bytes * lanes, "mirror" if item.mirror else "own"))
    return out.getvalue()


def parse_transfers(text: str) -> tuple[Transfer, ...]:
    """Return the transfers of a list; raises ValueError, KeyError for another format."""
    found: list[Transfer] = []
    for row in csv.DictReader(StringIO(text)):
        source = CHECKPOINT if row["from"] == "checkpoint" else int(row["from"])
        first, after = int(row["first_piece"]), int(row["last_piece"]) + 1
        span = int(row["start_byte"]), int(row["end_byte"])
        found.append(Transfer(source, int(row["to"]), Part(row["part"]), first, after, *span, row["copy"] == "mirror"))
    return tuple(found)


def seats_text(body: ReplanBody) -> str:
    """Return node, old rank and position of every new rank."""
    node, lines = node_size(body.before), ["rank,node,old_rank,stage,holder,tensor"]
    for rank in range(body.degrees.gpus):
        block, local = divmod(rank, body.unit)
        old = body.seats[block] * body.unit + local
        stage, holder = cell_of(body.degrees, rank)
        lines.append(f"{rank},{old // node},{old},{stage},{holder},{rank % body.degrees.tensor}")
    return "\n".join(lines) + "\n"


def counts_text(body: ReplanBody) -> str:
    """Return the microbatches of every data rank."""
    return "data_rank,microbatches\n" + "".join(f"{data},{count}\n" for data, count in enumerate(body.counts))


def read_replan_back(body: ReplanBody, contents: Mapping[str, str]) -> list[Finding]:
    """Return where a file says something else than the plan."""
    findings: list[Finding] = []
    own = {
        "training/transfers.csv": transfers_text,
        "training/seats.csv": seats_text,
        "training/counts.csv": counts_text,
    }
    for path, text in contents.items():
        if path == "training/transfers.csv":
            try:
                same = parse_transfers(text) == body.transfers
            except (ValueError, KeyError, TypeError):
                same = False
            if not same:
                findings.append(Finding("TRD428", path, "says other transfers"))
        elif path in own and text != own[path](body):
            findings.append(Finding("TRD428", path, "says something else than the plan"))
    even = as_even(body)
    return findings + (training_files.read_back(even, contents) if even else [])
