"""How to get from one placement to another: waves of steps. Steps of one wave may run at the same time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class StepKind(Enum):
    """What one step does."""

    CORDON = "cordon"
    """Keep the scheduler from filling the node while the migration runs."""
    EVICT = "evict"
    """Remove a pod for good (policy/v1 Eviction)."""
    MOVE = "move"
    """Start the pod's replacement on `target`, then remove it from `source`: both hold resources during the wave."""
    STOP = "stop"
    """Remove the pod from `source`; it waits without a place until a later BIND. An outage."""
    BIND = "bind"
    """Start a pod that has no place on `target`."""
    UNCORDON = "uncordon"


@dataclass(frozen=True, slots=True)
class Step:
    """One step; nodes and pods by index in the cluster. `temporary` marks a move to a place the pod leaves again."""

    kind: StepKind
    pod: int = -1
    source: int = -1
    target: int = -1
    temporary: bool = False


@dataclass(frozen=True, slots=True)
class Migration:
    """Waves of steps in order, and what they cost."""

    waves: tuple[tuple[Step, ...], ...]
    wave_bound: int
    """No legal migration has fewer waves."""
    temporary_moves: int = 0
    outages: tuple[int, ...] = ()
    """Pods that are without a place for a while although they run before and after."""
    outage_price: int = 0
    """Restart cost of these pods, times the waves they are without a place."""
    detour_bound: int = 0
    """No legal migration has fewer temporary moves and outages together."""
