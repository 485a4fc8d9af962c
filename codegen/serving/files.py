"""All files of a serving plan."""

from __future__ import annotations

from collections.abc import Mapping

from treadle.ir.serving.plan import ServingPlan


def serving_files(plan: ServingPlan, namespace: str = "") -> Mapping[str, bytes]:
    """Return the deployment files of a plan by path."""
    return {}
