"""Kernels of a training step and the storages each reads and writes, recorded on fake tensors.

Views and allocations are no kernels. Each other PyTorch operator is one; what it writes, and whether it can be run
again, is read from its schema.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.frontends.traced_step import observed, step_of
from treadle.ir.layout.step_trace import StepTrace, TracedKernel, TracedStorage

if TYPE_CHECKING:
    import torch

FILLING = ("aten::copy_", "aten::zero_", "aten::fill_")
"""Operators that write in place without regard to what was there: run again, they give the same."""

ATTENTION = "_scaled_dot_product"
"""Begin of the names of fused attention; `query, key` are the first arguments, of the backward after the gradient."""

Note = Callable[[str, Iterable[Any], Iterable[Any]], None]
"""Takes a kernel that no PyTorch operator stands for: its name, tensors it reads, tensors it writes."""


def trace_step(path: Path, batch: int, tokens: int) -> StepTrace:
    """Return the kernels and storages of a training step with AdamW, a kernel a parameter at its end.

    Raises:
        MissingExtra, NotTraced; what reading a configuration raises.
    """
    step = step_of(path, batch, tokens)
    return record_step(f"{path.parent.name or path.stem} {batch}x{tokens}", step.trained)


def record_step(name: str, step: Callable[[Note], Iterable[Any]]) -> StepTrace:
    """Run `step` on fake tensors and return what it did; the tensors it returns are kept from step to step.

    Args:
        name: of the trace.
        step: makes its tensors itself with plain PyTorch calls, and may note kernels of its own.
    """
    recorder = _Recorder()
    kept = observed(recorder.ran, lambda: list(step(recorder.note)))
    keys = {_key(tensor) for tensor in kept}
    rows = [(position, row) for position, row in enumerate(recorder.rows) if row.uses]
    order = {position: index for index, (position, _) in enumerate(rows)}
    storages = tuple(row.frozen(index, row.key in keys, order) for index, (_, row) in enumerate(rows))
    return StepTrace(name, tuple(recorder.kernels), storages)


@dataclass(slots=True)
class _Row:
    """A storage so far; `held` keeps the tensor, so that no later storage gets the same key."""

    key: int
    name: str
    size_bytes: int
    held: Any
    uses: list[int] = field(default_factory=list[int])
    written: list[int] = field(default_factory=list[int])
    sources: tuple[int, ...] = ()

    def frozen(self, index: int, kept: bool, order: dict[int, int]) -> TracedStorage:
        sources = tuple(order[one] for one in self.sources if one in order)
        return TracedStorage(
            f"{index} {self.name}", self.size_bytes, tuple(self.uses), tuple(self.written), kept, sources
        )


@dataclass(slots=True)
class _Recorder:
    kernels: list[TracedKernel] = field(default_factory=list[TracedKernel])
    rows: list[_Row] = field(default_factory=list[_Row])
    known: dict[int, int] = field(default_factory=dict[int, int])

    def ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Take one operator of PyTorch."""
        name = str(func)
        inputs, outputs = _tensors((args, kwargs)), _tensors(out)
        if func.is_view or func.namespace == "prim" or not (inputs or outputs):
            return
        if "empty" in name or name.startswith("aten.detach"):
            for tensor in outputs:
                self._row(tensor, name)
            return
        written = [*outputs, *_tensors(_mutated(func, args, kwargs))]
        kernel = TracedKernel(name, *_work(func, args, kwargs, out), repeats=_repeats(func, args, kwargs))
        self._kernel(kernel, inputs, written)

    def note(self, name: str, reads: Iterable[Any], writes: Iterable[Any]) -> None:
        """Take a kernel that no operator stands for."""
        self._kernel(TracedKernel(name, repeats=False), list(reads), list(writes))

    def _kernel(self, kernel: TracedKernel, reads: list[torch.Tensor], writes: list[torch.Tensor]) -> None:
        at = len(self.kernels)
        self.kernels.append(kernel)
        written = {self._row(tensor, kernel.name) for tensor in writes}
        read = {self._row(tensor, kernel.name) for tensor in reads}
        for row in sorted(written | read):
            if row in written:
                self.rows[row].written.append(at)
            if not self.rows[row].uses:
                self.rows[row].sources = tuple(sorted(read - {row}))
            self.rows[row].uses.append(at)

    def _row(self, tensor: torch.Tensor, name: str) -> int:
        key = _key(tensor)
        if key not in self.known:
            self.known[key] = len(self.rows)
            self.rows.append(_Row(key, name, max(1, tensor.untyped_storage().nbytes()), tensor.untyped_storage()))
        return self.known[key]


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # pyright: ignore[reportPrivateUsage]  # torch has no public identity


def _tensors(tree: Any) -> list[torch.Tensor]:
    import torch
    from torch.utils import _pytree

    leaves: list[Any] = _pytree.tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().nbytes() > 0]


def _mutated(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments that the operator writes to."""
    found: list[Any] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found.append(args[position] if position < len(args) else kwargs.get(argument.name))
    return found


def _repeats(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether running the operator again gives the same: nothing random, nothing updated in place."""
    import torch

    name = str(func._schema.name)
    if func._schema.is_mutable:
        return name in FILLING
    if torch.Tag.nondeterministic_seeded in func.tags:
        return ATTENTION in name and _argument(func, args, kwargs, "dropout_p", 0.0) == 0.0
    return True


def _work(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> tuple[int, bool]:
    """Return FLOP of products (PyTorch's counts) and attention (2 products forward, 5 backward; causal: half)."""
    from torch.utils.flop_counter import flop_registry

    name = str(func._schema.name)
    if ATTENTION in name:
        backward = "backward" in name
        query, key = args[1 if backward else 0], args[2 if backward else 1]
        batch, heads, rows, dim = query.shape
        product = 2 * batch * heads * rows * key.shape[2] * dim
        halves = 1 if _argument(func, args, kwargs, "is_causal", False) else 2
        return product * (5 if backward else 2) * halves // 2, True
    count: Callable[..., int] | None = flop_registry.get(func.overloadpacket)
    return (0 if count is None else int(count(*args, **kwargs, out_val=out))), False


def _argument(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], name: str, default: Any) -> Any:
    """Return an argument by name, wherever it was given."""
    if name in kwargs:
        return kwargs[name]
    for position, argument in enumerate(func._schema.arguments):
        if argument.name == name and position < len(args):
            return args[position]
    return default
