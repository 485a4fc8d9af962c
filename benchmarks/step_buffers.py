"""Buffers of a traced training step of an 8 B model: height against the largest live set.

Run: `python -m benchmarks.step_buffers --json OUT`. Needs PyTorch (CPU build); shapes below, no weights.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.frontends.traced_step import traced_step
from treadle.ir.layout.buffers import check, peak_live
from treadle.solvers.buffers.solve import solve_buffers

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
}  # fmt: skip
"""The published config.json of Llama-3-8B, as far as it matters."""

SHAPES = ((1, 2048), (1, 4096), (2, 4096))
"""Sequences and tokens of each."""


def row(path: Path, batch: int, tokens: int) -> dict[str, Any]:
    """Trace and place one step."""
    started = time.perf_counter()
    problem = traced_step(path, batch, tokens)
    traced = time.perf_counter() - started
    started = time.perf_counter()
    plan, certificate = solve_buffers(problem)
    solved = time.perf_counter() - started
    peak, _ = peak_live(problem)
    return {
        "batch": batch, "tokens": tokens, "buffers": len(problem.buffers), "live_gib": peak / 2**30,
        "height_gib": plan.height_bytes / 2**30, "above_live_set": plan.height_bytes / peak - 1,
        "status": certificate.status.value, "findings": len(check(plan)),
        "seconds_trace": round(traced, 2), "seconds_place": round(solved, 2),
    }  # fmt: skip


def main() -> None:
    """Run all shapes and print the table."""
    options = arguments("Buffers of a training step")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(LLAMA_8B))
        rows = [row(path, *shape) for shape in SHAPES]
    table(tuple(rows[0]), [tuple(each.values()) for each in rows])
    figures = {"largest_above_live_set": max(each["above_live_set"] for each in rows), "note": NOTE}
    finish("step_buffers", figures, rows, options.json)


NOTE = (
    "A step of plain PyTorch on fake tensors: bfloat16 parameters and gradients, AdamW moments in float32 (the "
    "optimizer's own step in place), attention as one kernel that stores no scores, no recomputation."
)

if __name__ == "__main__":
    main()
