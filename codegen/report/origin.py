"""Where the plan comes from: inputs by hash, options, versions, predictions of the whole, files."""

from __future__ import annotations

import json

from treadle.codegen.report.sections import Context, Section, filled


def section(context: Context) -> Section:
    """Return inputs, options and files."""
    plan = context.plan
    options = {
        key: value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        for key, value in plan.options.items()
    }
    return Section("origin", "Origin", filled("origin.html.j2", plan=plan, options=options))
