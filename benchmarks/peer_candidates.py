"""Runs AIConfigurator on one case and writes what it chose and every worker candidate it considered, as JSON.

Started by `benchmarks.serving_peer` with the interpreter of an environment that has `aiconfigurator==0.12.0`; imports
nothing of treadle. The case is JSON on stdin, the record JSON on stdout.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
import time
from importlib import import_module
from typing import Any

_FIELDS = ("seq/s", "num_total_gpus", "ttft", "tpot", "bs", "tp", "pp", "dp", "moe_tp", "moe_ep", "memory", "parallel")


def main() -> None:
    """Run one case."""
    case = json.load(sys.stdin)
    started = time.perf_counter()
    logging.disable(logging.WARNING)
    noise = io.StringIO()
    with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
        rows, result, search_s = _run(case)
    record = {
        "rows": rows,
        "choices": _choices(result, case["gpus"]),
        "search_s": round(search_s, 3),
        "process_s": round(time.perf_counter() - started, 3),
    }
    json.dump(record, sys.stdout)


def _run(case: dict[str, Any]) -> tuple[list[dict[str, Any]], Any, float]:
    api = import_module("aiconfigurator.cli.api")
    sweep = import_module("aiconfigurator.sdk.sweep")

    rows: list[dict[str, Any]] = []

    def record(role: str, frame: Any) -> None:
        if frame is not None and len(frame):
            for row in frame.to_dict("records"):
                rows.append({"role": role, **{field: _plain(row.get(field)) for field in _FIELDS}})

    workers, one_parallel = sweep._get_disagg_worker_candidates, sweep._sweep_one_parallel_agg

    def hooked_workers(**arguments: Any) -> Any:
        frame = workers(**arguments)
        record(arguments["role"], frame)
        return frame

    def hooked_parallel(**arguments: Any) -> Any:
        answer = one_parallel(**arguments)
        record("aggregated", answer[0])
        return answer

    vars(sweep)["_get_disagg_worker_candidates"] = hooked_workers
    vars(sweep)["_sweep_one_parallel_agg"] = hooked_parallel
    started = time.perf_counter()
    result = api.cli_default(
        case["model"],
        case["gpus"],
        case.get("system", "h200_sxm"),
        backend=case["backend"],
        isl=case["isl"],
        osl=case["osl"],
        ttft=case["ttft"],
        tpot=case["tpot"],
    )
    return rows, result, time.perf_counter() - started


def _choices(result: Any, gpus: int) -> list[dict[str, Any]]:
    """Return every mode's best configuration with the rate it gives on all GPUs."""
    found: list[dict[str, Any]] = []
    for mode, frame in result.best_configs.items():
        if frame is None or not len(frame):
            continue
        row = frame.iloc[0].to_dict()
        unit = int(row["num_total_gpus"])
        found.append(
            {
                "mode": mode,
                "unit_gpus": unit,
                "replicas": gpus // unit,
                "requests_per_s": float(row["seq/s"]) * (gpus // unit),
                "row": {key: _plain(value) for key, value in row.items()},
            }
        )
    return found


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return value if isinstance(value, int | float | str | bool) or value is None else str(value)


if __name__ == "__main__":
    main()
