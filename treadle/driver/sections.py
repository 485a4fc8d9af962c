"""The line of `treadle sections`: model and machine -> task graph -> cut of least time -> plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from treadle.costmodels.section_tasks import task_graph
from treadle.costmodels.sections import predictions, section_machine
from treadle.driver.kernel import machine_input
from treadle.driver.versions import versions
from treadle.frontends.hf import load_model
from treadle.ir.codec import encode
from treadle.ir.plan import Plan, input_from
from treadle.solvers.sections.solve import cut


@dataclass(frozen=True, slots=True)
class SectionsRequest:
    """Prompts through the blocks of a model on a spatial machine; `layers` None takes all blocks."""

    machine: str
    batch: int
    tokens: int
    layers: int | None = None


def plan_sections(model_path: Path, request: SectionsRequest) -> Plan:
    """Return the cut of least time, not sealed yet.

    Raises:
        TreadleError: bad input; NoModeFits, MissingFigure, UnknownName.
    """
    machine = section_machine(request.machine)
    graph = task_graph(load_model(model_path), machine, request.batch, request.tokens, request.layers)
    body, certificate = cut(graph, machine)
    file = model_path / "config.json" if model_path.is_dir() else model_path
    inputs = (input_from("model", file), machine_input(machine))
    return Plan("sections", inputs, encode(request), versions(), body, (certificate,), predictions(body))
