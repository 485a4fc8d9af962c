"""Compiles every example: seconds by phase, hot loops proven, certificates by kind of proof, spills, claims.

The examples' inputs are in the repository; `--data` names another folder of `*/deployment.toml`.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from treadle.driver.compile import Compiled, compile_deployment
from treadle.driver.kernels import KernelOptions
from treadle.ir.certificate import Status
from treadle.ir.deployment import DeploymentBody


def main() -> None:
    """Compile the examples one after the other and print phases and proofs."""
    chosen = arguments(__doc__ or "", data="examples")
    rows = [measure(path) for path in sorted(chosen.data.glob("*/deployment.toml"))]
    phases = list(rows[0]["seconds"])
    header = (
        "example",
        *(f"{phase} s" for phase in phases),
        "loops",
        "interval proven",
        "all proven",
        "spills",
        "claims",
    )
    table(
        header,
        [
            (
                row["example"],
                *(row["seconds"][phase] for phase in phases),
                row["hot_loops"],
                row["intervals_proven"],
                row["all_levels_proven"],
                row["spilling_binaries"],
                row["claims_rederived"],
            )
            for row in rows
        ],
    )
    kinds = sum((Counter(row["proof_kinds"]) for row in rows), Counter[str]())
    total = sum(kinds.values())
    print()
    table(("kind of proof", "levels", "share"), [(kind, n, f"{n / total:.1%}") for kind, n in kinds.most_common()])
    checkable = 1 - (kinds["solver"] + kinds["none"]) / total
    figures = {
        "levels": total,
        "proof_kinds": dict(kinds),
        "checkable_share": checkable,
        "interval_proof_kinds": dict(sum((Counter(row["interval_kinds"]) for row in rows), Counter[str]())),
        "findings": sum(row["findings"] for row in rows),
    }
    finish("compile_examples", figures, rows, chosen.json)


def measure(specification: Path) -> dict[str, Any]:
    """Compile one example into a temporary folder and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        done = compile_deployment(
            specification, Path(folder) / "plan", KernelOptions(), lambda phase, result, seconds: None
        )
    return {"example": specification.parent.name, **_figures(done)}


def _figures(done: Compiled) -> dict[str, Any]:
    body: DeploymentBody = done.plan.body
    certificates = [kernel.certificate for kernel in body.kernels]
    return {
        "seconds": {phase: round(seconds, 3) for phase, seconds in done.seconds.items()},
        "hot_loops": len(body.hot_loops),
        "refused": len(body.refused),
        "intervals_proven": sum(certificate["ii"].status is Status.OPTIMAL for certificate in certificates),
        "all_levels_proven": sum(certificate.status is Status.OPTIMAL for certificate in certificates),
        "interval_kinds": dict(Counter(certificate["ii"].proof.value for certificate in certificates)),
        "proof_kinds": dict(Counter(level.proof.value for one in certificates for level in one.levels)),
        "spilling_binaries": sum(binary.spill_bytes > 0 for kernel in body.kernels for binary in kernel.compiled),
        "given_up_for_spills": sum(len(reasons) for reasons in body.rejected.values()),
        "claims_rederived": done.review.rederived,
        "on_solver_word": done.review.on_solver_word,
        "findings": len(done.review.findings),
    }


if __name__ == "__main__":
    main()
