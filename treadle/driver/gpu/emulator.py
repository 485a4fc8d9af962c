"""Runs an emitted Gluon module on the CPU: groups take turns at their waits, what is asynchronous finishes late.

This checks all of a kernel's text - walks over tiles, masks, rings, phases, outputs - against float64 without a GPU. It
does not check what the compiler makes of it: register layouts and swizzles mean nothing here.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import torch

from treadle.driver.gpu.emulated import Barrier, Buffer, Chunks, Deadlock, Descriptor, Engine, Pointer, Product
from treadle.driver.gpu.emulated_language import Anything, BarrierLanguage, Language, multiplied

INSTANCES = 2
"""Program instances that share the tiles, so that each walks over several."""
MOST_STEPS = 2_000_000
"""Turns after which a kernel is taken to go on for ever."""


def emulate(source: str, seed: int, instances: int = INSTANCES) -> ModuleType:
    """Return an emitted Gluon module whose `launch` runs on CPU tensors.

    Raises (from `launch`): Deadlock, AssertionError for accesses out of range or of the wrong type.
    """
    machine = _Machine(seed)
    module = ModuleType("emulated")
    module.__dict__.update(machine.names())
    exec(compile(_prepared(source), "emulated", "exec"), module.__dict__)
    module.__dict__.update(_replaced(instances), _copy=machine.copy, _copy_out=machine.copy_out)
    module.__dict__.update(_instance=machine.instance, _stride=machine.stride)
    return module


def _replaced(instances: int) -> dict[str, Callable[..., Any]]:
    """Return the module's own helpers that touch the GPU or its layouts, for torch."""

    def slot(iteration: int, slots: int) -> int:
        return iteration % slots

    def parity(iteration: int, slots: int) -> int:
        return iteration // slots % 2

    def descriptor(tensor: torch.Tensor, block: list[int], layout: Any) -> Descriptor:
        return Descriptor(tensor, tuple(block))

    def shared(tensor: torch.Tensor, tiles: int) -> int:
        return min(tiles, instances)

    def check_device(device: Any) -> None:
        pass

    def fresh(step: int) -> int:
        return 0

    def reinterpret(tile: Buffer, dtype: torch.dtype, shape: list[int], layout: Any) -> Buffer:
        return tile.reinterpreted(dtype, shape)

    def reinterpret_shared(tile: Buffer, dtype: torch.dtype, shape: list[int], layout: Any) -> Chunks:
        return tile.chunks(shape)

    def unchanged(value: Any) -> Any:
        return value

    return {
        "_slot": slot,
        "_own": unchanged,
        "_made": unchanged,
        "_parity": parity,
        "_descriptor": descriptor,
        "_instances": shared,
        "_check_device": check_device,
        "_fresh": fresh,
        "_reinterpret": reinterpret,
        "_reinterpret_shared": reinterpret_shared,
    }


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
    for old, new in (
        (".to(ttgl.int64)", ""),
        (".to(tl.int64)", ""),
        (".type.layout", ".shape"),
        (".split()", ".unbind(-1)"),
    ):
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
        language = Language(lambda: (self.program, self.programs), self.warp_specialize)
        return {
            "gluon": self,
            "triton": self,
            "ttgl": language,
            "tl": language,
            "tma": self,
            "mbarrier": BarrierLanguage,
            "fence_async_shared": _fence,
            "warpgroup_mma": self.warpgroup_mma,
            "warpgroup_mma_init": _as_it_is,
            "warpgroup_mma_wait": self.warpgroup_mma_wait,
            "tcgen05_mma": self.tcgen05_mma,
            "tcgen05_commit": self.tcgen05_commit,
            "allocate_tensor_memory": language.allocate_tensor_memory,
            "TensorMemoryLayout": Anything(),
            "tensor_memory_descriptor": Anything(),
        }

    def instance(self, tiles: int) -> int:
        """Return which instance runs."""
        return self.program

    def stride(self, tiles: int) -> int:
        """Return how many instances there are."""
        return self.programs

    def jit(self, function: Callable[..., Any]) -> _Kernel:
        """Return a function of the module as a kernel."""
        return _Kernel(self, function)

    @staticmethod
    def cdiv(a: int, b: int) -> int:
        """Return a / b rounded up."""
        return -(-a // b)

    def store_wait(self, pendings: int) -> None:
        """Wait for copies out: all but the last `pendings` of the group have been read."""
        self.engine.drain(self.engine.stores, pendings)

    def tcgen05_commit(self, barrier: Barrier) -> None:
        """Arrive when all products that the group has issued are done."""
        self.engine.queue(self.engine.products).append(barrier.arrive)

    # --- memory -----------------------------------------------------------------------------------------------------

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
        self.engine.queue(self.engine.stores).append(
            lambda: descriptor.write(places, staging.array.reshape(descriptor.block))
        )

    # --- products ---------------------------------------------------------------------------------------------------

    def warpgroup_mma(self, a: Any, b: Buffer, acc: Any, use_acc: bool = True, is_async: bool = False) -> Product:
        """Issue a product whose operands in shared memory are read some time later."""
        product = Product()

        def done() -> None:
            before: Any = acc.value if isinstance(acc, Product) else acc
            result = multiplied(a, b)
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
            result = multiplied(a, b)
            acc.store(result + acc.array if use_acc else result)

        self.engine.queue(self.engine.products).append(done)

    # --- groups -----------------------------------------------------------------------------------------------------

    def warp_specialize(
        self, groups: list[tuple[_Kernel, tuple[Any, ...]]], warps: list[int], registers: list[int]
    ) -> None:
        """Run groups until all are done: one goes on to its next wait, or something in flight finishes."""
        running: dict[int, Iterator[Any]] = {at: kernel.function(*own) for at, (kernel, own) in enumerate(groups)}
        waits: dict[int, tuple[Barrier, int] | None] = dict.fromkeys(running)
        # Some groups are much slower than others, so that what depends on their pace shows.
        pace = [10 ** self.chance.uniform(-3, 0) for _ in groups]
        for _ in range(MOST_STEPS):
            if not running:
                return
            ready = [at for at in running if (wait := waits[at]) is None or wait[0].passed(wait[1])]
            if (not ready or self.chance.random() < 0.5) and self.engine.finish_one():
                continue
            if not ready:
                names = ", ".join(groups[at][0].function.__name__ for at in running)
                raise Deadlock(f"{names} wait for each other")
            self.engine.group = self.chance.choices(ready, [pace[at] for at in ready])[0]
            try:
                waits[self.engine.group] = next(running[self.engine.group])
            except StopIteration:
                del running[self.engine.group]
        raise Deadlock(f"no end after {MOST_STEPS} steps")

    def finish(self) -> None:
        """Let all stores of an instance finish."""
        while self.engine.finish_one():
            pass


def _fence() -> None:
    """Order writes before copies: all of them are, here."""


def _as_it_is(value: Any) -> Any:
    return value


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
