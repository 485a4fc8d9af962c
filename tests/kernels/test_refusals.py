"""Every portable launcher refuses tensors that its kernel does not take: each family, each argument, each defect."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.gluon.test_refusals import DEFECTS, refuses_overlaps
from tests.kernels.conftest import Load
from tests.kernels.test_compile import SHAPES

torch = pytest.importorskip("torch")

from treadle.driver.gpu.correct import ragged_shape  # noqa: E402 - torch is an extra
from treadle.driver.gpu.families import FAMILIES, Source  # noqa: E402
from treadle.frontends import programs  # noqa: E402

MESSAGES = {"alignment": "multiple of 16 bytes|not contiguous"}


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_every_tensor_is_checked(load: Load, family: str) -> None:
    shape, tiles = SHAPES[family]
    program = programs.build(family, shape, tiles)
    options = {"dtype": "bfloat16", **program.options}
    module = load(family, shape, tiles)
    small = ragged_shape(family, program.shape)
    inputs = FAMILIES[family].inputs(Source(3, "cpu", str(options["dtype"])), small, options)
    for defect, (spoil, message) in DEFECTS.items():
        for position, tensor in enumerate(inputs):
            wrong = [spoil(tensor) if at == position else other for at, other in enumerate(inputs)]
            with pytest.raises(ValueError, match=MESSAGES.get(defect, message)):
                module.launch(*wrong)


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_results_that_overlap_and_what_is_no_tensor_are_refused(load: Load, family: str) -> None:
    shape, tiles = SHAPES[family]
    program = programs.build(family, shape, tiles)
    options = {"dtype": "bfloat16", **program.options}
    small = ragged_shape(family, program.shape)
    inputs = FAMILIES[family].inputs(Source(3, "cpu", str(options["dtype"])), small, options)
    launch = load(family, shape, tiles).launch
    assert refuses_overlaps(launch, FAMILIES[family], inputs, options, small) >= len(inputs)
    for position in range(len(inputs)):
        wrong = [[1.0, 2.0] if at == position else other for at, other in enumerate(inputs)]
        with pytest.raises(ValueError, match="is a list; expected a torch tensor"):
            launch(*wrong)


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_other_devices_are_refused(load: Load, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = load(family, *SHAPES[family])
    monkeypatch.setattr(module, "INTERPRETED", False)
    with pytest.raises(ValueError, match="the kernel runs on a GPU"):
        module._check_device(torch.device("cpu"))


def _stretched(tensor: Any, dimension: int, extent: int) -> Any:
    """A contiguous tensor of another extent along one dimension, of repeated values."""
    at = torch.arange(extent) % max(1, tensor.shape[dimension])
    return tensor.index_select(dimension, at).contiguous()


def _expected(family: str, inputs: list[Any], shape: dict[str, int], options: dict[str, Any]) -> Any:
    """The float64 results, or None where the tensors do not belong together."""
    try:
        return FAMILIES[family].reference(tuple(inputs), shape, options)
    except (RuntimeError, IndexError, ValueError, ZeroDivisionError):
        return None


def _agree(found: Any, expected: Any) -> bool:
    """Whether results are those in float64, in the Frobenius norm."""
    pairs = zip(found if isinstance(found, tuple) else (found,), expected, strict=True)
    return all(
        one.shape == right.shape and float((one.double() - right).norm()) <= 0.03 * float(right.norm()) + 1e-6
        for one, right in pairs
    )


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_other_extents_are_refused_or_computed(load: Load, family: str) -> None:
    """Each extent of each tensor, larger by 8 and 0: the launch refuses, or what comes out is right - never wrong."""
    shape, tiles = SHAPES[family]
    program = programs.build(family, shape, tiles)
    options = {"dtype": "bfloat16", **program.options}
    module = load(family, shape, tiles)
    small = {key: min(extent, 24) if key in ("seq", "kv_seq", "tokens", "m", "rows") else extent
             for key, extent in ragged_shape(family, program.shape).items()}  # fmt: skip
    inputs = FAMILIES[family].inputs(Source(3, "cpu", str(options["dtype"])), small, options)
    refused = 0
    for position, tensor in enumerate(inputs):
        for dimension, extent in enumerate(tensor.shape):
            for other in (extent + 8, 0):
                changed = [*inputs[:position], _stretched(tensor, dimension, other), *inputs[position + 1 :]]
                expected = _expected(family, changed, small, options)
                try:
                    found = module.launch(*changed)
                except ValueError:
                    refused += 1
                    continue
                where = f"argument {position}, dimension {dimension}, extent {other}"
                assert expected is not None, f"{where}: computed something of tensors that do not belong together"
                assert family == "kmeans_assign" or _agree(found, expected), where
    assert refused


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_older_gpus_are_refused(load: Load, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = load(family, *SHAPES[family])
    monkeypatch.setattr(module, "INTERPRETED", False)
    found = SimpleNamespace(backend="cuda", arch=75)
    driver = SimpleNamespace(active=SimpleNamespace(get_current_target=lambda: found))
    monkeypatch.setattr(module.triton.runtime, "driver", driver)
    with pytest.raises(ValueError, match=r"this GPU is sm_75; the kernel needs sm_8[09] or newer"):
        module._check_device(torch.device("cuda"))
    found.arch = 90
    module._check_device(torch.device("cuda"))
