"""Random inputs, poisoned outputs, and how close results must come."""

from __future__ import annotations

import torch

TOLERANCE = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 2e-5}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def random(seed: int, dtype: str, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(DTYPES[dtype])


def poison(dtype: str, *shape: int) -> torch.Tensor:
    return torch.full(shape, float("nan"), dtype=DTYPES[dtype])


def assert_close(found: torch.Tensor, expected: torch.Tensor, dtype: str) -> None:
    assert not found.isnan().any()
    norm = expected.norm()
    error = (found.double() - expected).norm() / (norm if norm else 1.0)
    assert error < TOLERANCE[dtype], f"relative error {error:.2e}"
