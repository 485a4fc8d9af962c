"""Expert layers in chunks: FSMoE's degree and gradient partition, Comet's tiles, against exhaustive search.

Run: `python -m benchmarks.moe_overlap --json OUT`. Needs no data: the layers are grids of shapes.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import replace
from itertools import product
from typing import Any

from benchmarks.common import arguments, finish, percentile, table
from treadle.costmodels.machines import load_machine
from treadle.costmodels.moe_pipeline import (
    PIECES,
    MoePipeline,
    MoeShape,
    Network,
    tile_pipeline,
    time_ns,
    training_pipeline,
    without_overlap_ns,
)
from treadle.costmodels.overlap_presets import DEGREES, TILE_GROUPS, TILE_SHARES_MILLI
from treadle.solvers.overlap.moe_degree import best_pipeline, best_tiles

PUBLISHED = {"fsmoe_over_tutel": [1.18, 1.22], "fsmoe_over_tutel_layers": 1458, "comet_single_layer": 1.96}
"""FSMoE (arXiv 2501.10714) over DeepSpeed-MoE and Tutel; Comet (arXiv 2502.19811) over the systems it compares with."""

TRAINING = [
    MoeShape(
        tokens, hidden, hidden * ratio, top_k, gated=False, nodes=6, dense_flops=8.0 * tokens * hidden**2,
        gradient_bytes=8.0 * hidden**2,
    )
    for tokens, hidden, ratio, top_k in product((1024, 2048, 4096, 8192), (1024, 2048, 4096), (2, 3, 4), (1, 2, 4))
]  # fmt: skip
"""FSMoE's kind of grid: tokens of a GPU, channels, expert ratio, experts a token; attention as the dense part."""

SERVING = [
    MoeShape(tokens, hidden, intermediate, top_k)
    for tokens, (hidden, intermediate), top_k in product(
        (1024, 2048, 4096, 8192, 16384), ((4096, 14336), (2048, 1408), (4096, 6400), (7168, 2048)), (1, 2, 4, 6, 8)
    )
]
"""Comet's kind of grid: tokens of a GPU; Mixtral's, Qwen2-MoE's, Phi-3.5-MoE's and DeepSeek-V3's expert shapes."""


def tutel_ns(pipeline: MoePipeline) -> int:
    """Degree only: both kinds of transfer on one stream, the gradient after all, as systems before FSMoE do."""
    one = tuple(replace(s, stream="network") if s.stream == "node" else s for s in pipeline.stages)
    merged = replace(pipeline, stages=one)
    return min(time_ns(merged, degree, 0, late) for degree in DEGREES for late in (False, True))


def training_rows() -> list[dict[str, Any]]:
    """Plan every training layer, forward and backward; compare with all degrees, partitions and priorities."""
    machine, rows = load_machine("h100"), list[dict[str, Any]]()
    for shape in TRAINING:
        row: dict[str, Any] = {"tokens": shape.tokens, "hidden": shape.hidden, "intermediate": shape.intermediate}
        before = planned = tutel = different = simulated = 0
        for backward in (False, True):
            pipeline = training_pipeline(shape, machine, Network(), backward)
            found, count = best_pipeline(pipeline)
            pieces = range(PIECES + 1) if pipeline.gradient else (PIECES,)
            exhaustive = min(time_ns(pipeline, *choice) for choice in product(DEGREES, pieces, (False, True)))
            different += found.time_ns != exhaustive
            simulated += count
            planned += found.time_ns
            before += time_ns(pipeline, 1, 0 if pipeline.gradient else PIECES, False)
            tutel += tutel_ns(pipeline)
            row["backward_degree" if backward else "forward_degree"] = found.degree
        rows.append(
            {
                **row, "top_k": shape.top_k, "planned_us": planned / 1000, "different": different,
                "simulated": simulated, "gain_over_none": before / planned, "gain_over_degree_alone": tutel / planned,
            }
        )  # fmt: skip
    return rows


def serving_rows() -> list[dict[str, Any]]:
    """Plan every layer in a node by tiles; compare with all shares, groups and priorities."""
    machine, rows = load_machine("h100"), list[dict[str, Any]]()
    for shape in SERVING:
        share, found, simulated = best_tiles(shape, machine)
        exhaustive = min(
            time_ns(tile_pipeline(shape, machine, each), groups, PIECES, late)
            for each, groups, late in product(TILE_SHARES_MILLI, TILE_GROUPS, (False, True))
        )
        rows.append(
            {
                "tokens": shape.tokens, "hidden": shape.hidden, "intermediate": shape.intermediate,
                "top_k": shape.top_k, "groups": found.degree, "share_milli": share, "planned_us": found.time_ns / 1000,
                "different": int(found.time_ns != exhaustive), "simulated": simulated,
                "gain_over_none": without_overlap_ns(shape, machine) / found.time_ns,
            }
        )  # fmt: skip
    return rows


def summary(rows: list[dict[str, Any]], gain: str) -> dict[str, Any]:
    """Return layers, differences from exhaustive search, and the spread of a gain."""
    gains = [float(row[gain]) for row in rows]
    return {
        "layers": len(rows),
        "different_from_exhaustive": sum(row["different"] for row in rows),
        gain: {
            "mean": statistics.mean(gains), "median": percentile(gains, 0.5),
            "least": min(gains), "largest": max(gains),
        },
    }  # fmt: skip


def main() -> None:
    """Run both grids and print the table."""
    options = arguments("Expert layers in chunks")
    training, serving = training_rows(), serving_rows()
    figures: dict[str, Any] = {
        "published": PUBLISHED,
        "fsmoe": {**summary(training, "gain_over_none"), **summary(training, "gain_over_degree_alone")},
        "fsmoe_different_degrees_forward_backward": sum(
            row["forward_degree"] != row["backward_degree"] for row in training
        ),
        "comet": summary(serving, "gain_over_none"),
        "note": NOTE,
    }
    table(("preset", "layers", "different", "gain, mean"), [
        ("fsmoe over none", len(training), figures["fsmoe"]["different_from_exhaustive"],
         figures["fsmoe"]["gain_over_none"]["mean"]),
        ("fsmoe over degree alone", len(training), figures["fsmoe"]["different_from_exhaustive"],
         figures["fsmoe"]["gain_over_degree_alone"]["mean"]),
        ("comet over none", len(serving), figures["comet"]["different_from_exhaustive"],
         figures["comet"]["gain_over_none"]["mean"]),
    ])  # fmt: skip
    print(json.dumps(figures, indent=1))
    rows = [{"preset": "fsmoe", **row} for row in training] + [{"preset": "comet", **row} for row in serving]
    finish("moe_overlap", figures, rows, options.json)


NOTE = (
    "Predictions of treadle's own model of 8-GPU H100 nodes, 400 Gb/s a GPU between nodes (6 of them), not "
    "measurements; the published gains are measured ones on other clusters. Degree alone: chunks overlap, both kinds "
    "of transfer share a stream, the gradient all-reduce comes after (what Tutel does). Exhaustive: every degree to "
    "16, every partition into eighths, both priorities; for tiles every share of SMs and number of groups."
)

if __name__ == "__main__":
    main()
