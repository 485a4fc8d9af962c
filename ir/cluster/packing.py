"""The body of a plan of kind `packing`."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.cluster.cluster import Cluster
from treadle.ir.cluster.migration import Migration
from treadle.ir.cluster.objective import Objective
from treadle.ir.cluster.placement import Placement


@dataclass(frozen=True, slots=True)
class PackingBody:
    """The cluster as read, the objective, where every pod goes, and in which steps."""

    cluster: Cluster
    objective: Objective
    placement: Placement
    migration: Migration
