"""Vector bin packing: items with several sizes into as few equal bins as possible."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class VectorPacking:
    """Items (one size per dimension) and the capacity of every bin, in any whole units."""

    items: tuple[tuple[int, ...], ...]
    capacity: tuple[int, ...]

    def __post_init__(self) -> None:
        for number, sizes in enumerate(self.items):
            if len(sizes) != len(self.capacity) or min(sizes, default=0) < 0:
                raise InvalidValue(message=f"item {number} has the sizes {sizes} for {len(self.capacity)} dimensions")
            if any(size > room for size, room in zip(sizes, self.capacity, strict=True)):
                raise InvalidValue(message=f"item {number} with {sizes} is larger than a bin with {self.capacity}")


def check(instance: VectorPacking, bins: tuple[int, ...]) -> list[Finding]:
    """Return why a packing (bin of every item) is not legal. Codes: TRD460 form, TRD461 capacity."""
    if len(bins) != len(instance.items) or min(bins, default=0) < 0:
        return [Finding("TRD460", "packing", "one bin per item")]
    used: dict[int, list[int]] = {}
    for sizes, number in zip(instance.items, bins, strict=True):
        row = used.setdefault(number, [0] * len(sizes))
        used[number] = [a + b for a, b in zip(row, sizes, strict=True)]
    return [
        Finding("TRD461", f"bin {number}", f"dimension {d} is overfull", f"<= {room}", str(amount))
        for number, row in sorted(used.items())
        for d, (amount, room) in enumerate(zip(row, instance.capacity, strict=True))
        if amount > room
    ]


def volume_bound(instance: VectorPacking) -> int:
    """Return the bins that the total size in the worst dimension needs."""
    return max(
        (-(-sum(sizes[d] for sizes in instance.items) // room) for d, room in enumerate(instance.capacity) if room),
        default=int(bool(instance.items)),
    )
