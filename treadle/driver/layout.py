"""`treadle layout`: reads an offline placement problem, solves it, and wraps the result as a plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from treadle.driver.versions import versions
from treadle.frontends.layout_buffers import read_buffers
from treadle.frontends.layout_experts import ExpertOptions, read_experts
from treadle.frontends.layout_tables import read_adapters, read_batch, read_tiers
from treadle.frontends.traced_step import traced_step
from treadle.ir.certificate import Certificate
from treadle.ir.codec import encode
from treadle.ir.plan import Plan, Prediction, input_from
from treadle.solvers.adapters.solve import solve_adapters
from treadle.solvers.backend import Limits
from treadle.solvers.batch_order.solve import solve_batch
from treadle.solvers.buffers.solve import Effort, Tell, solve_buffers
from treadle.solvers.experts.solve import solve_experts
from treadle.solvers.tiers.solve import solve_tiers


@dataclass(frozen=True, slots=True)
class StepShape:
    """What a traced training step works on: sequences, and tokens of each."""

    batch: int
    tokens: int


def plan_buffers(path: Path, capacity_bytes: int | None, effort: Effort, tell: Tell) -> Plan:
    """Place the buffers of a CSV file."""
    body, certificate = solve_buffers(read_buffers(path, capacity_bytes), effort, tell)
    return _plan("buffers", path, {"capacity_bytes": capacity_bytes, "effort": encode(effort)}, body, certificate)


def plan_step_buffers(path: Path, step: StepShape, capacity_bytes: int | None, effort: Effort, tell: Tell) -> Plan:
    """Place the buffers of a training step, traced from the model's configuration."""
    problem = replace(traced_step(path, step.batch, step.tokens), capacity_bytes=capacity_bytes)
    tell(f"traced {len(problem.buffers)} buffers")
    body, certificate = solve_buffers(problem, effort, tell)
    file = path / "config.json" if path.is_dir() else path
    options = {"step": encode(step), "capacity_bytes": capacity_bytes, "effort": encode(effort)}
    return _plan("buffers", file, options, body, certificate)


def plan_experts(path: Path, options: ExpertOptions) -> Plan:
    """Place the experts of a JSON file of loads."""
    body, certificate = solve_experts(read_experts(path, options))
    return _plan("experts", path, encode(options), body, certificate)


def plan_adapters(path: Path, deterministic_s: float) -> Plan:
    """Place the adapters of a JSON file."""
    body, certificate = solve_adapters(read_adapters(path), Limits(deterministic_s=deterministic_s))
    return _plan("adapters", path, {"deterministic_s": deterministic_s}, body, certificate)


def plan_tiers(path: Path, nodes: int) -> Plan:
    """Place the items of a JSON file on memory tiers."""
    body, certificate = solve_tiers(read_tiers(path), nodes)
    return _plan("tiers", path, {"nodes": nodes}, body, certificate)


def plan_batch(path: Path, block_tokens: int, cache_blocks: int) -> Plan:
    """Order and group the requests of a JSONL file."""
    body, certificate = solve_batch(read_batch(path, block_tokens, cache_blocks))
    return _plan("batch-order", path, {"block_tokens": block_tokens, "cache_blocks": cache_blocks}, body, certificate)


def _plan(kind: str, path: Path, options: dict[str, Any], body: object, certificate: Certificate) -> Plan:
    predictions = tuple(Prediction(level.name, level.value, level.unit) for level in certificate.levels)
    return Plan(kind, (input_from("problem", path),), options, versions(), body, (certificate,), predictions)
