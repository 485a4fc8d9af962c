"""Times of what stands before and behind the layers: embedding, loss, and modules that predict further tokens.

Per rank and microbatch, in microseconds; never faster than the host launches them.
"""

from __future__ import annotations

from treadle.costmodels.collectives import all_reduce_us, gather_us
from treadle.costmodels.training_layer import LayerTimer, either, product_pass
from treadle.costmodels.training_setting import ELEMENT, WIDE, Pass, Setting, memory_rate, tokens_of
from treadle.costmodels.training_traffic import tensor_group
from treadle.ir.training.plan import Degrees

_EMBEDDING_KERNELS, _SPLIT_EMBEDDING_KERNELS = 5, 12
_LOSS_KERNELS, _FUSED_LOSS_KERNELS = 20, 4
"""Kernels of one forward pass beside the layers; the backward has half of them (Megatron-LM, tensor_parallel/layers.py
and cross_entropy.py: masks, look-ups and sums of a split vocabulary)."""
_MISALIGNED = 2.5
"""Time of a product with a side that is no multiple of 16 bytes over that of one that is (NVIDIA, Matrix Multiplication
Background User's Guide, tensor core requirements)."""
_ALIGNED = 8
_LOSS_BYTES, _FUSED_LOSS_BYTES = 20, 4
"""Per element of the logits and pass: cast, maximum, exponential, sum and division, or the gradient and its cast; fused
into one kernel, the logits are read and written once, in 16 bits."""


def embedding_pass(setting: Setting, degrees: Degrees) -> Pass:
    """Return the times of the embedding look-up and, where tensor ranks split it, of the sum of what they found."""
    tokens, hidden = tokens_of(setting.spec, degrees), setting.model.hidden
    once = ELEMENT * 2 * tokens * hidden / memory_rate(setting)
    kernels = _EMBEDDING_KERNELS if degrees.tensor == 1 else _SPLIT_EMBEDDING_KERNELS
    sums = _end_sums_us(setting, degrees)
    return _launched(setting, degrees, Pass(once, once), kernels) + Pass(*sums)


def loss_pass(setting: Setting, degrees: Degrees) -> Pass:
    """Return the times of the output projection and the loss, split by the tensor ranks (vocabulary parallel).

    The projection stays in 16 bits (Transformer Engine and torchao leave it out). A vocabulary that tensor ranks share
    is padded to whole tiles; one that is not may leave rows misaligned.
    """
    tokens = tokens_of(setting.spec, degrees)
    share = setting.model.vocabulary / degrees.tensor
    wide = setting.spec.precision if setting.spec.precision in WIDE else WIDE[0]
    product = product_pass(setting, tokens, setting.model.hidden, share, wide)
    if degrees.tensor == 1 and setting.model.vocabulary % _ALIGNED:
        product = product * _MISALIGNED
    each = _FUSED_LOSS_BYTES if setting.spec.fused_loss else _LOSS_BYTES
    moved = tokens * share * each / memory_rate(setting)
    kernels = _FUSED_LOSS_KERNELS if setting.spec.fused_loss else _LOSS_KERNELS
    back, forth = _end_sums_us(setting, degrees)
    return _launched(setting, degrees, product + Pass(moved, moved), kernels) + Pass(forth, back)


def _launched(setting: Setting, degrees: Degrees, device: Pass, kernels: int) -> Pass:
    """Return the times of a few kernels beside the layers, never faster than the host launches them."""
    host = kernels * setting.gpu.constants.host_us_per_kernel
    forward, backward = either(device.forward_us, host, degrees), either(device.backward_us, host / 2, degrees)
    return Pass(forward, backward, device.weight_us)


def _end_sums_us(setting: Setting, degrees: Degrees) -> tuple[float, float]:
    """Return the time of the sum over tensor ranks after the embedding, and of its counterpart in the backward pass.

    The loss has the same in the other direction: its input's gradient is summed.
    """
    size = ELEMENT * tokens_of(setting.spec, degrees) * setting.model.hidden
    group = tensor_group(degrees, setting.cluster)
    if not setting.spec.sequence_parallel:
        return all_reduce_us(size, group, setting.links), 0.0
    return gather_us(size, group, setting.links, "reduce_scatter"), gather_us(size, group, setting.links)


def predictor_pass(setting: Setting, degrees: Degrees, timer: LayerTimer) -> Pass:
    """Return the times of one multi-token prediction module: a projection of two hidden vectors, a layer, a loss."""
    if not setting.model.predictors:
        return Pass(0.0, 0.0)
    hidden = setting.model.hidden
    joined = product_pass(setting, tokens_of(setting.spec, degrees), 2 * hidden / degrees.tensor, hidden)
    last = timer.layer(setting.model.order[-1][0], degrees)
    return joined + last + loss_pass(setting, degrees)
