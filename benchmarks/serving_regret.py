"""Regret of the example plans when every engine's step time is off by up to 10 and 20 %, and the plan best at worst.

Each draw multiplies every engine's time by a factor of its own; the regret is the share of the rate lost against the
best plan of that draw at the same price. The plan best in the worst case has the least largest regret over all draws.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks import common
from treadle.driver.serve import plan_deployment
from treadle.ir.diagnostics import TreadleError
from treadle.ir.serving.plan import ServingPlan
from treadle.solvers.serving.robust import robust_choice

EXAMPLES = Path(__file__).parents[1] / "examples"
ERRORS = (0.1, 0.2)


def main() -> None:
    """Plan every example and draw errors."""
    chosen = common.arguments(__doc__ or "")
    rows = [row for specification in sorted(EXAMPLES.glob("*/deployment.toml")) for row in case(specification)]
    common.table(list(rows[0]), [list(row.values()) for row in rows])
    figures = {
        f"{word}_at_{error:.0%}": max(row[word] for row in rows if row["error"] == error)
        for error in ERRORS
        for word in ("median", "worst", "best_worst")
    }
    common.finish("serving_regret", figures, rows, chosen.json)


def case(specification: Path) -> list[dict[str, Any]]:
    """Return a row per error."""
    try:
        plan, _ = plan_deployment(specification, True, lambda _: None)
    except TreadleError as error:
        print(f"{specification.parent.name}: {error.code}")
        return []
    body: ServingPlan = plan.body
    rows: list[dict[str, Any]] = []
    for share in ERRORS:
        started = time.perf_counter()
        found = robust_choice(body.pools, share)
        rows.append(
            {
                "case": specification.parent.name,
                "error": share,
                "median": round(found.median, 4),
                "worst": round(found.worst, 4),
                "best_worst": round(found.counts_worst, 4),
                "other_plan": found.counts != body.pools.pools.counts,
                "seconds": round(time.perf_counter() - started, 2),
            }
        )
    return rows


if __name__ == "__main__":
    main()
