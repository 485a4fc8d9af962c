"""All files of a parallel plan, and their way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from treadle.codegen.training import deepspeed, megatron, torchtitan
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.training.plan import Degrees, ParallelBody, StageLayout
from treadle.ir.training.spec import Order

Reading = tuple[Degrees, StageLayout | None]


def files(body: ParallelBody) -> dict[str, bytes]:
    """Return the trainer files by path in the plan folder."""
    found = {
        "training/megatron_args.sh": megatron.script(body),
        "training/megatron_bridge.json": megatron.bridge(body),
        "training/torchtitan.args": torchtitan.overrides(body),
        "training/torchtitan_config.py": torchtitan.config(body),
        "training/device_mesh.py": torchtitan.mesh_snippet(body),
        "training/ranks.csv": ranks(body.degrees),
    }
    if deepspeed.applies(body.degrees):
        found["training/deepspeed.json"] = deepspeed.config(body)
    return {path: text.encode() for path, text in found.items()}


def ranks(degrees: Degrees) -> str:
    """Return the position of every global rank: tensor fastest, then context, then data and pipeline in the
    plan's order."""
    lines = ["rank,tensor,context,data,pipeline"]
    inner, outer = (degrees.data, degrees.pipeline)
    swapped = degrees.order is Order.PIPELINE_FIRST
    if swapped:
        inner, outer = outer, inner
    for rank in range(degrees.gpus):
        rest, tensor = divmod(rank, degrees.tensor)
        rest, context = divmod(rest, degrees.context)
        far, near = divmod(rest, inner)
        data, pipeline = (far, near) if swapped else (near, far)
        lines.append(f"{rank},{tensor},{context},{data},{pipeline}")
    return "\n".join(lines) + "\n"


def read_back(body: ParallelBody, contents: Mapping[str, str]) -> list[Finding]:
    """Return where a file says something else than the plan."""
    gpus = body.degrees.gpus
    readers: dict[str, Callable[[str], Reading]] = {
        "training/megatron_args.sh": lambda text: megatron.parse_script(text, gpus),
        "training/megatron_bridge.json": lambda text: megatron.parse_bridge(text, gpus),
        "training/torchtitan.args": lambda text: (torchtitan.parse_overrides(text, body), None),
        "training/deepspeed.json": lambda text: (deepspeed.parse(text, body), None),
    }
    findings: list[Finding] = []
    for path, text in contents.items():
        if path not in readers:
            continue
        try:
            degrees, layout = readers[path](text)
        except TreadleError as error:
            findings.append(Finding("TRD428", path, str(error)))
            continue
        wanted = body.degrees
        if path.startswith("training/megatron") and wanted.zero == 2:
            wanted = replace(wanted, zero=1)
        if degrees != wanted:
            findings.append(Finding("TRD428", path, "says other degrees", wanted.text(), degrees.text()))
        if layout is not None and layout != body.layout:
            findings.append(Finding("TRD428", path, "says another layout", str(body.layout), str(layout)))
    return findings
