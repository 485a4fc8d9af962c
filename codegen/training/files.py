"""All files of a parallel plan, and their way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from treadle.codegen.training import deepspeed, megatron, mesh, schedule, torchtitan
from treadle.codegen.training.errors import NotReadBack
from treadle.costmodels.training_schedules import schedule_of
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.placement import group_of_rank
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.ranks import position_of
from treadle.ir.training.spec import Trainer
from treadle.ir.training.trainers import notes, unsaid

Reading = tuple[Degrees, StageLayout | None]
_MOST_CELLS = 2_000_000
"""Cells of a schedule file; a longer one is not written."""


def files(body: ParallelBody) -> dict[str, bytes]:
    """Return the trainer files by path in the plan folder: of every trainer that can say the plan, and notes."""
    degrees = body.degrees
    found = {"training/device_mesh.py": mesh.snippet(body), "training/ranks.csv": ranks(degrees, body.cluster)}
    if not unsaid(Trainer.MEGATRON, degrees, body.layout):
        found["training/megatron_args.sh"] = megatron.script(body)
        found["training/megatron_bridge.json"] = megatron.bridge(body)
    if not unsaid(Trainer.TORCHTITAN, degrees, body.layout):
        found["training/torchtitan.args"] = torchtitan.overrides(body)
        found["training/torchtitan_config.py"] = torchtitan.config(body)
    if not unsaid(Trainer.DEEPSPEED, degrees, body.layout):
        found["training/deepspeed.json"] = deepspeed.config(body)
    if degrees.pipeline > 1 and 3 * degrees.slots * degrees.microbatches(body.spec.global_batch) <= _MOST_CELLS:
        found["training/schedule.csv"] = schedule.schedule_text(body)
    if said := notes(degrees, body.layout):
        found["training/notes.txt"] = "".join(f"{note}\n" for note in said)
    return {path: text.encode() for path, text in found.items()}


def ranks(degrees: Degrees, cluster: ClusterTopology) -> str:
    """Return the position of every global rank in the plan's rank order, and the node group it must run on."""
    placed = bool(degrees.placement)
    lines = ["rank,tensor,context,data,pipeline" + (",group" if placed else "")]
    for rank in range(degrees.gpus):
        lines.append(",".join(map(str, _row(degrees, cluster, rank))))
    return "\n".join(lines) + "\n"


def _row(degrees: Degrees, cluster: ClusterTopology, rank: int) -> tuple[int, ...]:
    place, group = position_of(degrees, rank), group_of_rank(cluster, degrees, rank)
    row = rank, *(place[name] for name in ("tp", "cp", "dp", "pp"))
    return row if group is None else (*row, group)


def read_back(body: ParallelBody, contents: Mapping[str, str]) -> list[Finding]:
    """Return where a file says something else than the plan."""
    readers: dict[str, Callable[[str], Reading]] = {
        "training/megatron_args.sh": lambda text: megatron.parse_script(text, body),
        "training/megatron_bridge.json": lambda text: megatron.parse_bridge(text, body),
        "training/torchtitan.args": lambda text: (torchtitan.parse_overrides(text, body), None),
        "training/deepspeed.json": lambda text: (deepspeed.parse(text, body), None),
    }
    findings: list[Finding] = []
    for path, text in contents.items():
        try:
            if path in readers:
                findings += _compared(body, path, *readers[path](text))
            elif path in _CHECKS and not _CHECKS[path](body, text):
                findings.append(Finding("TRD428", path, "says something else than the plan"))
        except TreadleError as error:
            findings.append(Finding("TRD428", path, str(error)))
    return findings


def _compared(body: ParallelBody, path: str, degrees: Degrees, layout: StageLayout | None) -> list[Finding]:
    findings: list[Finding] = []
    wanted = replace(body.degrees, placement=())  # which node group a rank runs on is said by ranks.csv alone
    if path.startswith("training/megatron") and wanted.zero == 2:
        wanted = replace(wanted, zero=1)
    if degrees != wanted:
        findings.append(Finding("TRD428", path, "says other degrees", wanted.text(), degrees.text()))
    if layout is not None and layout != body.layout:
        findings.append(Finding("TRD428", path, "says another layout", str(body.layout), str(layout)))
    return findings


def _same_ranks(body: ParallelBody, text: str) -> bool:
    """Whether every rank has the place the order gives it, and every place one rank."""
    try:
        rows = [tuple(int(cell) for cell in line.split(",")) for line in text.splitlines()[1:]]
    except ValueError:
        raise NotReadBack(file="ranks.csv", reason="a cell is no number") from None
    return rows == [_row(body.degrees, body.cluster, rank) for rank in range(body.degrees.gpus)]


def _same_schedule(body: ParallelBody, text: str) -> bool:
    degrees, count = body.degrees, body.degrees.microbatches(body.spec.global_batch)
    found = schedule.parse_schedule(text, degrees)
    rows = [tuple((int(kind), chunk, number) for kind, chunk, number in row) for row in found]
    wanted = [schedule_of(rank, degrees, count) for rank in range(degrees.pipeline)]
    return rows == [tuple((int(kind), chunk, number) for kind, chunk, number in row) for row in wanted]


def _same_mesh(body: ParallelBody, text: str) -> bool:
    sizes, reshard = mesh.parse_snippet(text)
    return list(sizes.items()) == list(mesh.mesh_sizes(body).items()) and reshard == (body.degrees.zero == 3)


_CHECKS: dict[str, Callable[[ParallelBody, str], bool]] = {
    "training/ranks.csv": _same_ranks,
    "training/schedule.csv": _same_schedule,
    "training/device_mesh.py": _same_mesh,
    "training/torchtitan_config.py": lambda body, text: torchtitan.parse_config(text) == torchtitan.fields(body),
}
