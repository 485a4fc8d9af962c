"""The figures of docs/pipelines.md, printed from the rows of `benchmarks.warp_timelines`: they cannot go stale.

The page has places `<!-- figures NAME -->` ... `<!-- end -->`; what stands between them is printed here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_PLACE = re.compile(r"<!-- figures ([\w ]+) -->\n.*?<!-- end -->", re.DOTALL)
ORDER = ("ii", "traffic_bytes", "barriers", "groups", "registers", "length")

MISSING = "Not part of the last run."


def with_figures(page: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return the page with every place printed again; cases without a row say so."""
    found = {row["case"]: row for row in rows}

    def printed(match: re.Match[str]) -> str:
        text = "\n\n".join(_block(found[case]) if case in found else MISSING for case in match[1].split())
        return f"<!-- figures {match[1]} -->\n\n{text}\n\n<!-- end -->"

    return _PLACE.sub(printed, page)


def _block(row: dict[str, Any]) -> str:
    """Return what was found of one case: levels with their proofs, groups with registers and operations, the pace."""
    if "refused" in row:
        return f"{row['refused']} (commit `{row['commit']}`)"
    levels = "; ".join(_level(name, *row["levels"][name]) for name in ORDER if name in row["levels"])
    groups = [
        f"| {name} | {registers} | {', '.join(f'`{operation}`' for operation in operations)} |"
        for (name, operations), registers in zip(row["groups"].items(), row["registers"], strict=True)
    ]
    uncertified = [
        f"{name.replace('_', ' ')} {row[key]:,}"
        for name, key in (("traffic_bytes", "traffic_bytes"), ("barriers", "barriers"), ("length", "length_cycles"))
        if name not in row["levels"]
    ]
    also = f" Besides: {', '.join(uncertified)}." if uncertified else ""
    pace = row["simulated_cycles"]
    simulated = "no warp program" if pace is None else f"{pace:,.0f} cycles an iteration in the simulator"
    return "\n".join(
        (
            f"{levels}.{also} {simulated}. {row['seconds']:,.1f} s of one core, commit `{row['commit']}`.",
            "",
            "| group | registers | operations |",
            "| --- | --- | --- |",
            *groups,
        )
    )


def _level(name: str, value: int, bound: int, status: str, proof: str) -> str:
    words = name.replace("_", " ")
    if status == "optimal" and proof == "solver":
        return f"{words} {value:,} (least on the solver's word)"
    if status == "optimal":
        return f"{words} {value:,} (proven, {proof})"
    return f"{words} {value:,} (at least {bound:,}, {proof})"
