"""Sections of GPT-2 medium on InTAR's device, beside running in turn and beside one fixed pipeline a layer.

Run: `python -m benchmarks.sections --json OUT`. Needs no data: the model's published shape is below.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.costmodels.section_tasks import task_graph
from treadle.costmodels.sections import SectionCosts, potential_bound_ns, predictions, section_machine
from treadle.frontends.hf import parse_model
from treadle.ir.sections.graph import SectionMode, check
from treadle.solvers.sections.solve import cut

GPT2_MEDIUM: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16,
    "n_positions": 1024, "n_ctx": 1024, "vocab_size": 50257, "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5, "torch_dtype": "float32",
}  # fmt: skip
"""The published config.json of GPT-2 medium, as far as it matters."""

PUBLISHED = {"over_dataflow": 1.8, "over_sequential": 7.1}
"""InTAR (arXiv 2502.08807): its kernels of varying data volume over dataflow and sequential accelerators."""

SETTINGS = (("u280", 1024), ("u280", 512), ("u280", 256), ("u280", 128), ("sn40l", 1024), ("ve2302", 256))


def row(machine_id: str, tokens: int) -> dict[str, Any]:
    """Cut the model for one machine and prompt length; check the proof again."""
    machine = section_machine(machine_id)
    graph = task_graph(parse_model(json.dumps(GPT2_MEDIUM), name="gpt2-medium"), machine, 1, tokens)
    started = time.process_time()
    body, certificate = cut(graph, machine)
    solved = time.process_time() - started
    level = certificate["time"]
    started = time.process_time()
    costs = SectionCosts(graph, machine)
    proven = potential_bound_ns(costs, level.evidence["potentials"])
    checked = time.process_time() - started
    modes = Counter(section.mode for section in body.sections)
    found = {item.name: item.value for item in predictions(body)}
    only = {
        f"{mode.value}_only_time": cut(graph, machine, frozenset({mode}))[1]["time"].value
        for mode in (SectionMode.IN_TURN,)
    }
    return {
        "machine": machine_id, "tokens": tokens, "tasks": len(graph.tasks), "status": level.status.value,
        "bound_rederived": proven == level.value, "findings": len(check(body)),
        "sections": {mode.value: modes[mode] for mode in SectionMode},
        **{name: value / 1000 if name.endswith("time") else value for name, value in {**found, **only}.items()},
        "processor_seconds": round(solved, 2), "processor_seconds_check": round(checked, 2),
    }  # fmt: skip


def main() -> None:
    """Run all settings and print the table, times in us."""
    options = arguments("Sections of GPT-2 medium")
    rows = [row(*setting) for setting in SETTINGS]
    names = ("machine", "tokens", "time", "in_turn_time", "dataflow_time", "gain_over_in_turn", "gain_over_dataflow")
    table((*names, "status"), [(*(each.get(name, "-") for name in names), each["status"]) for each in rows])
    finish("sections", {"published": PUBLISHED, "unit": "us", "note": NOTE}, rows, options.json)


NOTE = (
    "Predictions of treadle's own section model with the device figures of costmodels/data/section_machines, some of "
    "them recalled or assumed; not measurements. In turn: one task after another on all units, every tensor through "
    "memory; in-turn_only_time: the same, with tensors kept on chip. Dataflow: one fixed pipeline a layer; absent "
    "where its buffers do not fit. Published gains are of other kernels."
)

if __name__ == "__main__":
    main()
