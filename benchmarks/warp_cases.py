"""The tile programs that benchmarks schedule over warp groups, on which machines, and their schedules on disk.

Schedules are kept in a folder, one file each, so that a stopped run goes on where it was and one benchmark takes over
what another has solved. A file made by other code (solvers, checkers, costs, programs) is not used.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

from treadle.costmodels.lower import lower
from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.driver.kernel_groups import schedule_over_groups
from treadle.frontends import programs
from treadle.ir.certificate import Certificate
from treadle.ir.codec import decode, encode
from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import Room, WarpPlan
from treadle.ir.tile.program import TileProgram
from treadle.ir.tile.warps import WarpSchedule
from treadle.solvers import interruption
from treadle.solvers.backend import Limits
from treadle.solvers.modulo import solve as modulo
from treadle.solvers.modulo.errors import MemoryExceeded
from treadle.solvers.pipeline import solve as pipeline

ATTENTION = {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}
DECODE = {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 8192, "qk_head_dim": 128, "v_head_dim": 128}
MATRIX = {"m": 4096, "n": 4096, "k": 4096}
SQUARE = {"block_m": 128, "block_n": 128, "block_k": 64}
PAIR = {"block_m": 128, "block_n": 128, "sub_tiles": 2}
SMALL = {"block_m": 64, "block_n": 64, "sub_tiles": 1}


@dataclass(frozen=True)
class Wanted:
    """A program at a shape; with sizes left out, or on a machine they do not fit, the largest candidate that fits.

    `sibling` names a further loop of the kernel instead of its main one. With `exact` other sizes stand in for none.
    """

    family: str
    shape: dict[str, int]
    sizes: dict[str, int]
    switches: tuple[tuple[str, str | int | bool], ...] = ()
    sibling: str = ""
    exact: bool = False


CASES: dict[str, Wanted] = {
    "attention pair hd128": Wanted("attention_fwd", ATTENTION, PAIR),
    "attention pair hd64": Wanted("attention_fwd", {**ATTENTION, "qk_head_dim": 64}, PAIR),
    "attention pair hd256": Wanted("attention_fwd", {**ATTENTION, "qk_head_dim": 256}, {**PAIR, "block_n": 64}),
    "attention pair causal": Wanted("attention_fwd", {**ATTENTION, "causal": 1}, PAIR, sibling="attention_fwd_masked"),
    "attention 128x128 in 1": Wanted("attention_fwd", ATTENTION, {**PAIR, "sub_tiles": 1}, exact=True),
    "attention 64x64 in 1": Wanted("attention_fwd", ATTENTION, SMALL),
    "attention varlen": Wanted("attention_varlen", {"batch": 16, "tokens": 65536, "heads": 32, "qk_head_dim": 128}, {}),
    "attention decode": Wanted("attention_decode", DECODE, {}),
    "attention paged": Wanted("attention_paged", DECODE, {}),
    "attention backward": Wanted("attention_bwd", ATTENTION, {**SMALL, "block_n": 128}),
    "attention backward 64x64": Wanted("attention_bwd", ATTENTION, SMALL),
    "gemm": Wanted("gemm", MATRIX, SQUARE),
    "gemm persistent": Wanted("gemm_persistent", MATRIX, {**SQUARE, "repeats": 8}),
    "gemm persistent, stores": Wanted(
        "gemm_persistent", MATRIX, {**SQUARE, "repeats": 8}, sibling="gemm_persistent_store"
    ),
    "gemm fp8, scales of rows": Wanted("gemm_fp8", MATRIX, {}, (("scales", "row"),)),
    "gemm fp8, scales of blocks": Wanted("gemm_fp8", MATRIX, {}, (("scales", "block"),)),
    "gemm w4a16": Wanted("gemm_w4a16", {"m": 16, "n": 14336, "k": 4096, "group": 128}, {}),
    "gemm w4a16, many rows": Wanted("gemm_w4a16", {**MATRIX, "group": 128}, {**SQUARE, "block_k": 128}),
    "swiglu": Wanted("swiglu", {"m": 4096, "n": 14336, "k": 4096}, SQUARE),
    "grouped gemm": Wanted("grouped_gemm", {"experts": 64, "tokens": 8192, "top_k": 6, "n": 1408, "k": 2048}, {}),
    "dual gemm": Wanted("dual_gemm", MATRIX, {}),
    "norm and gemm": Wanted("rms_norm_gemm", MATRIX, SQUARE),
    "norm and gemm, squares": Wanted("rms_norm_gemm", MATRIX, SQUARE, sibling="rms_norm_gemm_squares"),
    "norm and gemm in one loop": Wanted("rms_norm_gemm", MATRIX, SQUARE, (("form", "one_loop"),)),
    "k-means assignment": Wanted("kmeans_assign", {"points": 1048576, "centroids": 4096, "dimension": 128}, {}),
    "layer norm": Wanted("layer_norm", {"rows": 8192, "columns": 4096}, {}),
    "rms norm": Wanted("rms_norm", {"rows": 8192, "columns": 4096}, {}),
}
MACHINES = ("a100", "h100", "h200", "b200", "mi300x")
SOURCES = ("ir/tile", "ir/proof_log", "solvers/pipeline", "solvers/modulo", "solvers/backend.py", "frontends/programs",
           "costmodels/lower.py", "costmodels/lower_warps.py", "costmodels/tile_cycles.py",
           "costmodels/tile_traffic.py", "costmodels/data/machines")  # fmt: skip
"""What a schedule depends on."""
MOST_SIZES = 4
"""Sizes of a case that are scheduled, one after the other, where handoffs find no room."""


@dataclass(frozen=True)
class Solved:
    """A scheduled case, or why there is none. `cpu_s` is what solving took; `stopped` that it ran out of time.

    `impossible` says that bounds refuse every size of the case on the machine, so that it is no open problem.
    """

    name: str
    machine: Machine
    program: TileProgram | None
    plan: WarpPlan | None
    refused: str
    cpu_s: float
    stopped: bool
    impossible: bool = False


def programs_for(name: str, machine: Machine) -> Iterator[TileProgram]:
    """Yield a case's loop at its sizes, then at others from the largest on, where no bound refuses groups there.

    Raises the refusal of the last candidate when there is none.
    """
    wanted = CASES[name]
    switches = dict(wanted.switches)
    others = programs.candidates(wanted.family, wanted.shape, switches)
    others = tuple(sorted(others, key=lambda program: -prod(program.tile_sizes.values())))
    first = [programs.build(wanted.family, wanted.shape, wanted.sizes, switches)] if wanted.sizes else []
    refusal: TreadleError | None = None
    able = False
    for program in first if wanted.exact else [*first, *others]:
        loops = [loop for loop in (program, *program.siblings) if loop.name == (wanted.sibling or program.name)]
        try:
            pipeline.refuse_impossible(lower_warps(loops[0], machine))
            modulo.schedule(lower(loops[0], machine), modulo.Options(Limits(deterministic_s=0.02), levels=1))
        except TreadleError as error:
            refusal = error
            continue
        able = True
        yield loops[0]
    if not able and refusal is not None:
        raise refusal


def program_for(name: str, machine: Machine) -> TileProgram:
    """Return the first of `programs_for`; raises as it does."""
    return next(programs_for(name, machine))


def solve(name: str, machine_name: str, limit_s: float, wall_s: float, folder: Path | None) -> Solved:
    """Schedule a case over warp groups, or take its schedule from the folder.

    Args:
        limit_s: deterministic seconds per question to the solver.
        wall_s: seconds after which the search is asked to end with what it has.
        folder: where schedules are kept; None keeps none.
    """
    machine = load_machine(machine_name)
    file = None if folder is None else folder / f"{name.replace(' ', '_').replace(',', '')}.{machine_name}.json"
    made_by = f"{sources_digest()} {limit_s:g} {wall_s:g}"
    if file is not None and file.is_file():
        data = json.loads(file.read_text())
        if data["made_by"] == made_by:
            return _read(name, machine, data)
    data = {"made_by": made_by, **_solved(name, machine, limit_s, wall_s)}
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(data))
    return _read(name, machine, data)


def _solved(name: str, machine: Machine, limit_s: float, wall_s: float) -> dict[str, Any]:
    """Return what is kept of a case; sizes whose handoffs find no room beside the rings leave it to the next.

    Seconds are those of the schedule, from the loop to a program at its pace, without the choice of tile sizes.
    """
    begin = time.process_time()
    refused, proven = "", True
    with _within(wall_s) as stopped:
        try:
            for program in islice(programs_for(name, machine), MOST_SIZES):
                proven, begin = False, time.process_time()
                try:
                    options = pipeline.Options(Limits(deterministic_s=limit_s))
                    found = schedule_over_groups(program, machine, options, lambda _: None)
                except MemoryExceeded as error:
                    refused = refused or f"{error.code}: {error}"
                    continue
                return {**_kept(program, found), "cpu_s": time.process_time() - begin, "stopped": bool(stopped)}
        except TreadleError as error:
            refused = f"{error.code}: {error}"
    ended = {"cpu_s": time.process_time() - begin, "stopped": bool(stopped)}
    return {"refused": refused, "proven": proven, **ended}


def _kept(program: TileProgram, found: WarpPlan) -> dict[str, Any]:
    return {
        "refused": "",
        "tile_sizes": program.tile_sizes,
        "room": encode(found.room),
        "schedule": encode(found.schedule),
        "certificate": encode(found.certificate),
    }


def _read(name: str, machine: Machine, data: dict[str, Any]) -> Solved:
    if data["refused"]:
        proven = data.get("proven", False)
        return Solved(name, machine, None, None, data["refused"], data["cpu_s"], data["stopped"], proven)
    wanted = CASES[name]
    whole = programs.build(wanted.family, wanted.shape, data["tile_sizes"], dict(wanted.switches))
    program = next(p for p in (whole, *whole.siblings) if p.name == (wanted.sibling or whole.name))
    place = Place(name)
    made = decode(WarpSchedule, data["schedule"], lambda _: place)
    certificate = decode(Certificate, data["certificate"], lambda _: place)
    room = decode(Room, data["room"], lambda _: place)
    plan = WarpPlan(room.taken_from(lower_warps(program, machine)), made, certificate, room)
    return Solved(name, machine, program, plan, "", data["cpu_s"], data["stopped"])


@contextmanager
def _within(wall_s: float) -> Generator[list[str]]:
    """Ask running searches to end after some seconds, as Ctrl-C does; what is yielded is then not empty."""
    stopped: list[str] = []
    with interruption.handled(lambda: stopped.append("time")):
        timer = threading.Timer(wall_s, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        try:
            yield stopped
        finally:
            timer.cancel()


@cache
def sources_digest() -> str:
    """Return a digest of all code and figures that schedules depend on."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    for source in SOURCES:
        path = root / source
        for file in sorted(path.rglob("*")) if path.is_dir() else (path,):
            if file.suffix in (".py", ".toml"):
                found.update(file.read_bytes())
    return found.hexdigest()[:16]
