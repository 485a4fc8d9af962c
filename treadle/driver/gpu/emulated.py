"""What emitted Gluon kernels work on, emulated with torch: memory, barriers, and operations that finish late.

Everything asynchronous (copies, products, commits, stores) reads and writes when a seeded scheduler lets it finish, not
when it is issued: a slot that is filled or given back too early shows in the result. Slots that were never written hold
NaN.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

Tensor = torch.Tensor


class Deadlock(Exception):
    """Every group waits at a barrier, and nothing is in flight that could arrive."""


@dataclass
class Barrier:
    """An mbarrier: phases end with `count` arrivals and all expected bytes."""

    count: int = 1
    phases: int = 0
    arrived: int = 0
    bytes_left: int = 0

    def arrive(self, bytes_expected: int = 0) -> None:
        """Arrive once, and expect more bytes."""
        self.arrived += 1
        self.bytes_left += bytes_expected
        self._turn()

    def receive(self, size: int) -> None:
        """Count bytes of a copy."""
        self.bytes_left -= size
        self._turn()

    def _turn(self) -> None:
        if self.arrived > self.count:
            raise AssertionError(f"{self.arrived} arrivals at a barrier of {self.count}")
        if self.arrived == self.count and self.bytes_left == 0:
            self.phases, self.arrived = self.phases + 1, 0

    def passed(self, parity: int) -> bool:
        """Whether the phase of a parity has ended (`mbarrier.try_wait.parity`)."""
        return self.phases % 2 != parity


class Buffer:
    """Slots of a memory; `aliases` are other readings of the same bytes, which a write spoils."""

    def __init__(self, array: Tensor, root: Buffer | None = None, key: Any = None) -> None:
        self.array, self.root, self.key = array, root or self, key
        self.aliases: dict[Any, Tensor] = {}

    @property
    def dtype(self) -> torch.dtype:
        """Element type."""
        return self.array.dtype

    @property
    def shape(self) -> list[int]:
        """Extents."""
        return list(self.array.shape)

    def index(self, slot: int) -> Buffer:
        """Return one slot."""
        if not 0 <= slot < self.array.shape[0]:
            raise AssertionError(f"slot {slot} of {self.array.shape[0]}")
        return Buffer(self.array[slot], self.root, slot)

    def slice(self, start: int, length: int, dim: int | None = None) -> Buffer:
        """Return a part: of the rows of shared memory, of the columns of tensor memory."""
        along = (1 if isinstance(self.root, TensorBuffer) else 0) if dim is None else dim
        return Buffer(self.array.narrow(along, start, length), self.root, self.key)

    def permute(self, order: Sequence[int]) -> Buffer:
        """Return the same with other order of extents."""
        return Buffer(self.array.permute(*order), self.root, self.key)

    def reshape(self, shape: Sequence[int]) -> Buffer:
        """Return the same with other extents: a leading one of 1, or without it."""
        return Buffer(
            self.array.unsqueeze(0) if len(shape) > self.array.dim() else self.array.view(*shape), self.root, self.key
        )

    def load(self, layout: object = None) -> Tensor:
        """Return a copy in registers."""
        return self.array.clone()

    def store(self, value: Tensor) -> None:
        """Write registers."""
        if list(value.shape) != self.shape or value.dtype != self.dtype:
            raise AssertionError(f"{value.dtype} {list(value.shape)} stored to {self.dtype} {self.shape}")
        self.array.copy_(value)
        alias = self.root.aliases.get(self.key)
        if alias is not None:
            alias.fill_(float("nan"))

    def reinterpreted(self, dtype: torch.dtype, shape: Sequence[int]) -> Buffer:
        """Return the slot's bytes read as another type."""
        root = self.root
        if self.key not in root.aliases:
            root.aliases[self.key] = torch.full(tuple(shape), float("nan"), dtype=dtype)
        return Alias(root.aliases[self.key], self.array)

    def chunks(self, shape: Sequence[int]) -> Chunks:
        """Return a tile of rows as chunks: columns lie in panels, the rows of a panel behind each other."""
        return Chunks(self, shape[1], shape[2])


class TensorBuffer(Buffer):
    """Slots of tensor memory."""


class Alias(Buffer):
    """A slot read as another type; writing it spoils what was there."""

    def __init__(self, array: Tensor, spoiled: Tensor) -> None:
        super().__init__(array)
        self.spoiled = spoiled

    def slice(self, start: int, length: int, dim: int | None = None) -> Buffer:
        """Return a part of the columns."""
        return Alias(self.array.narrow(1 if dim is None else dim, start, length), self.spoiled)

    def store(self, value: Tensor) -> None:
        """Write registers."""
        super().store(value)
        self.spoiled.fill_(float("nan"))


