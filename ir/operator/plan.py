"""Body of a plan of kind `overlap`: a step of a model on GPUs, as an operator loop with its schedule."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Machine
from treadle.ir.model import ModelGraph
from treadle.ir.operator.loop import OperatorLoop
from treadle.ir.operator.schedule import OperatorSchedule


@dataclass(frozen=True, slots=True)
class Step:
    """What one forward pass works on, per data-parallel replica.

    `decode_sequences` sequences of `context_tokens` each take one new token; `prefill_sequences` prompts of
    `prompt_tokens` are read whole. A training step trains on the prompts and decodes nothing.
    """

    decode_sequences: int = 0
    context_tokens: int = 1
    prefill_sequences: int = 0
    prompt_tokens: int = 1
    training: bool = False

    def __post_init__(self) -> None:
        if min(self.decode_sequences, self.prefill_sequences) < 0 or min(self.context_tokens, self.prompt_tokens) < 1:
            raise InvalidValue(message="a step has no negative counts, and sequences of at least one token")
        if not self.tokens:
            raise InvalidValue(message="a step without tokens", hint="give --decode or --prefill sequences")
        if self.training and self.decode_sequences:
            raise InvalidValue(
                message="a training step decodes nothing", hint="give --prefill and --prompt, no --decode"
            )

    @property
    def tokens(self) -> int:
        """Rows of the linear layers: new tokens of the step."""
        return self.decode_sequences + self.prefill_sequences * self.prompt_tokens


@dataclass(frozen=True, slots=True)
class OverlapBody:
    """The decision: how many nano-batches of which sizes, and the schedule of one layer over them."""

    model: ModelGraph
    machine: Machine
    tensor_parallel: int
    step: Step
    nano_batches: tuple[int, ...]
    """Size of each nano-batch in 256ths of the step."""
    loop: OperatorLoop
    schedule: OperatorSchedule
    alternatives: dict[str, int]
    """Period in ns by number and sizes of nano-batches, for those that were tried."""
    sequence_parallel: bool = False
    """Norms and residuals on each GPU's own rows, between the halves of an all-reduce."""
    expert_parallel: int = 1
    """GPUs that experts are spread over; 1: cut like dense products."""

    def __post_init__(self) -> None:
        if sum(self.nano_batches) != SPLIT or min(self.nano_batches) < 1:
            raise InvalidValue(message=f"nano-batches {list(self.nano_batches)} do not add up to {SPLIT} parts")
        apart = self.sequence_parallel or self.tensor_parallel == 1
        if self.expert_parallel < 1 or (
            self.expert_parallel > 1 and (self.expert_parallel % self.tensor_parallel or not apart)
        ):
            raise InvalidValue(
                message=f"experts over {self.expert_parallel} GPUs: whole groups of {self.tensor_parallel}, rows apart"
            )

    @property
    def label(self) -> str:
        """Sizes and parallelism as text: the plan's own key of `alternatives`."""
        return label_of(self.nano_batches, self.sequence_parallel)


SPLIT = 256
"""Parts in a step: nano-batches are whole multiples of 1/256."""


def label_of(sizes: tuple[int, ...], sequence_parallel: bool) -> str:
    """Return sizes of nano-batches as text: `96+160`, `96+160 rows apart` with sequence parallelism."""
    return "+".join(map(str, sizes)) + (ROWS_APART if sequence_parallel else "")


ROWS_APART = " rows apart"
"""Suffix of alternatives whose norms and residuals run on each GPU's own rows."""
