"""Costs of sequence groups from the training step model."""

from __future__ import annotations

from dataclasses import replace

from treadle.costmodels.training_step import LayerTimer, Setting
from treadle.ir.training.grouping import GroupCosts
from treadle.ir.training.plan import Degrees

_ELEMENT = 2
_PASSES = 3.0
"""Rings of one layer: keys and values forward; keys, values and their gradients backward."""


def group_costs(setting: Setting, degrees: Degrees, layers: float) -> GroupCosts:
    """Return the costs of groups on one stage of `layers` layers, from the step model at three lengths.

    The model's layer time is fixed + linear s + quadratic s^2 through lengths of 4, 16 and 64 thousand tokens on one
    rank (between them it follows the sizes of products less smoothly); the mix of layer kinds is the model's.
    """
    points = (4096.0, 16384.0, 65536.0)
    times = [_layer_us(setting, degrees, int(length)) * layers for length in points]
    slopes = [(times[i + 1] - times[i]) / (points[i + 1] - points[i]) for i in range(2)]
    quadratic = max(0.0, (slopes[1] - slopes[0]) / (points[2] - points[0]))
    linear = max(1e-9, slopes[0] - quadratic * (points[0] + points[1]))
    fixed = max(0.0, times[0] - linear * points[0] - quadratic * points[0] ** 2)
    return GroupCosts(fixed, linear, quadratic, *_ring(setting, degrees, layers))


def _layer_us(setting: Setting, degrees: Degrees, length: int) -> float:
    """Return the mean time of a layer, forward and backward, for one sequence of a length on one context rank."""
    shorter = replace(setting, spec=replace(setting.spec, sequence_tokens=length))
    timer = LayerTimer(shorter)
    one = replace(degrees, context=1, micro_batch=1)
    total = sum(timer.layer(name, one).total_us * count for name, count in setting.model.order)
    return total / setting.model.layers


def _ring(setting: Setting, degrees: Degrees, layers: float) -> tuple[float, float, float]:
    """Return (per step, per token inside a domain, per token across) of the rings of all layers."""
    width = rings = 0.0
    for name, count in setting.model.order:
        core = setting.model.kind(name).attention
        if core is not None:
            held = core.kv_heads / min(degrees.tensor, core.kv_heads)
            width += count * held * (core.qk_head_dim + core.v_head_dim)
            rings += count
    share = layers / setting.model.layers * _PASSES
    links = setting.links
    leaf = setting.cluster.leaf_gpus
    across = links.between(degrees.tensor / leaf if leaf else 0.0)
    near, far = (_ELEMENT * width / rate * share for rate in (links.fast_bytes_per_us, across))
    return rings * share * links.latency_us, near, far
