"""Whether a kernel computes what it should: fresh random inputs, ragged shapes, poisoned outputs, float64 results."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch

from treadle.driver.gpu.families import FAMILIES, Family, Source

TOLERANCE = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}
"""Relative error in the Frobenius norm, by the element type of the result."""


def ragged_shape(family: str, shape: Mapping[str, int]) -> dict[str, int]:
    """Return a small shape for a correctness run: no tile divides it, what the kernel is compiled for stays."""
    changed = {key: value for key, value in FAMILIES[family].ragged.items() if key in shape}
    if family in ("attention_decode", "attention_paged"):
        changed["kv_seq"] = min(changed["kv_seq"], shape["kv_seq"])
    return {**shape, **changed}


def check_kernel(
    module: ModuleType, family: str, shape: Mapping[str, int], options: Mapping[str, Any], seed: int, device: str
) -> dict[str, Any]:
    """Run a kernel once at a shape and compare.

    Returns: `correct`, the worst relative `error` of its results, and what is wrong as `reason`.
    """
    own = FAMILIES[family]
    source = Source(seed, device, str(options["dtype"]))
    inputs = own.inputs(source, shape, options)
    expected = own.reference(inputs, shape, options)
    if family == "kmeans_assign":
        return _check_nearest(module, inputs, expected[0])
    poisoned = {
        name: result.new_full(result.shape, float("nan"), dtype=_dtype(own, name, source))
        for name, result in zip(output_names(own, options, len(expected)), expected, strict=True)
    }
    found = module.launch(*inputs, **poisoned)
    results = found if isinstance(found, tuple) else (found,)
    return compared(results, expected)


def output_names(family: Family, options: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Return the names under which `launch` takes its results."""
    if family.outputs == ("first_out", "second_out") and count == 1:
        return ("out",)
    return family.outputs[:count]


def _dtype(family: Family, name: str, source: Source) -> torch.dtype:
    return torch.float32 if name in ("lse", "distances") else source.dtype


def compared(found: tuple[torch.Tensor, ...], expected: tuple[torch.Tensor, ...]) -> dict[str, Any]:
    """Return whether results are those in float64, and the worst relative error in the Frobenius norm."""
    worst = 0.0
    for position, (one, other) in enumerate(zip(found, expected, strict=True)):
        if one.isnan().any():
            return {"correct": False, "error": None, "reason": f"result {position} has values that were not written"}
        error = float((one.double() - other).norm() / other.norm().clamp_min(1e-30))
        worst = max(worst, error)
        limit = TOLERANCE[str(one.dtype).removeprefix("torch.")]
        if not error < limit:
            return {"correct": False, "error": error, "reason": f"result {position}: relative error {error:.2e}"}
    return {"correct": True, "error": worst, "reason": ""}


def _check_nearest(module: ModuleType, inputs: tuple[torch.Tensor, ...], every: torch.Tensor) -> dict[str, Any]:
    """Of centroids that are equally near within rounding, any will do."""
    points = every.shape[0]
    assigned = torch.full((points,), -7, dtype=torch.int32, device=every.device)
    distances = torch.full((points,), float("nan"), device=every.device)
    module.launch(*inputs, assigned=assigned, distances=distances)
    return nearest_verdict(assigned, distances, every, torch.arange(points, device=every.device))


def nearest_verdict(
    assigned: torch.Tensor, distances: torch.Tensor, every: torch.Tensor, picked: torch.Tensor
) -> dict[str, Any]:
    """Return whether the assignment of the picked points is right, given all their squared distances in float64.

    All of `assigned` and `distances` must be written.
    """
    if assigned.min() < 0 or assigned.max() >= every.shape[1] or distances.isnan().any():
        return {"correct": False, "error": None, "reason": "indices out of range, or values that were not written"}
    least = every.min(1).values
    chosen = every[torch.arange(len(picked), device=every.device), assigned[picked].long()]
    error = float(((chosen - least) / least.clamp_min(1e-3)).max())
    far = float(((distances[picked].double() - least).abs() / least.clamp_min(1e-3)).max())
    good = max(error, far) < 1e-3
    return {"correct": good, "error": max(error, far), "reason": "" if good else "a centroid is not the nearest"}
