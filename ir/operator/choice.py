"""One overlap by name, decided alone: what it is asked for, and the body of its plan."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.model import ModelGraph
from treadle.ir.operator.plan import Step


class Preset(Enum):
    """An overlap by the name of what it decides."""

    TOKEN_SPLIT = "token-split"
    """Two sets of tokens of no more waves than one (TokenWeave)."""
    EXPERT_CHUNKS = "expert-chunks"
    """Chunks of an expert layer across nodes, and pieces of the gradient beside them (FSMoE)."""
    EXPERT_TILES = "expert-tiles"
    """Groups of tiles handed between products and transfers in a node (Comet, T3)."""
    CPU_ATTENTION = "cpu-attention"
    """Decoding sequences whose attention runs on the CPU (APEX)."""
    HIDDEN_SYNC = "hidden-sync"
    """Steps over which a synchronisation of all gradients is hidden (CO2)."""
    LAYERED_PREFILL = "layered-prefill"
    """Groups of layers, one of which reads prompts in each iteration, within a time between tokens."""


class PresetRefused(TreadleError):
    """A preset that this model, machine or request has nothing for."""

    code = "TRD185"
    template = "`{preset}` cannot be planned: {reason}"


@dataclass(frozen=True, slots=True)
class PresetRequest:
    """What a preset needs beside the model: machine, group, step, nodes, and limits."""

    preset: Preset
    machine: str
    tensor_parallel: int
    step: Step
    nodes: int = 1
    cpu_bandwidth_bytes_per_s: float = 2e11
    tbt_ms: float = 50.0


@dataclass(frozen=True, slots=True)
class Choice:
    """Decisions of one stage by name; `cost` is what is minimised, entry by entry, `time_ns` what they take."""

    decisions: dict[str, int]
    cost: tuple[float, ...]
    time_ns: float


@dataclass(frozen=True, slots=True)
class ChoiceBody:
    """The decision: a choice for each stage in order (forward and backward, or one), and the time without overlap."""

    model: ModelGraph
    machine: Machine
    request: PresetRequest
    chosen: tuple[Choice, ...]
    without_ns: float

    @property
    def time_ns(self) -> float:
        """Time of all stages."""
        return sum(choice.time_ns for choice in self.chosen)
