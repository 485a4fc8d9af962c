"""Runs an emitted Gluon module on the CPU: groups take turns at their waits, what is asynchronous finishes late.

This checks all of a kernel's text - walks over tiles, masks, rings, phases, outputs - against float64 without a GPU. It
does not check what the compiler makes of it: register layouts and swizzles mean nothing here.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from treadle.driver.gpu.emulated import Barrier, Buffer, Deadlock, Descriptor, Engine, Pointer, Product, TensorBuffer

INSTANCES = 2
"""Program instances that share the tiles, so that each walks over several."""
MOST_STEPS = 2_000_000
"""Turns after which a kernel is taken to go on for ever."""


class _Number(int):
    """A compile-time number."""

    @property
    def value(self) -> int:
        """The number."""
        return int(self)


class _Anything:
    """A layout or type: whatever is asked of it is such a thing again."""

    def __call__(self, *_: Any, **__: Any) -> _Anything:
        return self

    def __getattr__(self, name: str) -> Any:
        return None if name.startswith("__") else self


def emulate(source: str, seed: int, instances: int = INSTANCES) -> ModuleType:
    """Return an emitted Gluon module whose `launch` runs on CPU tensors.

    Raises (from `launch`): Deadlock, AssertionError for accesses out of range or of the wrong type.
    """
    machine = _Machine(seed)
    module = ModuleType("emulated")
    module.__dict__.update(machine.names())
    exec(compile(_prepared(source), "emulated", "exec"), module.__dict__)
    module.__dict__.update(
        _slot=lambda iteration, slots: iteration % slots,
        _parity=lambda iteration, slots: iteration // slots % 2,
        _descriptor=lambda tensor, block, layout: Descriptor(tensor, tuple(block)),
        _instances=lambda tensor, tiles: min(tiles, instances),
        _check_device=lambda device: None,
        _reinterpret=lambda tile, dtype, shape, layout: tile.reinterpreted(dtype, shape),
        _reinterpret_shared=lambda tile, dtype, shape, layout: tile.chunks(shape),
        _copy=machine.copy,
        _copy_out=machine.copy_out,
    )
    return module


def _prepared(source: str) -> str:
    """Return the text with waits and arrivals as turns, and without what only the compiler reads."""
    tree = ast.parse(source)
    lines = source.splitlines()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for at in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[at] = ""
    text = "\n".join(lines)
    text = re.sub(r"^(\s+)mbarrier\.wait\((.*)\)$", r"\1yield (\2)", text, flags=re.MULTILINE)
    text = re.sub(r"^(\s+)(mbarrier\.arrive\(.*)$", r"\1\2; yield", text, flags=re.MULTILINE)
    for old, new in ((".to(ttgl.int64)", ""), (".to(tl.int64)", ""), (".type.layout", ".shape"), (".split()", ".unbind(-1)")):
        text = text.replace(old, new)
    return re.sub(r"^(\w+) = getattr\(.*$|^_reinterpret\w* = .*$|^_copy\w* = .*$", "", text, flags=re.MULTILINE)


class _Kernel:
    """A kernel function: `kernel[grid](...)` runs its instances one after the other."""

    def __init__(self, machine: _Machine, function: Callable[..., Any]) -> None:
        self.machine, self.function = machine, function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.function(*arguments, **named)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def run(*arguments: Any, **named: Any) -> None:
            options = {key: value for key, value in named.items() if key not in ("num_warps", "maxnreg")}
            wrapped = [Pointer(a.view(-1)) if isinstance(a, torch.Tensor) else a for a in arguments]
            self.machine.programs = grid[0]
            for program in range(grid[0]):
                self.machine.program = program
                self.function(*wrapped, **options)
                self.machine.finish()

        return run


class _Machine:
    """One multiprocessor: what the names of a Gluon module stand for."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.engine = Engine(self.chance)
        self.program, self.programs = 0, 1

    def names(self) -> dict[str, Any]:
        """Return the names that an emitted module imports."""
        language = self._language()
        anything = _Anything()
        return {
            "gluon": SimpleNamespace(jit=lambda f: _Kernel(self, f)),
            "triton": SimpleNamespace(jit=lambda f: _Kernel(self, f), cdiv=lambda a, b: -(-a // b)),
            "ttgl": language,
            "tl": language,
            "tma": SimpleNamespace(store_wait=lambda pendings: self.engine.drain(self.engine.stores, pendings)),
            "mbarrier": SimpleNamespace(
                MBarrierLayout=anything,
                init=lambda barrier, count: setattr(barrier, "count", count),
                expect=lambda barrier, size: barrier.arrive(size),
                arrive=lambda barrier, count: barrier.arrive(),
            ),
            "fence_async_shared": lambda: None,
            "warpgroup_mma": self.warpgroup_mma,
            "warpgroup_mma_init": lambda value: value,
            "warpgroup_mma_wait": self.warpgroup_mma_wait,
            "tcgen05_mma": self.tcgen05_mma,
            "tcgen05_commit": lambda barrier: self.engine.queue(self.engine.products).append(barrier.arrive),
            "allocate_tensor_memory": self.allocate_tensor_memory,
            "TensorMemoryLayout": anything,
            "tensor_memory_descriptor": anything,
        }

    def _language(self) -> Any:
        types = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "int8", "uint8", "int32", "int64")}
        anything = _Anything()
        layouts = dict.fromkeys(
            ("NVMMADistributedLayout", "NVMMASharedLayout", "BlockedLayout", "SliceLayout", "DotOperandLayout",
             "SwizzledSharedLayout", "shared_memory_descriptor"), anything
        )  # fmt: skip
        return SimpleNamespace(
            **types, **layouts,
            float8e4nv=torch.float8_e4m3fn, uint32=torch.int64, int1=torch.bool,
            constexpr=lambda value: _Number(value) if isinstance(value, int) else _Anything(),
            static_range=range,
            cdiv=lambda a, b: -(-a // b),
            program_id=lambda axis: self.program,
            num_programs=lambda axis: self.programs,
            arange=lambda first, end, layout=None: torch.arange(first, end),
            full=lambda shape, value, dtype=torch.float32, layout=None: torch.full(tuple(shape), value, dtype=dtype),
            zeros=lambda shape, dtype, layout=None: torch.zeros(tuple(shape), dtype=dtype),
            max=lambda tile, axis: tile.max(axis).values,
            min=lambda tile, axis: tile.min(axis).values,
            sum=lambda tile, axis: tile.sum(axis),
            maximum=lambda a, b: _either(a, b, torch.maximum, max),
            minimum=lambda a, b: _either(a, b, torch.minimum, min),
            where=_where,
            exp2=torch.exp2, log2=torch.log2, sqrt=torch.sqrt,
            convert_layout=lambda tile, layout: tile,
            load=lambda pointer, mask=None, other=0: pointer.load(mask, other),
            store=lambda pointer, value, mask=None: pointer.store(value, mask),
            atomic_add=lambda pointer, value, mask=None, sem=None: pointer.add(value, mask),
            allocate_shared_memory=self.allocate_shared_memory,
            warp_specialize=self.warp_specialize,
        )  # fmt: skip

    # --- memory -----------------------------------------------------------------------------------------------------

    @staticmethod
    def allocate_shared_memory(dtype: torch.dtype, shape: list[int], layout: object) -> Any:
        """Return slots of shared memory, or barriers."""
        if dtype is torch.int64:
            barriers = [Barrier() for _ in range(shape[0])]
            return SimpleNamespace(index=lambda slot: barriers[slot])
        return Buffer(_unwritten(shape, dtype))

    @staticmethod
    def allocate_tensor_memory(dtype: torch.dtype, shape: list[int], layout: object) -> Any:
        """Return slots of tensor memory."""
        return TensorBuffer(_unwritten(shape, dtype))

    def copy(self, descriptor: Descriptor, where: list[int], barrier: Barrier, target: Buffer) -> None:
        """Copy a block in: it is there, and its bytes are counted, some time later."""
        if target.shape != list(descriptor.block):
            raise AssertionError(f"a block of {descriptor.block} copied to {target.shape}")
        places = list(where)

        def done() -> None:
            target.array.copy_(descriptor.read(places))
            barrier.receive(descriptor.nbytes)

        self.engine.copies.append(done)

    def copy_out(self, descriptor: Descriptor, where: list[int], staging: Buffer) -> None:
        """Copy a block out: it is read some time later."""
        places = list(where)
        self.engine.queue(self.engine.stores).append(lambda: descriptor.write(places, staging.array.reshape(descriptor.block)))

    # --- products ---------------------------------------------------------------------------------------------------

    def warpgroup_mma(self, a: Any, b: Buffer, acc: Any, use_acc: bool = True, is_async: bool = False) -> Product:
        """Issue a product whose operands in shared memory are read some time later."""
        product = Product()

        def done() -> None:
            before = acc.value if isinstance(acc, Product) else acc
            result = _multiplied(a, b)
            product.value = result + before if use_acc else result

        self.engine.queue(self.engine.products).append(done)
        return product

    def warpgroup_mma_wait(self, keep: int, deps: list[Any]) -> Any:
        """Finish all but `keep` products; return values of those that are done."""
        self.engine.drain(self.engine.products, keep)
        found = [d.value if isinstance(d, Product) and d.value is not None else d for d in deps]
        return found[0] if len(found) == 1 else tuple(found)

    def tcgen05_mma(self, a: Any, b: Buffer, acc: Buffer, use_acc: bool, mbarriers: list[Barrier]) -> None:
        """Issue a product into tensor memory; all it reads is read some time later."""

        def done() -> None:
            result = _multiplied(a, b)
            acc.store(result + acc.array if use_acc else result)

        self.engine.queue(self.engine.products).append(done)

    # --- groups -----------------------------------------------------------------------------------------------------

    def warp_specialize(self, groups: list[tuple[_Kernel, tuple[Any, ...]]], warps: list[int], registers: list[int]) -> None:
        """Run groups until all are done: one goes on to its next wait, or something in flight finishes."""
        running: dict[int, Iterator[Any]] = {at: kernel.function(*own) for at, (kernel, own) in enumerate(groups)}
        waits: dict[int, tuple[Barrier, int] | None] = dict.fromkeys(running)
        for _ in range(MOST_STEPS):
            if not running:
                return
            ready = [at for at in running if (wait := waits[at]) is None or wait[0].passed(wait[1])]
            if (not ready or self.chance.random() < 0.5) and self.engine.finish_one():
                continue
            if not ready:
                names = ", ".join(groups[at][0].function.__name__ for at in running)
                raise Deadlock(f"{names} wait for each other")
            self.engine.group = self.chance.choice(ready)
            try:
                waits[self.engine.group] = next(running[self.engine.group])
            except StopIteration:
                del running[self.engine.group]
        raise Deadlock(f"no end after {MOST_STEPS} steps")

    def finish(self) -> None:
        """Let all stores of an instance finish."""
        while self.engine.finish_one():
            pass


def _unwritten(shape: list[int], dtype: torch.dtype) -> torch.Tensor:
    empty = torch.zeros(tuple(shape), dtype=dtype)
    return empty.fill_(float("nan")) if dtype.is_floating_point else empty.fill_(85)


def _multiplied(a: Any, b: Buffer) -> torch.Tensor:
    left = a.array if isinstance(a, Buffer) else a
    return left.float() @ b.array.float()


def _either(a: Any, b: Any, tensors: Callable[..., Any], numbers: Callable[..., Any]) -> Any:
    if not isinstance(a, torch.Tensor) and not isinstance(b, torch.Tensor):
        return numbers(a, b)
    return tensors(*(x if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=_dtype(a, b)) for x in (a, b)))


def _dtype(a: Any, b: Any) -> torch.dtype:
    return a.dtype if isinstance(a, torch.Tensor) else b.dtype


def _where(condition: Any, a: Any, b: Any) -> Any:
    if isinstance(condition, bool):
        like = a if isinstance(a, torch.Tensor) else b
        chosen = a if condition else b
        return chosen if isinstance(chosen, torch.Tensor) else torch.full_like(like, chosen)
    return torch.where(condition, a, b)


def emulated_figures(source: str, check: Callable[[ModuleType], Mapping[str, Any]], seeds: range) -> dict[str, Any]:
    """Return `correct` and the worst `error` of a module over several orders of what is in flight, or the `reason`."""
    worst = 0.0
    for seed in seeds:
        try:
            found = check(emulate(source, seed))
        except (Deadlock, AssertionError) as error:
            return {"correct": False, "error": None, "reason": f"{type(error).__name__}: {error}"}
        if not found["correct"]:
            return dict(found)
        worst = max(worst, found["error"] or 0.0)
    return {"correct": True, "error": worst, "reason": ""}
