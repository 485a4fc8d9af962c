"""The emitted training module: forward of one microbatch beside backward of another, against autograd."""

from __future__ import annotations

import json
import sys
import types
from itertools import pairwise
from typing import Any

import pytest

from tests.overlap.test_module import CONFIG, HEADS, KV_HEADS, LAYERS, SIZE, WIDE, plain, weights
from treadle.codegen.operator_module import operator_module
from treadle.costmodels.machines import load_machine
from treadle.costmodels.operator_loop import layer_loop
from treadle.frontends.hf import parse_model
from treadle.ir.operator.plan import OverlapBody, Step
from treadle.solvers.overlap.solve import OverlapOptions, schedule

torch = pytest.importorskip("torch")

PROMPTS, TOKENS = 2, 5


def body(tensor_parallel: int) -> OverlapBody:
    model, machine = parse_model(json.dumps(CONFIG)), load_machine("h100")
    step, apart = Step(prefill_sequences=1, prompt_tokens=4096, training=True), tensor_parallel > 1
    loop = layer_loop(model, machine, tensor_parallel, step, (256,), apart)
    found, _ = schedule(loop, OverlapOptions(searched_modes=0, exact=False))
    return OverlapBody(model, machine, tensor_parallel, step, (256,), loop, found, {}, apart)


def loaded(text: str, name: str) -> Any:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)
    return module


def forward_of(operators: Any, module: Any, passes: Any) -> None:
    """One microbatch alone, in launch order."""
    names = [name for lane, name, *_ in module.LAUNCHES if lane == 0]
    table = operators.table()
    order = ["qkv", "rope", "attention.prefill", "output", "output.reduce", "residual+norm_2", "gate_up"]
    order += ["silu_product", "down", "down.reduce", "residual_2+norm"]
    for layer in range(LAYERS):
        for name in order:
            if f"forward.{name}" in names:
                table[f"forward.{name}"](passes, layer)


def expected(layers: list[dict[str, Any]], final: Any, x: Any, given: Any) -> tuple[Any, list[dict[str, Any]], Any]:
    """Gradients by autograd: of the rows, of the weights by layer, of the final norm."""
    leaves = [{name: part.clone().requires_grad_() for name, part in layer.items()} for layer in layers]
    x, final = x.clone().requires_grad_(), final.clone().requires_grad_()
    residual = torch.cat([plain(leaves, part, None) for part in x.split(TOKENS)])
    normed = torch.nn.functional.rms_norm(residual, (WIDE,), final, 1e-5)
    (normed * given).sum().backward()
    return x.grad, [{name: part.grad for name, part in layer.items()} for layer in leaves], final.grad


@pytest.mark.parametrize("tensor_parallel", [1, 8])
def test_backward_beside_forward_is_autograd(tensor_parallel: int) -> None:
    torch.manual_seed(0)
    module = loaded(operator_module(body(tensor_parallel)), f"overlap_train_{tensor_parallel}")
    layers, final = weights(), torch.rand(WIDE)
    operators = module.DenseTraining(layers, final, HEADS, KV_HEADS, SIZE)
    first, second = (torch.randn(PROMPTS * TOKENS, WIDE) for _ in range(2))
    back = operators.begin_microbatch(first, PROMPTS, TOKENS)
    forward_of(operators, module, back)
    given = torch.randn(PROMPTS * TOKENS, WIDE)
    operators.begin_backward(back, given)
    ahead = operators.begin_microbatch(second, PROMPTS, TOKENS)
    module.PlannedLayers(operators.table(), LAYERS).run([ahead, back])
    rows, by_layer, of_final = expected(layers, final, first, given)
    torch.testing.assert_close(operators.finish(back), rows, rtol=1e-3, atol=1e-4)
    for layer, wanted in enumerate(by_layer):
        for name, gradient in wanted.items():
            torch.testing.assert_close(back.gradients[layer][name], gradient, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(back.gradients[LAYERS - 1]["final_norm"], of_final, rtol=1e-3, atol=1e-4)
    wanted_rows = torch.cat([plain(layers, part, None) for part in second.split(TOKENS)])
    torch.testing.assert_close(ahead.rows.residual, wanted_rows, rtol=1e-4, atol=1e-4)


def test_gradients_of_microbatches_add_up() -> None:
    torch.manual_seed(1)
    module = loaded(operator_module(body(1)), "overlap_train_sum")
    layers, final = weights(), torch.rand(WIDE)
    operators = module.DenseTraining(layers, final, HEADS, KV_HEADS, SIZE)
    table: list[dict[str, Any]] = [{} for _ in layers]
    batches = [torch.randn(PROMPTS * TOKENS, WIDE) for _ in range(3)]
    made = [operators.begin_microbatch(x, PROMPTS, TOKENS, table) for x in batches]
    forward_of(operators, module, made[0])
    runner = module.PlannedLayers(operators.table(), LAYERS)
    for back, ahead in pairwise(made):
        operators.begin_backward(back, torch.ones_like(batches[0]))
        runner.run([ahead, back])
    total = [expected(layers, final, x, torch.ones_like(x))[1][1]["down"] for x in batches[:2]]
    torch.testing.assert_close(table[1]["down"], total[0] + total[1], rtol=1e-3, atol=1e-4)


def test_a_missing_state_is_refused() -> None:
    module = loaded(operator_module(body(1)), "overlap_train_bad")

    def nothing(state: Any, layer: int) -> None:
        return None

    table = {name: nothing for _, name, *_ in module.LAUNCHES}
    with pytest.raises(ValueError, match="1 states for 2 microbatches"):
        module.PlannedLayers(table, 2).run([None])
