"""The model: layers with parameters, weights and work, and the hot loops they give."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.codegen.report.sections import Context, Section, filled
from treadle.ir.deployment import DeploymentBody
from treadle.ir.symbolic import evaluate
from treadle.ir.workload import Phase


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer type; work of all its copies in one step, in FLOP."""

    name: str
    role: str
    count: int
    parameters: int
    active: int
    stored_bytes: int
    prefill_flops: float
    decode_flops: float


def section(context: Context) -> Section | None:
    """Return the table of layers, or nothing for plans without a model."""
    body = context.plan.body
    if not isinstance(body, DeploymentBody):
        return None
    lengths = body.request.workload.lengths
    prompt, output = lengths.prompt(0.5), lengths.output(0.5)
    batch, kv = body.request.decode_batch, prompt + output
    prefill = {"batch": 1, "seq": prompt, "kv": prompt, "scored": 1, "source": 0}
    decode = {"batch": batch, "seq": 1, "kv": kv, "scored": 1, "source": 0}
    rows = [
        LayerRow(
            layer.name,
            layer.role.value,
            count,
            layer.parameters,
            layer.active_parameters,
            layer.stored_bytes,
            count * float(evaluate(layer.flops(Phase.PREFILL), **prefill)),
            count * float(evaluate(layer.flops(Phase.DECODE), **decode)),
        )
        for layer, count in body.model.forward()
    ]
    html = filled("model.html.j2", model=body.model, rows=rows, prompt=prompt, batch=batch, kv=kv, loops=body.hot_loops)
    return Section("model", "Model", html)
