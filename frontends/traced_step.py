"""Buffers of a training step as PyTorch allocates them: the step runs on fake tensors, every storage is recorded.

A storage is live from the operator that makes it until the last reference to it goes; the clock counts operators. No
weights are loaded and nothing is computed.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from treadle.frontends.config import read_config
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue, MissingExtra
from treadle.ir.layout.buffers import Buffer, BuffersProblem

if TYPE_CHECKING:
    import torch


class NotTraced(TreadleError):
    """A model whose training step is not known here."""

    code = "TRD184"
    template = "the training step of `{found}` is not traced"
    hint = "record a step of your own with treadle.frontends.traced_step.record_buffers"


@dataclass(frozen=True, slots=True)
class Shapes:
    """A dense decoder with gated feed-forwards (Llama, Mistral, Qwen) and what it trains on."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    batch: int
    tokens: int


TRACED = ("llama", "mistral", "qwen2", "qwen3")
"""`model_type` of the configurations whose blocks are those of `_forward`."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """A training step in plain PyTorch: forward, loss, backward in bfloat16, AdamW's moments in float32."""

    shapes: Shapes

    def backward(self) -> object:
        """Run to the end of the backward pass; returns what outlives it: parameters with gradients, moments."""
        parameters, moments, _ = _step(self.shapes)
        return parameters, moments

    def trained(self, note: Callable[[str, list[Any], list[Any]], None]) -> list[Any]:
        """Run the step and note AdamW's kernel for each parameter; returns what is kept: parameters, moments."""
        parameters, moments, loss = _step(self.shapes)
        del loss
        for index, parameter in enumerate(parameters):
            state = [parameter, *moments[2 * index : 2 * index + 2]]
            gradient, parameter.grad = parameter.grad, None
            note("adamw", [*state, gradient], state)
        return [*parameters, *moments]


def traced_step(path: Path, batch: int, tokens: int) -> BuffersProblem:
    """Return the buffers of a training step: forward, loss, backward in bfloat16, AdamW's moments in float32.

    Parameters, gradients and moments are buffers too. The optimizer's own step is taken to run in place.

    Raises:
        MissingExtra, NotTraced; what reading a configuration raises.
    """
    return record_buffers(step_of(path, batch, tokens).backward)


def step_of(path: Path, batch: int, tokens: int) -> TrainingStep:
    """Return the training step of a model's configuration.

    Raises:
        NotTraced; what reading a configuration raises.
    """
    config = read_config(path / "config.json" if path.is_dir() else path)
    kind = str(config.fields.get("model_type", ""))
    if kind not in TRACED:
        raise NotTraced(found=kind, expected=f"one of {', '.join(TRACED)}")
    if min(batch, tokens) < 1:
        raise InvalidValue(message="a training step has at least one sequence of one token")
    heads = config.integer("num_attention_heads")
    shapes = Shapes(
        config.integer("num_hidden_layers"), config.integer("hidden_size"), config.integer("intermediate_size"), heads,
        config.integer("num_key_value_heads", default=heads), config.integer("vocab_size"), batch, tokens,
    )  # fmt: skip
    return TrainingStep(shapes)


def record_buffers(step: Callable[[], object]) -> BuffersProblem:
    """Run `step` on fake tensors and return every storage with its lifetime; what it returns lives to the end.

    Args:
        step: makes its tensors itself (parameters, too) with plain PyTorch calls.
    """
    recorder = _Recorder()
    kept = observed(recorder.ran, step)
    recorder.closed = True
    end = recorder.clock + 1
    buffers = tuple(
        Buffer(f"{number} {name}", begin, min(last if last is not None else end, end), size)
        for number, (name, begin, last, size) in enumerate(recorder.rows)
        if size > 0
    )
    del kept
    return BuffersProblem(buffers)


