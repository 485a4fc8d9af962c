"""What each trainer's configuration cannot say; such a plan has no file for that trainer, and says so.

Sources: Megatron-LM `megatron/training/arguments.py` and `model_parallel_config.py` (2026-08), torchtitan
`ParallelismConfig` (2026-08), DeepSpeed's configuration JSON.
"""

from __future__ import annotations

from dataclasses import replace

from treadle.ir.diagnostics import Finding, Severity
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.spec import ContextMode, Order, Recompute, Sharding, Trainer

_MEGATRON_ORDERS = (Order.DATA_FIRST, Order.PIPELINE_FIRST)
_STAGES = "another number of recomputed layers on every stage"
_PLAIN_RECOMPUTE = (Recompute.NONE, Recompute.SELECTIVE, Recompute.FULL)


def unsaid(trainer: Trainer, degrees: Degrees, layout: StageLayout | None = None) -> list[str]:
    """Return what of a plan the trainer's configuration cannot say; nothing for `Trainer.ANY`.

    Without a layout: what it cannot say whatever the layout is, or may not be able to.
    """
    if trainer is Trainer.ANY:
        return []
    if degrees.recompute is Recompute.STAGES:
        said = trainer is Trainer.MEGATRON and (degrees.slots == 1 if layout is None else block_of(layout) is not None)
        return [*([] if said else [_STAGES]), *unsaid(trainer, replace(degrees, recompute=Recompute.NONE))]
    found = {Trainer.MEGATRON: _megatron, Trainer.TORCHTITAN: _torchtitan, Trainer.DEEPSPEED: _deepspeed}
    return [reason for reason, here in found[trainer](degrees) if here]


def block_of(layout: StageLayout) -> int | None:
    """Return the number of layers that every virtual stage recomputes (or all it has, if fewer), or None.

    That is what `--recompute-method block` with `--recompute-num-layers` says (Megatron-LM, transformer_block.py).
    """
    most = max(layout.recomputed, default=0)
    pairs = zip(layout.recomputed, layout.layers, strict=False)
    return most if most and all(again == min(most, count) for again, count in pairs) else None


def notes(degrees: Degrees, layout: StageLayout | None = None) -> list[Finding]:
    """Return a note (TRD621) for each trainer that cannot say the plan."""
    return [
        Finding("TRD621", trainer.value, f"no file for this trainer: {'; '.join(reasons)}", severity=Severity.WARNING)
        for trainer in Trainer
        if (reasons := unsaid(trainer, degrees, layout))
    ]


def _megatron(degrees: Degrees) -> list[tuple[str, bool]]:
    return [
        ("schedules with weight gradients apart", degrees.schedule.splits_backward),
        (f"the rank order {degrees.order.value}", degrees.order not in _MEGATRON_ORDERS),
        ("a ring in both directions", degrees.context_mode is ContextMode.BIDIRECTIONAL),
        ("ZeRO-1/2 inside a node only", degrees.sharding is Sharding.NODE and degrees.zero < 3),
        ("a second partition of weights", degrees.sharding is Sharding.HIERARCHICAL),
        ("activations on the host", degrees.offload.activations),
    ]


def _torchtitan(degrees: Degrees) -> list[tuple[str, bool]]:
    return [
        (f"the rank order {degrees.order.value}", degrees.order is not Order.DATA_FIRST),
        ("context ranks that exchange heads", degrees.context_mode is not ContextMode.RING),
        ("a second partition of weights", degrees.sharding is Sharding.HIERARCHICAL),
        ("recomputation of modules apart", degrees.recompute not in _PLAIN_RECOMPUTE),
        ("offload", degrees.offload.optimizer or degrees.offload.activations),
    ]


def _deepspeed(degrees: Degrees) -> list[tuple[str, bool]]:
    return [
        ("pipeline, context and expert ranks", degrees.pipeline * degrees.context * degrees.expert > 1),
        (f"the rank order {degrees.order.value}", degrees.order is not Order.DATA_FIRST),
        ("sharding inside a node with copies", degrees.sharding is Sharding.NODE),
        ("activations on the host", degrees.offload.activations),
        ("overlap of tensor traffic", degrees.overlap_tensor),
        ("recomputation of modules apart", degrees.recompute not in _PLAIN_RECOMPUTE),
    ]