@dataclass
class Chunks:
    """Parts of a tile that copies fill one by one."""

    tile: Buffer
    rows: int
    columns: int

    def index(self, at: int) -> Buffer:
        """Return one part."""
        panel, chunk = divmod(at, self.tile.shape[0] // self.rows)
        rows = self.tile.array.narrow(0, chunk * self.rows, self.rows)
        return Buffer(rows.narrow(1, panel * self.columns, self.columns))


@dataclass
class Descriptor:
    """A tensor that is copied block by block; what lies beyond it reads as zero and is not written."""

    tensor: Tensor
    block: tuple[int, ...]

    @property
    def block_type(self) -> Descriptor:
        """What knows `nbytes`."""
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        return int(torch.Size(self.block).numel() * self.tensor.element_size())

    def read(self, where: Sequence[int]) -> Tensor:
        """Return the block at a place."""
        found = torch.zeros(self.block, dtype=self.tensor.dtype)
        inside, within = self._ranges(where)
        found[within] = self.tensor[inside]
        return found

    def write(self, where: Sequence[int], block: Tensor) -> None:
        """Write the block at a place."""
        inside, within = self._ranges(where)
        self.tensor[inside] = block[within]

    def _ranges(self, where: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        inside: list[slice] = []
        within: list[slice] = []
        for first, extent, size in zip(where, self.tensor.shape, self.block, strict=True):
            low, high = min(max(first, 0), extent), min(max(first + size, 0), extent)
            inside.append(slice(low, high))
            within.append(slice(low - first, high - first) if high > low else slice(0, 0))
        return tuple(inside), tuple(within)


@dataclass
class Pointer:
    """A tensor in global memory by element; out-of-range elements are an error unless masked."""

    flat: Tensor
    offset: Any = 0

    @property
    def dtype(self) -> Pointer:
        """What knows `element_ty`."""
        return self

    @property
    def element_ty(self) -> torch.dtype:
        """Element type."""
        return self.flat.dtype

    def __add__(self, more: Any) -> Pointer:
        return Pointer(self.flat, self.offset + more)

    def load(self, mask: Any = None, other: Any = 0) -> Any:
        """Return elements; a scalar for a single one."""
        if not isinstance(self.offset, Tensor):
            return other if mask is False else self.flat[self._checked(self.offset)].item()
        places, keep = self._kept(mask)
        found = torch.full(places.shape, other, dtype=self.flat.dtype)
        found[keep] = self.flat[places[keep]]
        return found

    def store(self, value: Tensor, mask: Any = None) -> None:
        """Write elements."""
        places, keep = self._kept(mask)
        self.flat[places[keep]] = torch.broadcast_to(value, places.shape)[keep].to(self.flat.dtype)

    def add(self, value: Tensor, mask: Any = None) -> None:
        """Add to elements."""
        places, keep = self._kept(mask)
        self.flat.index_put_((places[keep],), torch.broadcast_to(value, places.shape)[keep], accumulate=True)

    def _kept(self, mask: Any) -> tuple[Tensor, Tensor]:
        places = torch.as_tensor(self.offset)
        keep = torch.ones(places.shape, dtype=torch.bool)
        if mask is not None:
            given = torch.as_tensor(mask)
            keep = given | torch.zeros_like(places, dtype=torch.bool)
            places = places + torch.zeros_like(keep, dtype=places.dtype)
        if keep.any() and not 0 <= int(places[keep].min()) <= int(places[keep].max()) < self.flat.numel():
            raise AssertionError(
                f"elements {int(places[keep].min())} to {int(places[keep].max())} of {self.flat.numel()}"
            )
        return places, keep

    def _checked(self, place: int) -> int:
        if not 0 <= place < self.flat.numel():
            raise AssertionError(f"element {place} of {self.flat.numel()}")
        return place


@dataclass
class Product:
    """A product in flight: its value once it is done."""

    value: Tensor | None = None


@dataclass
class Engine:
    """What is in flight: copies in any order, each group's products and stores in theirs."""

    chance: random.Random
    copies: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    products: dict[int, deque[Callable[[], None]]] = field(default_factory=dict[int, deque[Callable[[], None]]])
    stores: dict[int, deque[Callable[[], None]]] = field(default_factory=dict[int, deque[Callable[[], None]]])
    group: int = 0

    def queue(self, kind: dict[int, deque[Callable[[], None]]]) -> deque[Callable[[], None]]:
        """Return a queue of the running group."""
        return kind.setdefault(self.group, deque())

    def finish_one(self) -> bool:
        """Let something in flight finish; whether there was anything."""
        queues = [queue for kind in (self.products, self.stores) for queue in kind.values() if queue]
        total = len(self.copies) + len(queues)
        if not total:
            return False
        at = self.chance.randrange(total)
        if at < len(self.copies):
            self.copies.pop(at)()
        else:
            queues[at - len(self.copies)].popleft()()
        return True

    def drain(self, kind: dict[int, deque[Callable[[], None]]], keep: int) -> None:
        """Finish what the running group has in flight, but for the last `keep`."""
        queue = self.queue(kind)
        while len(queue) > keep:
            queue.popleft()()
