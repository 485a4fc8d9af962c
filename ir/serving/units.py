"""Names and units of what a serving plan is best at."""

from __future__ import annotations

from treadle.ir.serving.pools import Objective

UNITS = {
    Objective.MOST_REQUESTS: ("rate", "req/s"),
    Objective.FEWEST_GPUS: ("gpus", "GPUs"),
    Objective.LEAST_COST: ("cost", "per hour"),
    Objective.LEAST_POWER: ("power", "W"),
}
"""Name and unit of each goal's level."""
