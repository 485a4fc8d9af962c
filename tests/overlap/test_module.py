"""The emitted PyTorch module: two nano-batches in planned order against one layer after another on the whole batch."""

from __future__ import annotations

import json
import types
from typing import Any

import pytest

from treadle.codegen.operator_module import engine_options, operator_module
from treadle.costmodels.machines import load_machine
from treadle.costmodels.operator_loop import layer_loop
from treadle.frontends.hf import parse_model
from treadle.ir.operator.plan import OverlapBody, Step
from treadle.solvers.overlap.solve import OverlapOptions, schedule

torch = pytest.importorskip("torch")

HEADS, KV_HEADS, SIZE, WIDE, NARROW, LAYERS = 4, 2, 8, 32, 48, 3
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    "max_position_embeddings": 8192, "torch_dtype": "bfloat16", "rms_norm_eps": 1e-5, "hidden_act": "silu",
}  # fmt: skip


@pytest.fixture(scope="module")
def body() -> OverlapBody:
    """Two halves of a mixed step on 8 H100."""
    model, machine, step = parse_model(json.dumps(CONFIG)), load_machine("h100"), Step(512, 1024, 1, 512)
    loop = layer_loop(model, machine, 8, step, (128, 128), True)
    found, _ = schedule(loop, OverlapOptions(searched_modes=0, exact=False))
    return OverlapBody(model, machine, 8, step, (128, 128), loop, found, {}, True)


@pytest.fixture(scope="module")
def module(body: OverlapBody) -> Any:
    """The emitted module, loaded."""
    loaded = types.ModuleType("overlap")
    loaded.__dict__["__name__"] = "overlap"
    import sys

    sys.modules["overlap"] = loaded
    exec(compile(operator_module(body), "overlap.py", "exec"), loaded.__dict__)
    return loaded


def weights() -> list[dict[str, Any]]:
    def made(*sizes: int) -> Any:
        return torch.randn(sizes) / sizes[-1] ** 0.5

    joint = (HEADS + 2 * KV_HEADS) * SIZE
    return [
        {
            "norm": torch.rand(WIDE), "qkv": made(joint, WIDE), "output": made(WIDE, HEADS * SIZE),
            "norm_2": torch.rand(WIDE), "gate_up": made(2 * NARROW, WIDE), "down": made(WIDE, NARROW),
        }
        for _ in range(LAYERS)
    ]  # fmt: skip


def plain(layers: list[dict[str, Any]], x: Any, past: list[tuple[Any, Any]] | None) -> Any:
    """One prompt or one decoding row after another, written in the plainest way; x is (tokens, channels)."""
    begin = past[0][0].shape[1] if past else 0
    for number, w in enumerate(layers):
        normed = torch.nn.functional.rms_norm(x, (WIDE,), w["norm"], 1e-5)
        q, k, v = (normed @ w["qkv"].T).split([HEADS * SIZE, KV_HEADS * SIZE, KV_HEADS * SIZE], dim=-1)
        q, k, v = (part.view(len(x), -1, SIZE).transpose(0, 1) for part in (q, k, v))
        places = torch.arange(begin, begin + len(x))[:, None] * 10000.0 ** (-torch.arange(SIZE // 2) / (SIZE // 2))
        turn = torch.polar(torch.ones_like(places), places)
        q, k = (_turned(part, turn) for part in (q, k))
        if past:
            k, v = torch.cat((past[number][0], k), dim=1), torch.cat((past[number][1], v), dim=1)
        k, v = (part.repeat_interleave(HEADS // KV_HEADS, dim=0) for part in (k, v))
        scores = q @ k.transpose(1, 2) / SIZE**0.5
        hidden = torch.triu(torch.ones(scores.shape[1:], dtype=torch.bool), diagonal=begin + 1)
        mixed = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1) @ v
        x = x + mixed.transpose(0, 1).reshape(len(x), -1) @ w["output"].T
        normed = torch.nn.functional.rms_norm(x, (WIDE,), w["norm_2"], 1e-5)
        gate, up = (normed @ w["gate_up"].T).chunk(2, dim=-1)
        x = x + (torch.nn.functional.silu(gate) * up) @ w["down"].T
    return x


def _turned(part: Any, turn: Any) -> Any:
    half = SIZE // 2
    both = torch.view_as_real(torch.complex(part[..., :half], part[..., half:]) * turn)
    return torch.cat((both[..., 0], both[..., 1]), dim=-1)


def test_planned_order_computes_the_plain_layers(module: Any) -> None:
    torch.manual_seed(0)
    layers, tokens, context, decodes = weights(), 5, 7, 3
    operators = module.DenseOperators(layers, torch.rand(WIDE), HEADS, KV_HEADS, SIZE)
    states: list[Any] = []
    expected: list[Any] = []
    for _ in range(2):
        x = torch.randn(decodes + tokens, WIDE)
        past = [
            (torch.randn(decodes, KV_HEADS, context, SIZE), torch.randn(decodes, KV_HEADS, context, SIZE))
            for _ in layers
        ]
        rows = [plain(layers, x[n : n + 1], [(k[n], v[n]) for k, v in past]) for n in range(decodes)]
        expected.append(torch.cat((*rows, plain(layers, x[decodes:], None))))
        states.append(operators.begin(x, decodes, 1, tokens, past))
    module.PlannedLayers(operators.table(), LAYERS).run(states)
    for state, wanted in zip(states, expected, strict=True):
        torch.testing.assert_close(state.residual, wanted, rtol=1e-4, atol=1e-4)


def test_launches_are_those_of_the_plan(module: Any, body: OverlapBody) -> None:
    assert len(module.LAUNCHES) == len(body.loop.operators)
    assert module.shares_of_step(1001) == [500, 501]

    def nothing(state: Any, layer: int) -> None:
        return None

    runner = module.PlannedLayers({name: nothing for _, name, *_ in module.LAUNCHES}, 2)
    assert len(runner.order) == 2 * len(body.loop.operators)
    for position, before in enumerate(runner.before):
        assert all(runner.order[other][1] <= runner.order[position][0] for other in before)
    with pytest.raises(ValueError, match="no operator"):
        module.PlannedLayers({}, 1)
    with pytest.raises(ValueError, match="nano-batches"):
        runner.run([None])


def test_engine_options_say_what_they_leave_out(body: OverlapBody) -> None:
    options = json.loads(engine_options(body))
    assert options["vllm"]["options"]["--tensor-parallel-size"] == 8
    assert options["megatron"]["options"]["--sequence-parallel"]
    assert any("shares of the SMs" in text for text in options["vllm"]["not_expressed"])