@dataclass(slots=True)
class _Recorder:
    """Storages seen: operator, clock of birth and of death (None while it lives), bytes."""

    clock: int = 0
    rows: list[tuple[str, int, int | None, int]] = field(default_factory=list[tuple[str, int, "int | None", int]])
    alive: dict[int, int] = field(default_factory=dict[int, int])
    closed: bool = False

    def saw(self, tensor: torch.Tensor, operator: str) -> None:
        """Note a storage at its first appearance, and ask to be told of its end."""
        storage = tensor.untyped_storage()
        key = storage._cdata  # pyright: ignore[reportPrivateUsage]  # torch has no public identity of a storage
        if key in self.alive:
            return
        self.alive[key] = len(self.rows)
        self.rows.append((operator, self.clock, None, storage.nbytes()))
        weakref.finalize(storage, self.ended, key)

    def ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Take one operator: the clock goes on, and its results may be new storages."""
        import torch

        self.clock += 1
        for one in out if isinstance(out, tuple | list) else (out,):
            if isinstance(one, torch.Tensor):
                self.saw(one, str(func))

    def ended(self, key: int) -> None:
        """Note the end of a storage: it is live until before the next operator."""
        row = self.alive.pop(key)
        name, begin, _, size = self.rows[row]
        if not self.closed:
            self.rows[row] = (name, begin, self.clock + 1, size)


Ran = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], None]
"""Takes an operator of PyTorch with its arguments and what it returned."""

Kept = TypeVar("Kept")


def observed(ran: Ran, step: Callable[[], Kept]) -> Kept:
    """Run `step` on fake tensors, telling `ran` of every operator; returns what `step` does.

    Raises:
        MissingExtra: PyTorch is not installed.
    """
    try:
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.utils._python_dispatch import TorchDispatchMode
    except ImportError as error:
        raise MissingExtra(package="torch", purpose="tracing a training step", extra="torch") from error

    class Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # the base class is untyped
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            ran(func, args, kwargs or {}, out)
            return out

    with FakeTensorMode(), Mode():  # type: ignore[no-untyped-call]  # the base class is untyped
        return step()


def _step(shapes: Shapes) -> tuple[list[Any], list[Any], Any]:
    """One step without the optimizer; returns parameters (with gradients), two moments of each, the loss."""
    import torch

    def weight(*sizes: int) -> torch.Tensor:
        return torch.empty(sizes, dtype=torch.bfloat16, requires_grad=True)

    head = shapes.hidden // shapes.heads
    wide, narrow = shapes.hidden, shapes.kv_heads * head
    blocks = [
        (
            weight(wide), weight(wide, wide), weight(narrow, wide), weight(narrow, wide), weight(wide, wide),
            weight(wide), weight(shapes.intermediate, wide), weight(shapes.intermediate, wide),
            weight(wide, shapes.intermediate),
        )
        for _ in range(shapes.layers)
    ]  # fmt: skip
    ends = [weight(shapes.vocabulary, wide), weight(wide), weight(shapes.vocabulary, wide)]
    parameters = [*ends, *(one for block in blocks for one in block)]
    moments = [torch.empty(one.shape, dtype=torch.float32) for one in parameters for _ in range(2)]
    ids = torch.empty((shapes.batch, shapes.tokens), dtype=torch.int64)
    loss = _forward(shapes, ids, blocks, ends)
    torch.autograd.backward(loss)
    return parameters, moments, loss


def _forward(shapes: Shapes, ids: Any, blocks: list[tuple[Any, ...]], ends: list[Any]) -> Any:
    from torch.nn import functional

    x = functional.embedding(ids, ends[0])
    angles = ids.new_empty((shapes.tokens, shapes.hidden // shapes.heads), dtype=x.dtype)
    for block in blocks:
        x = _block(shapes, x, angles, *block)
    logits = functional.linear(functional.rms_norm(x, (shapes.hidden,), ends[1]), ends[2])
    return functional.cross_entropy(logits.view(-1, shapes.vocabulary), ids.view(-1))


def _block(
    shapes: Shapes,
    x: Any,
    angles: Any,
    first: Any,
    q: Any,
    k: Any,
    v: Any,
    o: Any,
    second: Any,
    gate: Any,
    up: Any,
    down: Any,
) -> Any:
    import torch
    from torch.nn import functional

    def rotated(heads: Any) -> Any:
        left, right = heads.chunk(2, dim=-1)
        return heads * angles + torch.cat((-right, left), dim=-1) * angles

    head = shapes.hidden // shapes.heads
    normed = functional.rms_norm(x, (shapes.hidden,), first)

    def split(weight: Any, heads: int) -> Any:
        return functional.linear(normed, weight).view(shapes.batch, shapes.tokens, heads, head).transpose(1, 2)

    query, key = rotated(split(q, shapes.heads)), rotated(split(k, shapes.kv_heads))
    mixed = functional.scaled_dot_product_attention(
        query, key, split(v, shapes.kv_heads), is_causal=True, enable_gqa=shapes.kv_heads != shapes.heads
    )
    x = x + functional.linear(mixed.transpose(1, 2).reshape(shapes.batch, shapes.tokens, shapes.hidden), o)
    normed = functional.rms_norm(x, (shapes.hidden,), second)
    return x + functional.linear(functional.silu(functional.linear(normed, gate)) * functional.linear(normed, up), down)
