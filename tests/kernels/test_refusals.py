"""Every portable launcher refuses tensors that its kernel does not take: each family, each argument, each defect."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gluon.test_refusals import DEFECTS
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
def test_other_devices_are_refused(load: Load, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = load(family, *SHAPES[family])
    monkeypatch.setattr(module, "INTERPRETED", False)
    with pytest.raises(ValueError, match="the kernel runs on a GPU"):
        module._check_device(torch.device("cpu"))
