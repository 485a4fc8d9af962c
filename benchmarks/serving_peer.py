"""AIConfigurator 0.12.0 against treadle on the same worker candidates: requests/s on the given GPUs, and the proof.

The peer runs as it is (`cli default`) in an interpreter that has `aiconfigurator==0.12.0`; every worker it evaluates is
recorded. treadle then chooses among exactly these workers, under the same service levels (TTFT factor 1.8 for prefill)
and the same efficiencies (0.90 and 0.92). A case's baseline is the better of the peer's two modes.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import common
from treadle.ir.certificate import Status
from treadle.ir.serving.check import check, place_engines
from treadle.ir.serving.pools import Engine, GpuPool, PoolsPlan, PoolsProblem, RequestClass, Role, Shape
from treadle.solvers.serving.solve import solve_pools

CASES = Path(__file__).parent / "data" / "serving_peer_cases.json"
TTFT_FACTOR = 1.8
_ALIASES = {"gpus": ("gpus", "gpu_count", "total_gpus", "num_gpus"), "model": ("model", "model_path")}


def main() -> None:
    """Run all cases and print one line each."""
    chosen = common.arguments(
        __doc__ or "",
        cases={"type": Path, "default": CASES, "help": "JSON list of cases"},
        peer_python={"default": sys.executable, "help": "interpreter with aiconfigurator==0.12.0"},
        only={"type": int, "help": "run the first N cases"},
        resume={"action": "store_true", "help": "keep the cases that the file of --json has already"},
    )
    probe = subprocess.run([chosen.peer_python, "-c", "import aiconfigurator"], capture_output=True, check=False)
    if probe.returncode:
        sys.exit("the peer is not installed: pip install 'treadle[peer]', or name an interpreter with --peer-python")
    known = known_rows(chosen.json) if chosen.resume else []
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}
    for case in map(normal, json.loads(chosen.cases.read_text())[: chosen.only]):
        there = next((row for row in known if row["case"] == case and "error" not in row), None)
        rows.append(there or run_case(case, chosen.peer_python))
        done = [row for row in rows if "error" not in row]
        figures = summary(done) | {"cases": len(rows), "failed": len(rows) - len(done)}
        common.finish("serving_peer", figures, rows, chosen.json)  # an interrupted run is continued with --resume
    print(json.dumps(figures, indent=1))


def known_rows(file: Path | None) -> list[dict[str, Any]]:
    """Return the rows of an earlier run."""
    if file is None or not file.exists():
        return []
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"]
    return rows


def normal(case: dict[str, Any]) -> dict[str, Any]:
    """Return the case under our field names."""
    named = dict(case)
    for name, aliases in _ALIASES.items():
        named[name] = next(case[alias] for alias in aliases if alias in case)
    return named


def run_case(case: dict[str, Any], peer_python: str) -> dict[str, Any]:
    """Run the peer and treadle on one case."""
    started = time.perf_counter()
    script = Path(__file__).with_name("peer_candidates.py")
    run = subprocess.run(
        [peer_python, str(script)], input=json.dumps(case), capture_output=True, text=True, check=False
    )
    peer_s = time.perf_counter() - started
    if run.returncode:
        print(f"{case}: the peer failed: {run.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return {"case": case, "error": run.stderr.strip()[-300:]}
    record = json.loads(run.stdout)
    own = time.perf_counter()
    problem = problem_of(case, record["rows"])
    plan, certificate = solve_pools(problem)
    solve_s = time.perf_counter() - own
    own = time.perf_counter()
    findings = check(plan)
    check_s = time.perf_counter() - own
    row = compare(case, record, plan) | {
        "bound": certificate.levels[0].bound,
        "proven": certificate.status is Status.OPTIMAL,
        "proof": certificate.levels[0].proof.value,
        "findings": len(findings),
        "solve_s": round(solve_s, 4),
        "check_s": round(check_s, 4),
        "peer_process_s": round(peer_s, 2),
        "total_s": round(time.perf_counter() - started, 2),
    }
    print(
        f"{case['model']:<34} {case['backend']:<7} G={case['gpus']:<3} {case['ttft']}/{case['tpot']}  "
        f"peer {row['peer']:8.3f}  single {row['single']:8.3f}  mixed {row['mixed']:8.3f}  {row['gain']:+.1%}  "
        f"proven {row['proven']}  {row['engines']}",
        flush=True,
    )
    return row


def problem_of(case: dict[str, Any], rows: list[dict[str, Any]], roles: tuple[Role, ...] = tuple(Role)) -> PoolsProblem:
    """Keep the best row of each role and parallel shape within the service levels."""
    best: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["role"], row["parallel"])
        if Role(row["role"]) in roles and admitted(case, row) and row["seq/s"] > 0:
            best[key] = max(best.get(key, row), row, key=lambda one: one["seq/s"])
    same_tensor = case["backend"] == "sglang"
    engines = tuple(engine_of(row, case, f"tp{row['tp']}" if same_tensor else "") for _, row in sorted(best.items()))
    nodes = (8,) * (case["gpus"] // 8) + ((case["gpus"] % 8,) if case["gpus"] % 8 else ())
    one = RequestClass("all", 1.0, case["isl"], case["osl"])
    return PoolsProblem(engines, (one,), (GpuPool("h200", nodes),), within_nodes=False)


def admitted(case: dict[str, Any], row: dict[str, Any]) -> bool:
    """Apply the peer's own filters."""
    if row["role"] == "prefill":
        return bool(TTFT_FACTOR * row["ttft"] < case["ttft"])
    if row["role"] == "decode":
        return bool(row["tpot"] < case["tpot"])
    return bool(row["tpot"] <= case["tpot"] and row["ttft"] <= case["ttft"])


