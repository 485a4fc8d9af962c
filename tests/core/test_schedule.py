"""What makes a modulo schedule legal: each rule has a legal and an illegal case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.samples import small_loop, small_schedule
from treadle.ir.errors import InvalidValue
from treadle.ir.tile.loop import Dependence, Operation, Unit, ZeroDistanceCycle
from treadle.ir.tile.schedule import Schedule, check, modulo_profile


def codes(schedule: Schedule) -> set[str]:
    return {finding.code for finding in check(small_loop(), schedule)}


def test_the_sample_is_legal() -> None:
    assert codes(small_schedule()) == set()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"loop": "other"}, "TRD401"),
        ({"start_cycles": {"load": 0, "mma": 9}}, "TRD401"),
        ({"ring_depths": {}}, "TRD401"),
        ({"start_cycles": {"load": -2, "mma": 9, "store": 16}}, "TRD402"),
        ({"start_cycles": {"load": 1, "mma": 10, "store": 19}, "length_cycles": 21}, "TRD402"),
        ({"start_cycles": {"load": 0, "mma": 8, "store": 18}}, "TRD403"),
        ({"ii_cycles": 3, "start_cycles": {"load": 0, "mma": 9, "store": 17}, "length_cycles": 19}, "TRD403"),
        ({"start_cycles": {"load": 0, "mma": 9, "store": 17}, "length_cycles": 19}, "TRD404"),
        ({"ring_depths": {"tile": 3}}, "TRD405"),
        ({"ring_depths": {"tile": 9}}, "TRD405"),
        ({"length_cycles": 19}, "TRD407"),
    ],
)
def test_violations_are_found(change: dict[str, object], code: str) -> None:
    assert code in codes(replace(small_schedule(), **change))  # type: ignore[arg-type]  # fields vary by case


def test_memory_capacity() -> None:
    loop = replace(small_loop(), capacities=(replace(small_loop().capacities[0], fixed_bytes=800),))
    assert {finding.code for finding in check(loop, small_schedule())} == {"TRD406"}


def test_profile_counts_occupancy_beyond_one_interval() -> None:
    loop = replace(small_loop(), operations=(Operation("load", "memory", 9, 9), *small_loop().operations[1:]))
    profile = modulo_profile(loop, small_schedule(), "memory")
    assert sum((end - begin) * used for begin, end, used in profile) == 11
    assert max(used for _, _, used in profile) >= 3


def test_loops_are_valid_once_built() -> None:
    loop = small_loop()
    with pytest.raises(ZeroDistanceCycle, match=r"`load` -> `mma`|`mma` -> `load`"):
        replace(loop, dependences=(Dependence("load", "mma", 1), Dependence("mma", "load", 0)))
    with pytest.raises(InvalidValue, match="unknown unit"):
        replace(loop, operations=(Operation("load", "nowhere", 1, 1), *loop.operations[1:]))
    with pytest.raises(InvalidValue, match="twice"):
        replace(loop, units=(Unit("memory", 1), Unit("memory", 1), Unit("tensor", 1)))
    with pytest.raises(InvalidValue, match="unknown operation"):
        replace(loop, dependences=(Dependence("load", "nobody", 1),))
