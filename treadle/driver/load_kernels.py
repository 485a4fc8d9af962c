"""Kernels of a plan folder as torch operators: `load_kernels("plan")["attention_fwd"](q, k, v)`.

Every kernel becomes an operator of `torch.library` with a fake-tensor kernel, so `torch.compile` traces through it.
Needs torch and triton, and a GPU or TRITON_INTERPRET=1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn

from treadle.driver.operators import Operator, operator_of
from treadle.ir.diagnostics import TreadleError, closest
from treadle.ir.errors import MissingExtra, UnknownName
from treadle.ir.plan import Plan, load, read_bytes
from treadle.ir.tile.kernel import KernelPlan


class UnsupportedTensors(TreadleError):
    """Tensors that a kernel does not take: shape, layout, alignment, element type, device, or GPU."""

    code = "TRD540"
    template = "kernel `{kernel}` does not take these tensors: {reason}"
    hint = "nothing was launched; the `launch` function in {path} says what it takes"


class NoSource(TreadleError):
    """A plan folder without emitted kernels, or one whose kernels changed since it was written."""

    code = "TRD541"
    template = "kernel `{kernel}` of {path} cannot be loaded: {reason}"
    hint = "write the plan again with `treadle kernel ... -o FOLDER` or `treadle compile ... -o FOLDER`"


class Kernel:
    """One kernel of a plan as a function on tensors.

    Its arguments are those of the emitted `launch` without the output tensors, which it allocates.
    """

    def __init__(self, plan: KernelPlan, path: Path, module: ModuleType, operator: Operator) -> None:
        self.plan = plan
        self.path = path
        self.module = module
        self.operator = operator
        self.call = _registered(self)

    @property
    def name(self) -> str:
        """Name in the plan."""
        return self.plan.name

    @property
    def launch(self) -> Callable[..., Any]:
        """The emitted `launch`, which also takes output tensors; raises ValueError for tensors it does not take."""
        function: Callable[..., Any] = self.module.launch
        return function

    def __call__(self, *tensors: Any, **more: Any) -> Any:
        """Run the kernel; raises UnsupportedTensors before anything is launched."""
        return self.call(*tensors, **more)

    def __repr__(self) -> str:
        return f"<kernel {self.name}{self.operator.schema}>"


class Kernels(Mapping[str, Kernel]):
    """The kernels of a plan by name; also attributes where the name is an identifier."""

    def __init__(self, kernels: dict[str, Kernel]) -> None:
        self._kernels = kernels

    def __getitem__(self, name: str) -> Kernel:
        if name not in self._kernels:
            known = list(self._kernels)
            raise UnknownName(
                kind="kernel", name=name, expected=f"one of {', '.join(known)}", hint=closest(name, known)
            )
        return self._kernels[name]

    def __contains__(self, name: object) -> bool:
        return name in self._kernels

    def __getattr__(self, name: str) -> Kernel:
        kernels: dict[str, Kernel] = self.__dict__.get("_kernels", {})
        if name not in kernels:
            raise AttributeError(f"the plan has no kernel `{name}`")
        return kernels[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._kernels)

    def __len__(self) -> int:
        return len(self._kernels)


def load_kernels(folder: str | Path) -> Kernels:
    """Return the emitted kernels of a plan folder as callables on torch tensors.

    Args:
        folder: written by `treadle kernel -o` or `treadle compile -o`.

    Raises:
        NotAPlan, UnreadableFile: no plan is there. NoSource: a kernel is missing, or is not the file the plan names.
        MissingExtra: torch or triton is not installed.
    """
    for package in ("torch", "triton"):
        if find_spec(package) is None:
            raise MissingExtra(package=package, purpose="running kernels", extra="kernels,torch")
    path = Path(folder)
    plan = load(path)
    planned: tuple[KernelPlan, ...] = getattr(plan.body, "kernels", ())
    kernels = {kernel.name: _load(kernel, plan, path) for kernel in planned if kernel.source}
    if not kernels:
        raise NoSource(kernel="*", path=str(path), reason="the plan has no emitted kernels")
    return Kernels(kernels)


def _load(kernel: KernelPlan, plan: Plan, folder: Path) -> Kernel:
    path = folder / kernel.source
    recorded = {artifact.path: artifact.sha256 for artifact in plan.artifacts}
    if recorded.get(kernel.source) != hashlib.sha256(read_bytes(path)).hexdigest():
        raise NoSource(kernel=kernel.name, path=str(folder), reason=f"{kernel.source} is not the file that was written")
    operator = operator_of(kernel.program) if kernel.program is not None else None
    if operator is None:
        raise NoSource(kernel=kernel.name, path=str(folder), reason="its family is no torch operator")
    return Kernel(kernel, path, _module(path), operator)


def _module(path: Path) -> ModuleType:
    specification = spec_from_file_location(f"treadle_kernel_{_identifier(path.stem)}", path)
    assert specification is not None
    assert specification.loader is not None
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def _identifier(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _registered(kernel: Kernel) -> Callable[..., Any]:
    """Register a kernel with torch and return the operator; the same source is registered once."""
    import torch

    source = hashlib.sha256(read_bytes(kernel.path)).hexdigest()[:12]
    mode = "_interpreted" if getattr(kernel.module, "INTERPRETED", False) else ""
    name = f"{_identifier(kernel.name)}_{source}{mode}"
    if not hasattr(torch.ops.treadle, name):
        operator = torch.library.custom_op(
            f"treadle::{name}", _checked(kernel), mutates_args=(), schema=kernel.operator.schema
        )
        operator.register_fake(_fake(kernel))
        _KEPT.append(operator)
    overload: Callable[..., Any] = getattr(torch.ops.treadle, name).default
    return overload


_KEPT: list[Any] = []
"""Registered operators: torch drops the ones that nobody holds."""


def _checked(kernel: Kernel) -> Callable[..., Any]:
    """Return the launch with its complaints as coded errors."""

    def run(*tensors: Any, **more: Any) -> Any:
        try:
            return kernel.launch(*tensors, **more)
        except ValueError as error:
            if _innermost(error.__traceback__) != str(kernel.path):
                raise
            raise UnsupportedTensors(kernel=kernel.name, reason=str(error), path=str(kernel.path)) from None

    return run


def _innermost(traceback: TracebackType | None) -> str:
    """Return the file that raised."""
    file = ""
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next
    return file


def _fake(kernel: Kernel) -> Callable[..., Any]:
    """Return the fake kernel: results without data; raises UnsupportedTensors for several devices and wrong ranks."""

    def fake(*tensors: Any, **more: Any) -> Any:
        import torch

        given: list[Any] = [*tensors, *(value for value in more.values() if isinstance(value, torch.Tensor))]
        devices = sorted({str(value.device) for value in given if isinstance(value, torch.Tensor)})
        if len(devices) > 1:
            _refuse(kernel, f"they are on {' and '.join(devices)}; expected one device")
        like = given[0]
        try:
            shapes = kernel.operator.results(*given)
        except IndexError:
            _refuse(kernel, f"their shapes are {', '.join(str(tuple(value.shape)) for value in given)}")
        results: list[Any] = [
            like.new_empty(shape, dtype=getattr(torch, dtype) if dtype else like.dtype) for shape, dtype in shapes
        ]
        return tuple(results) if len(results) > 1 else results[0]

    return fake


def _refuse(kernel: Kernel, reason: str) -> NoReturn:
    raise UnsupportedTensors(kernel=kernel.name, reason=reason, path=str(kernel.path))