def engine_of(row: dict[str, Any], case: dict[str, Any], pool: str) -> Engine:
    """Return a recorded worker as a candidate."""
    shape = Shape(int(row["tp"]), int(row["pp"]), int(row["dp"]), int(row["moe_ep"]), int(row["moe_tp"]))
    return Engine(
        f"{row['role']} {row['parallel']}",
        Role(row["role"]),
        "h200",
        int(row["num_total_gpus"]),
        shape,
        max(1, int(row["bs"])),
        (1.0 / row["seq/s"],),
        pool,
        ttft_s=row["ttft"] / 1000,
        tpot_s=row["tpot"] / 1000,
    )


def compare(case: dict[str, Any], record: dict[str, Any], plan: PoolsPlan) -> dict[str, Any]:
    """Put the peer's rates beside ours: mixed fleets, and one mode only."""
    roles = ((Role.AGGREGATED,), (Role.PREFILL, Role.DECODE))
    problems = [problem_of(case, record["rows"], chosen) for chosen in roles]
    singles = [float(solve_pools(problem)[0].rate_per_s) for problem in problems if problem.engines]
    peer = max((choice["requests_per_s"] for choice in record["choices"]), default=0.0)
    mixed = float(plan.rate_per_s)
    sizes = [e.gpus for e, n in zip(plan.problem.engines, plan.pools.counts, strict=True) for _ in range(n)]
    return {
        "case": case,
        "candidates": len(plan.problem.engines),
        "peer": peer,
        "peer_search_s": record["search_s"],
        "single": max(singles, default=0.0),
        "mixed": mixed,
        "gain": mixed / peer - 1 if peer else 0.0,
        "single_gain": max(singles, default=0.0) / peer - 1 if peer else 0.0,
        "fits_nodes": place_engines(plan.problem.gpus[0], sizes) is not None,
        "engines": {e.name: n for e, n in zip(plan.problem.engines, plan.pools.counts, strict=True) if n},
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all cases. The peer rounds rates to three digits: 0.1 % below counts as equal."""
    if not rows:
        return {}
    gains, singles = [row["gain"] for row in rows], [row["single_gain"] for row in rows]
    return {
        "never_below_peer": all(gain > -1e-3 for gain in gains),
        "better_by_1_percent": sum(gain > 0.01 for gain in gains),
        "mean_gain": statistics.fmean(gains),
        "median_gain": statistics.median(gains),
        "max_gain": max(gains),
        "single_better_by_1_percent": sum(gain > 0.01 for gain in singles),
        "single_mean_gain": statistics.fmean(singles),
        "proven": sum(row["proven"] for row in rows),
        "findings": sum(row["findings"] for row in rows),
        "solve_s_max": max(row["solve_s"] for row in rows),
        "check_s_max": max(row["check_s"] for row in rows),
        "total_s_median": statistics.median(row["total_s"] for row in rows),
        "peer_process_s_median": statistics.median(row["peer_process_s"] for row in rows),
    }


if __name__ == "__main__":
    main()
