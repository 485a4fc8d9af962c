"""Whatever tensors a launch is given: it refuses them by name, with what was found and expected, and nothing runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.gluon.test_emulated import SMALL, small_kernel
from tests.kernels.plans import HOPPER, tiny
from tests.kernels.test_compile import SHAPES
from treadle.codegen.gluon.emit import emit as emit_gluon
from treadle.codegen.triton.emit import emit
from treadle.frontends import programs

torch = pytest.importorskip("torch")

from treadle.driver.gpu.correct import ragged_shape  # noqa: E402 - torch is an extra
from treadle.driver.gpu.families import FAMILIES, Source  # noqa: E402
from treadle.driver.gpu.suite import load_module  # noqa: E402

pytestmark = pytest.mark.usefixtures("interpreter")
KERNELS = [("triton", family) for family in sorted(SHAPES)] + [("gluon", name) for name in SMALL]


class Ran(Exception):
    """A kernel was launched, or memory for its results was described."""


class Tripwire:
    """Stands for every kernel of a module."""

    def __getitem__(self, grid: Any) -> Any:
        raise Ran


def _launcher(source: str) -> Any:
    """The launch of a module whose kernels are tripwires, as on a GPU that the kernel runs on."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.py"
        path.write_text(source)
        module = load_module(path)
    for name in [name for name in vars(module) if name.endswith("_kernel")]:
        setattr(module, name, Tripwire())
    module.__dict__["_check_device"] = _any_device
    module.__dict__["_descriptor"] = _runs
    module.__dict__["_instances"] = _runs
    return module.__dict__["launch"]


def _any_device(_device: Any) -> None:
    pass


def _runs(*_: Any) -> Any:
    raise Ran


@cache
def _case(kind: str, name: str) -> tuple[Any, tuple[str, ...], tuple[Any, ...], dict[str, Any]]:
    """Return (launch, names of its tensors, right tensors, options)."""
    if kind == "triton":
        family, program = name, programs.build(name, *SHAPES[name])
        shape, options = ragged_shape(family, program.shape), {"dtype": "bfloat16", **program.options}
        source = emit(tiny(family, *SHAPES[name], {}), HOPPER)
    else:
        family, _, _, more = SMALL[name]
        kernel = small_kernel(name, "h200")
        shape, options = kernel.program.shape, {"dtype": kernel.dtype, **kernel.program.options, **more}
        source = emit_gluon(kernel)
    inputs = FAMILIES[family].inputs(Source(3, "cpu", str(options["dtype"])), shape, options)
    launch = _launcher(source)
    names = launch.__code__.co_varnames[: len(inputs)]
    return launch, names, inputs, options


def _spoilt(tensor: Any, defect: str) -> tuple[Any, str]:
    """Return a tensor with a defect, and a word of the complaint."""
    if defect == "type":
        return (tensor.double() if tensor.is_floating_point() else tensor.to(torch.int16)), "has the dtype"
    if defect == "gaps":
        return tensor.unsqueeze(-1).expand(*tensor.shape, 3).contiguous()[..., 1], "contiguous|16 bytes"
    if defect == "shifted":
        room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
        room[1:] = tensor.flatten()
        return room[1:].view(tensor.shape), "16 bytes|contiguous"
    if defect == "device":
        return tensor.to("meta"), "is on meta|on cpu"
    if defect == "empty":
        return tensor[:0], "shape"
    if defect == "scalar":
        return tensor.flatten()[0], "shape"
    return [1, 2, 3], "is a list; expected a torch tensor"


DEFECTS = ("type", "gaps", "shifted", "device", "empty", "scalar", "list")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(KERNELS), st.sampled_from(DEFECTS), st.integers(0, 5))
def test_bad_tensors_are_refused_by_name_and_nothing_runs(kernel: tuple[str, str], defect: str, number: int) -> None:
    launch, names, inputs, _ = _case(*kernel)
    position = number % len(inputs)
    wrong, word = _spoilt(inputs[position], defect)
    given_tensors = [wrong if at == position else tensor for at, tensor in enumerate(inputs)]
    with pytest.raises(ValueError, match=word) as caught:
        launch(*given_tensors)
    message = str(caught.value)
    # The first tensor gives shape and device, so where it is the wrong one another may be named.
    assert any(name in message for name in (names if position == 0 else names[position : position + 1])), message
    assert len(message) < 200


@pytest.mark.parametrize(("kind", "name"), KERNELS)
def test_right_tensors_reach_the_kernel(kind: str, name: str) -> None:
    """What refuses everything would pass the test above."""
    launch, _, inputs, _ = _case(kind, name)
    with pytest.raises(Ran):
        launch(*inputs)
