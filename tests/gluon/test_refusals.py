"""Every launcher refuses tensors that its kernel does not take, before anything runs: each argument, each defect."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import pytest

from tests.gluon.test_emulated import SMALL, small_kernel
from treadle.codegen.gluon.emit import emit

torch = pytest.importorskip("torch")

from treadle.driver.gpu.correct import output_names  # noqa: E402
from treadle.driver.gpu.emulator import emulate  # noqa: E402 - torch is an extra
from treadle.driver.gpu.families import FAMILIES, Source  # noqa: E402


def _other_type(tensor: Any) -> Any:
    return tensor.double() if tensor.is_floating_point() else tensor.to(torch.int16)


def _strided(tensor: Any) -> Any:
    """The same numbers with gaps between them."""
    return tensor.unsqueeze(-1).expand(*tensor.shape, 2).contiguous()[..., 0]


def _shifted(tensor: Any) -> Any:
    """The same numbers one element behind a boundary of 16 bytes."""
    room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
    room[1:] = tensor.flatten()
    return room[1:].view(tensor.shape)


def _another_rank(tensor: Any) -> Any:
    return tensor.unsqueeze(0).contiguous()


def _elsewhere(tensor: Any) -> Any:
    return tensor.to("meta")


DEFECTS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "type": (_other_type, "has the dtype"),
    "strides": (_strided, "is not contiguous"),
    "alignment": (_shifted, "not aligned to 16 bytes|not contiguous"),
    "rank": (_another_rank, "has the shape"),
    "device": (_elsewhere, "is on meta|other tensors are on"),
}


def _capability(found: tuple[int, int], device: Any) -> tuple[int, int]:
    return found


@cache
def _source(name: str) -> str:
    return emit(small_kernel(name, "h200"))


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("name", SMALL)
def test_every_tensor_is_checked(name: str, defect: str) -> None:
    family, _, _, options = SMALL[name]
    kernel = small_kernel(name, "h200")
    given = {"dtype": kernel.dtype, **kernel.program.options, **options}
    inputs = FAMILIES[family].inputs(Source(3, "cpu", kernel.dtype), kernel.program.shape, given)
    module = emulate(_source(name), 0)
    spoil, message = DEFECTS[defect]
    for position, tensor in enumerate(inputs):
        if not isinstance(tensor, torch.Tensor):
            continue
        wrong = [spoil(tensor) if at == position else other for at, other in enumerate(inputs)]
        with pytest.raises(ValueError, match=message):
            module.launch(*wrong)


def given_results(family: Any, inputs: tuple[Any, ...], options: dict[str, Any], shape: Any) -> dict[str, Any]:
    """Results of the right shapes and types, by the names under which a launch takes them."""
    found = family.reference(inputs, shape, options)
    if family.outputs[0] == "assigned":
        return {"assigned": found[0].argmin(1).int(), "distances": found[0].min(1).values.float()}
    dtype = getattr(torch, options["dtype"])
    return {
        name: torch.zeros(result.shape, dtype=torch.float32 if name == "lse" else dtype)
        for name, result in zip(output_names(family, options, len(found)), found, strict=True)
    }


def overlaps(inputs: tuple[Any, ...], results: dict[str, Any]) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Yield (result, argument or result it shares memory with, inputs) where their bytes overlap by 16."""
    for name, result in results.items():
        for position, tensor in enumerate(inputs):
            size = max(16, tensor.nbytes)
            room = torch.zeros(size + result.nbytes, dtype=torch.uint8)
            room[:size] = tensor.reshape(-1).view(torch.uint8) if tensor.nbytes == size else 0
            first = room[: tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            behind = (tensor.nbytes - 1) // 16 * 16
            results[name] = room[behind : behind + result.nbytes].view(result.dtype).view(result.shape)
            yield name, "", tuple(first if at == position else other for at, other in enumerate(inputs))
            results[name] = result


def refuses_overlaps(launch: Any, family: Any, inputs: tuple[Any, ...], options: dict[str, Any], shape: Any) -> int:
    """Try every result over every input, and over the other results; returns how many were refused."""
    results, refused = given_results(family, inputs, options, shape), 0
    for name, _, given in overlaps(inputs, results):
        with pytest.raises(ValueError, match=f"^{name} shares memory with [a-z_]+; pass a tensor of its own"):
            launch(*given, **results)
        refused += 1
    for name, other in zip(list(results)[1:], results, strict=False):
        if results[name].nbytes <= results[other].nbytes:
            same = results[other].reshape(-1).view(torch.uint8)[: results[name].nbytes]
            twice = {**results, name: same.view(results[name].dtype).view(results[name].shape)}
            with pytest.raises(ValueError, match=f"^{name} shares memory with {other}; "):
                launch(*inputs, **twice)
            refused += 1
    return refused


@pytest.mark.parametrize("name", SMALL)
def test_results_that_overlap_and_what_is_no_tensor_are_refused(name: str) -> None:
    family, _, _, options = SMALL[name]
    kernel = small_kernel(name, "h200")
    given = {"dtype": kernel.dtype, **kernel.program.options, **options}
    inputs = FAMILIES[family].inputs(Source(3, "cpu", kernel.dtype), kernel.program.shape, given)
    module = emulate(_source(name), 0)
    assert refuses_overlaps(module.launch, FAMILIES[family], inputs, given, kernel.program.shape) >= len(inputs)
    for position in range(len(inputs)):
        wrong = [[1.0, 2.0] if at == position else other for at, other in enumerate(inputs)]
        with pytest.raises(ValueError, match="is a list; expected a torch tensor"):
            module.launch(*wrong)


@pytest.mark.parametrize("machine_id", ["h200", "b200"])
@pytest.mark.parametrize("name", ["gemm", "attention_varlen"])
def test_other_devices_and_older_gpus_are_refused(name: str, machine_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = ast.parse(emit(small_kernel(name, machine_id)))
    check = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "_check_device")
    names: dict[str, Any] = {}
    exec(compile(ast.Module([check], []), "check", "exec"), names)
    needed = {"h200": (9, 0), "b200": (10, 0)}[machine_id]
    with pytest.raises(ValueError, match=f"compute capability {needed[0]}.0"):
        names["_check_device"](torch.device("cpu"))
    for found in ((8, 0), (9, 0), (10, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", partial(_capability, found))
        if found == needed:
            names["_check_device"](torch.device("cuda"))
            continue
        with pytest.raises(ValueError, match=f"this GPU has compute capability {found[0]}.0"):
            names["_check_device"](torch.device("cuda"))
