"""Re-planning of published training layouts after nodes are lost or slow: time, migrated bytes, step before and after.

Plans: Llama 3 405B on 16,384 GPUs (tp8 pp16 dp128, arXiv 2407.21783, table 4), DeepSeek-V3 on 2,048 (pp16 ep64 dp128,
arXiv 2412.19437, section 3.2), a 70B model on 512.
"""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.parallel_speed import deepseek, llama
from treadle.costmodels.training_bounds import Quick
from treadle.costmodels.training_elastic import old_setting, transfer_us
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_layouts import choices
from treadle.costmodels.training_replay import replay
from treadle.costmodels.training_setting import setting_of
from treadle.ir.diagnostics import TreadleError
from treadle.ir.training.check_replan import check_replan
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.elastic import Event, SlowNode, Terms
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.plan import Degrees, ParallelBody
from treadle.ir.training.spec import Recompute, TrainingSpec
from treadle.solvers.replanning.solve import replan

TARGET_S = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """A running plan."""

    name: str
    model: TrainingModel
    degrees: Degrees
    batch: int
    sequence: int


def cases() -> list[Case]:
    """Return the running plans."""
    return [
        Case("Llama 70B / 512", llama(8192, 28672, 80, 64), Degrees(16, 4, 1, 8, 1, zero=1), 1024, 8192),
        Case(
            "Llama 405B / 16384",
            llama(16384, 53248, 126, 128),
            Degrees(128, 8, 1, 16, 1, zero=1, recompute=Recompute.SELECTIVE),
            2048,
            8192,
        ),
        Case(
            "DeepSeek-V3 / 2048",
            deepseek(256, 61),
            Degrees(128, 1, 1, 16, 1, expert=64, zero=1, recompute=Recompute.FULL),
            15360,
            4096,
        ),
    ]


def body_of(case: Case) -> ParallelBody:
    """Return the running plan with its best layout."""
    cluster = ClusterTopology((NodeGroup("h100", case.degrees.gpus // 8, 8),))
    setting = setting_of(case.model, cluster, TrainingSpec(case.batch, case.sequence))
    options = choices(setting, case.degrees, Quick(setting, LayerTimer(setting)))
    layout = options[0].layout
    if layout is None:
        raise SystemExit(f"{case.name}: no layout fits")
    stages = replay(setting, case.degrees, layout).stages
    return ParallelBody(case.model, cluster, setting.spec, case.degrees, layout, stages)


def events() -> list[tuple[str, Event, Terms]]:
    """Return what happens: name, event, terms."""
    mirrored = Terms(mirrored=True)
    return [
        ("1 lost", Event((3,)), mirrored),
        ("1 lost, even", Event((3,)), Terms(mirrored=True, even=True)),
        ("1 lost, no mirror", Event((3,)), Terms()),
        ("4 lost", Event((3, 10, 17, 24)), mirrored),
        ("1 slow x1.3", Event(slow=(SlowNode(5, 1.3),)), mirrored),
    ]


def measure(case: Case, body: ParallelBody, name: str, event: Event, terms: Terms, repeats: int) -> dict[str, Any]:
    """Re-plan and return the figures; times are medians."""
    walls: list[float] = []
    busy: list[float] = []
    try:
        found = replan(body, event, terms)
        for _ in range(repeats):
            start, used = time.perf_counter(), time.process_time()
            replan(body, event, terms)
            walls.append(time.perf_counter() - start)
            busy.append(time.process_time() - used)
    except TreadleError as error:
        return {"case": case.name, "event": name, "error": str(error)}
    start = time.process_time()
    findings = check_replan(found.body)
    checked = time.process_time() - start
    step, moved, saved = found.certificate.levels
    after = found.body
    sent = transfer_us(old_setting(body), body, after.seats, after.transfers, terms, after.degrees.tensor)
    return {
        "case": case.name,
        "event": name,
        "seconds": round(statistics.median(walls), 3),
        "processor_seconds": round(statistics.median(busy), 3),
        "check_seconds": round(checked, 3),
        "findings": len(findings),
        "before_s": found.before_us / 1e6,
        "step_s": found.step_us / 1e6,
        "step_bound_s": (step.bound or 0.0) / 1e6,
        "step_status": step.status.value,
        "migrated_GB": moved.value / 1e9,
        "migrated_bound_GB": (moved.bound or 0.0) / 1e9,
        "transfers": len(after.transfers),
        "transfer_s": sent / 1e6,
        "recovery": after.recovery.value,
        "plan": after.degrees.text(),
        "checkpoint_steps": after.checkpoints.steps,
        "wasted": saved.value,
    }


def main() -> int:
    """Print and write the table."""
    chosen = arguments("re-planning after nodes are lost or slow", repeats={"type": int, "default": 3})
    rows: list[dict[str, Any]] = []
    for case in cases():
        body = body_of(case)
        rows += [measure(case, body, *event, chosen.repeats) for event in events()]
    solved = [row for row in rows if "error" not in row]
    table(
        ("case", "event", "s", "cpu s", "before", "step s", "bound", "GB", "bound GB", "moved in s", "moves", "plan"),
        [
            (
                row["case"], row["event"], row["seconds"], row["processor_seconds"], row["before_s"], row["step_s"],
                row["step_bound_s"], row["migrated_GB"], row["migrated_bound_GB"], row["transfer_s"],
                row["transfers"], row["plan"],
            )
            for row in solved
        ],
    )  # fmt: skip
    for row in rows:
        if "error" in row:
            print(f"{row['case']}, {row['event']}: {row['error']}")
    figures = {
        "largest_seconds": max(row["seconds"] for row in solved),
        "largest_processor_seconds": max(row["processor_seconds"] for row in solved),
        "target_s": TARGET_S,
        "findings": sum(row["findings"] for row in solved),
    }
    print(figures)
    finish("replan", figures, rows, chosen.json)
    return int(any(row["findings"] for row in solved))


if __name__ == "__main__":
    sys.exit(main())
