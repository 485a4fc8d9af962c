"""A step as it ran: kernels in order, and which storages each read and wrote. No costs, no machine."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class TracedKernel:
    """One operator that does work: its name, FLOP of matrix products and attention, whether it can be run again."""

    name: str
    flops: int = 0
    attention: bool = False
    repeats: bool = True


@dataclass(frozen=True, slots=True)
class TracedStorage:
    """A storage: the kernels (by position, ascending) that use it, those that write it; kept from step to step or not.

    `sources` are the storages (by position) that its first kernel reads.
    """

    id: str
    size_bytes: int
    uses: tuple[int, ...]
    written: tuple[int, ...]
    kept: bool
    sources: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class StepTrace:
    """Kernels and storages of one step."""

    name: str
    kernels: tuple[TracedKernel, ...]
    storages: tuple[TracedStorage, ...]

    def __post_init__(self) -> None:
        if not self.kernels or not self.storages:
            raise InvalidValue(message=f"step `{self.name}` ran no kernels")
        if any(storage.uses[-1] >= len(self.kernels) for storage in self.storages):
            raise InvalidValue(message=f"step `{self.name}` has a storage used by an unknown kernel")
