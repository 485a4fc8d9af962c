"""The layers of a model as tasks for sections: attention in three, so that its scores are a tensor like others."""

from __future__ import annotations

from math import ceil

from treadle.ir.errors import InvalidValue
from treadle.ir.machine import Machine
from treadle.ir.model import STORED_BYTES, Attention, Layer, ModelGraph, Role
from treadle.ir.model import Operator as ModelOperator
from treadle.ir.model import Step as ModelStep
from treadle.ir.sections.graph import OUTSIDE, Operand, Task, TaskGraph
from treadle.ir.symbolic import evaluate


def task_graph(model: ModelGraph, machine: Machine, batch: int, tokens: int, layers: int | None = None) -> TaskGraph:
    """Return the decoder blocks of a model as a task graph for one pass over prompts.

    Args:
        model: the model graph; embedding and head are left out.
        machine: gives the bytes a value is stored in.
        batch: prompts.
        tokens: tokens of each.
        layers: blocks to take from the first on; all when None.
    """
    blocks = [layer for layer in model.sequence() if layer.role is Role.BLOCK]
    if layers is not None and not 1 <= layers <= len(blocks):
        raise InvalidValue(message=f"{layers} layers of `{model.name}`, which has {len(blocks)} blocks")
    if min(batch, tokens) < 1:
        raise InvalidValue(message="sections need at least one prompt of one token")
    stored = machine.value("bytes_per_value")
    made: list[Task] = []
    entry = OUTSIDE
    for number, layer in enumerate(blocks[:layers]):
        made += _Layer(layer, number, stored, model.dtype, ModelStep(batch, tokens, tokens), entry).tasks()
        entry = made[-1].name
    return TaskGraph(model.name, tuple(made), ceil(batch * tokens * model.hidden_size * stored))


class _Layer:
    """One block as tasks; names are `number.operator`."""

    def __init__(self, layer: Layer, number: int, stored: float, dtype: str, step: ModelStep, entry: str) -> None:
        self.layer, self.number, self.stored, self.step = layer, number, stored, step
        self.scale = stored / STORED_BYTES[dtype]
        self.names: dict[str, str] = {"input": entry}
        self.rows = step.batch * step.seq

    def tasks(self) -> list[Task]:
        made: list[Task] = []
        for operator in self.layer.in_phase(self.step.phase):
            if isinstance(operator.detail, Attention):
                made += self._attention(operator, operator.detail)
            else:
                made.append(self._plain(operator))
        return made

    def _plain(self, operator: ModelOperator) -> Task:
        values = self.step.values()
        name = f"{self.number}.{operator.name}"
        task = Task(
            name,
            ceil(evaluate(operator.flops, **values)),
            ceil(float(evaluate(operator.weight_bytes, **values)) * self.scale),
            tuple(Operand(self.names[source]) for source in operator.inputs if source in self.names),
            ceil(float(evaluate(operator.written_bytes, **values)) * self.scale),
            self.rows,
            self.number,
        )
        self.names[operator.name] = name
        return task

    def _attention(self, operator: ModelOperator, attention: Attention) -> list[Task]:
        """Scores, softmax, and the sum of values; keys and values are needed whole."""
        values = self.step.values()
        flops = ceil(evaluate(operator.flops, **values))
        scores_bytes = ceil(self.rows * attention.heads * self.step.kv * self.stored)
        written = ceil(float(evaluate(operator.written_bytes, **values)) * self.scale)
        names = [f"{self.number}.{operator.name}.{part}" for part in ("scores", "softmax", "values")]
        sources = [self.names[source] for source in operator.inputs if source in self.names]
        whole = tuple(Operand(source, True) for source in sources)
        entries = self.rows * attention.heads * self.step.kv
        self.names[operator.name] = names[2]
        return [
            Task(names[0], flops // 2, 0, whole, scores_bytes, self.rows, self.number),
            Task(names[1], 5 * entries, 0, (Operand(names[0]),), scores_bytes, self.rows, self.number),
            Task(names[2], flops - flops // 2, 0, (Operand(names[1]), *whole), written, self.rows, self.number),
        ]
