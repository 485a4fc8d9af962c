"""Costs of sequence groups from the training step model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from treadle.costmodels.training_ends import embedding_pass, loss_pass, predictor_pass
from treadle.costmodels.training_grouping import rounds_us
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_memory import stage_capacities
from treadle.costmodels.training_replay import Replay
from treadle.costmodels.training_setting import Setting, tokens_of
from treadle.ir.training.grouping import GroupCosts, GroupingBody, GroupingProblem
from treadle.ir.training.plan import Degrees, StageFigures, StageLayout

_ELEMENT = 2
_PASSES = 3.0
"""Rings of one layer: keys and values forward; keys, values and their gradients backward."""


def tokens_per_rank(setting: Setting, degrees: Degrees, stages: Sequence[StageFigures]) -> int:
    """Return how many tokens a rank holds: what its stage's free memory allows at the plan's bytes per token."""
    held = tokens_of(setting.spec, degrees)
    rooms = (
        held * (capacity - stage.state_bytes) / max(1, stage.activation_bytes + stage.transient_bytes)
        for stage, capacity in zip(stages, stage_capacities(setting, degrees), strict=True)
    )
    return max(1, int(min(rooms)))


def group_sizes(degrees: Degrees) -> tuple[int, ...]:
    """Return the sizes of groups of data and context ranks: powers of two."""
    ranks = degrees.data * degrees.context
    return tuple(1 << power for power in range(ranks.bit_length()) if 1 << power <= ranks)


def longest_held(setting: Setting, degrees: Degrees, stages: Sequence[StageFigures]) -> int:
    """Return the tokens of the longest sequence that the largest group holds."""
    return group_sizes(degrees)[-1] * tokens_per_rank(setting, degrees, stages)


def holds_longest(setting: Setting, degrees: Degrees, stages: Sequence[StageFigures]) -> bool:
    """Whether the largest group holds the longest sequence of the job; jobs of one length ask for nothing."""
    lengths = setting.spec.lengths
    return not lengths or max(lengths) <= longest_held(setting, degrees, stages)


def grouping_problem(
    setting: Setting,
    degrees: Degrees,
    layout: StageLayout,
    stages: Sequence[StageFigures],
    lengths: tuple[int, ...],
) -> GroupingProblem:
    """Return the problem of one batch on the data and context ranks of a plan; the busiest stage sets the times."""
    rank = max(range(degrees.pipeline), key=lambda at: stages[at].forward_us + stages[at].backward_us)
    layers = sum(count for slot, count in enumerate(layout.layers) if degrees.rank_of(slot) == rank)
    domain = max(1, setting.cluster.domain // degrees.tensor)
    costs = group_costs(setting, degrees, float(layers), _ends_us(setting, degrees, rank))
    room = tokens_per_rank(setting, degrees, stages)
    return GroupingProblem(lengths, degrees.data * degrees.context, room, group_sizes(degrees), domain, costs)


def _ends_us(setting: Setting, degrees: Degrees, rank: int) -> float:
    """Return the time per token of a rank of what stands on a pipeline rank beside its layers."""
    total = 0.0
    if rank == 0:
        total += embedding_pass(setting, degrees).total_us
    if rank == degrees.last_rank:
        total += loss_pass(setting, degrees).total_us
        predictors = predictor_pass(setting, degrees, LayerTimer(setting))
        total += predictors.total_us * setting.model.predictors
    return total / tokens_of(setting.spec, degrees)


def grouped_step_us(body: GroupingBody, degrees: Degrees, played: Replay) -> float:
    """Return the step with a batch's rounds as microbatches: all rounds, the shortest one filling and draining the
    pipeline once per stage beyond the first, and the plan's tail."""
    rounds = rounds_us(body)
    fill = (degrees.pipeline - 1) / degrees.virtual * min(rounds)
    return sum(rounds) + fill + played.step_us - played.pipeline_us


def group_costs(setting: Setting, degrees: Degrees, layers: float, ends_us: float = 0.0) -> GroupCosts:
    """Return the costs of groups on one stage of `layers` layers, from the step model at three lengths.

    `ends_us` per token of a rank is added for embedding and loss.

    The model's layer time is fixed + linear s + quadratic s^2 through lengths of 4, 16 and 64 thousand tokens on one
    rank (between them it follows the sizes of products less smoothly); the mix of layer kinds is the model's.
    """
    points = (4096.0, 16384.0, 65536.0)
    times = [_layer_us(setting, degrees, int(length)) * layers for length in points]
    slopes = [(times[i + 1] - times[i]) / (points[i + 1] - points[i]) for i in range(2)]
    quadratic = max(0.0, (slopes[1] - slopes[0]) / (points[2] - points[0]))
    linear = max(1e-9, slopes[0] - quadratic * (points[0] + points[1]))
    fixed = max(0.0, times[0] - linear * points[0] - quadratic * points[0] ** 2)
    return GroupCosts(fixed, linear + ends_us, quadratic, *_ring(setting, degrees, layers))


def _layer_us(setting: Setting, degrees: Degrees, length: int) -> float:
    """Return the mean time of a layer, forward and backward, for one sequence of a length on one context rank."""
    shorter = replace(setting, spec=replace(setting.spec, sequence_tokens=length, lengths=()))
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
