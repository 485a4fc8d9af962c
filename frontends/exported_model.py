"""A `torch.export` program -> the training view of its decoder stack, layer by layer from the graph.

The stack is the numbered container of modules with the most parameters. Operators of a layer are read one by one:
products with weights, fused attention, normalizations and elementwise chains; anything else is refused by name.
A product is split by rows (its result is summed) when it is added to what came around it, by columns otherwise.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.plan import read_bytes
from treadle.ir.training.model import AttentionCore, LayerKind, Product, Shard, TrainingModel, runs

_PRODUCTS = {"linear", "addmm", "mm", "matmul"}
_ATTENTION = {"scaled_dot_product_attention"}
_ACTIVATIONS = {"silu", "gelu", "relu", "sigmoid", "tanh", "softplus", "silu_", "relu_"}
_NORMS = {"layer_norm", "native_layer_norm", "rms_norm", "_fused_rms_norm"}
_VIEWS = {
    *("view", "reshape", "_unsafe_view", "transpose", "permute", "unsqueeze", "squeeze", "expand", "slice", "select"),
    *("split", "split_with_sizes", "chunk", "getitem", "contiguous", "clone", "alias", "detach", "detach_", "t"),
    *("flatten", "unflatten", "to", "_to_copy", "lift_fresh_copy", "unbind", "type_as", "_assert_tensor_metadata"),
    *("sym_size", "alias_copy", "view_as", "narrow"),
}
_ELEMENTWISE = {
    *_ACTIVATIONS,
    *_NORMS,
    *("add", "add_", "sub", "mul", "mul_", "div", "neg", "pow", "rsqrt", "sqrt", "mean", "cos", "sin", "cat", "stack"),
    *("exp", "where", "clamp", "maximum", "minimum", "square", "rsub", "reciprocal", "dropout", "native_dropout"),
    *("masked_fill", "view_as_complex", "view_as_real", "sum"),
}
_CONSTANTS = {
    *("arange", "ones", "zeros", "full", "empty", "ones_like", "zeros_like", "full_like", "scalar_tensor"),
    *("triu", "tril", "eq", "gt", "lt", "le", "ge"),
}
_LAYER = re.compile(r"^(.*?)(?:^|\.)(\d+)(?:\.|$)")
_KERNELS = 1.5
"""Kernels per operator, as for models from configurations."""


class NotExported(TreadleError):
    """A file that gives no exported program."""

    code = "TRD647"
    template = "no torch.export program: {reason}"
    hint = "write one with torch.export.save, or name a function as FILE.py:NAME that returns (module, inputs)"


class UnsupportedOperator(TreadleError):
    """An operator of a layer that the training cost model cannot time."""

    code = "TRD648"
    template = "operator `{operator}` of module `{module}` is not known to the training cost model"
    hint = "known are products with weights, scaled_dot_product_attention, normalizations and elementwise operators"


class NoLayers(TreadleError):
    """A program without a stack of layers between an embedding and an output projection."""

    code = "TRD649"
    template = "no decoder stack in the program: {reason}"
    hint = "expected an embedding, a ModuleList of layers, and an output projection over the vocabulary"


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    module: str

    @property
    def base(self) -> str:
        """The operator without library and overload."""
        parts = self.operator.removeprefix("<built-in function ").rstrip(">").split(".")
        return parts[1] if len(parts) > 2 else parts[0]


def is_exported(name: str) -> bool:
    """Whether a model is named as an exported program or a factory: `FILE.pt2`, `FILE.py:NAME`."""
    return name.endswith(".pt2") or name.partition(":")[0].endswith(".py")


def read_exported(name: str, folder: Path) -> tuple[TrainingModel, Path]:
    """Return the training model of a program, and the file it was read from.

    Raises: UnreadableFile, NotExported, UnsupportedOperator, NoLayers.
    """
    file, _, factory = name.partition(":")
    path = folder / file
    read_bytes(path)
    answer = _asked(path, factory or "model")
    nodes = [
        Node(item["name"], item["operator"], tuple(item["inputs"]), tuple(item["shape"]), item["module"])
        for item in answer["nodes"]
    ]
    parameters = {key: tuple(shape) for key, shape in answer["parameters"].items()}
    return _Program(path.stem, nodes, parameters, answer["inputs"], str(path)).model(), path


def _asked(path: Path, name: str) -> dict[str, Any]:
    """Let a process of its own import torch and the user's file."""
    done = subprocess.run(
        [sys.executable, "-m", "treadle.frontends.exported_worker"],
        input=json.dumps({"file": str(path), "name": name}),
        capture_output=True,
        text=True,
        check=False,
    )
    place = Place(str(path))
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotExported(place=place, reason=last[:300])
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if "error" in answer:
        raise NotExported(place=place, reason=answer["error"], expected=answer["expected"])
    return answer


class _Program:
    """The graph, cut into layers."""

    def __init__(
        self, name: str, nodes: list[Node], parameters: dict[str, tuple[int, ...]], inputs: list[list[int]], file: str
    ) -> None:
        self.name, self.nodes, self.parameters, self.file = name, nodes, parameters, file
        tokens = [shape for shape in inputs if shape]
        self.tokens = max(1, prod(tokens[0])) if tokens else 1
        self.prefix = self._stack()

    def refuse(self, reason: str) -> NoLayers:
        """Return the error of a program of another form."""
        return NoLayers(place=Place(self.file), reason=reason)

    def _stack(self) -> str:
        sizes: Counter[str] = Counter()
        for name, shape in self.parameters.items():
            if match := _LAYER.match(name):
                sizes[match[1]] += prod(shape)
        if not sizes:
            raise self.refuse("no numbered container of modules has parameters")
        return sizes.most_common(1)[0][0]

    def layer_of(self, module: str) -> int | None:
        """Return the number of the layer a module belongs to."""
        match = _LAYER.match(module)
        return int(match[2]) if match and match[1] == self.prefix else None

    def model(self) -> TrainingModel:
        """Return the training model."""
        layers: dict[int, list[Node]] = {}
        outside: list[Node] = []
        for node in self.nodes:
            number = self.layer_of(node.module)
            (outside if number is None else layers.setdefault(number, [])).append(node)
        if not layers:
            raise self.refuse(f"no operator runs inside `{self.prefix}`")
        tables = [node for node in outside if node.base == "embedding"]
        if not tables:
            raise self.refuse("no embedding before the layers")
        vocabulary, hidden = self.parameters.get(tables[0].inputs[0], (0, 0))
        heads = [node for node in outside if node.base in _PRODUCTS and node.shape and node.shape[-1] == vocabulary]
        if not vocabulary or not heads:
            raise self.refuse("no output projection over the vocabulary after the layers")
        weights = {name for name in heads[-1].inputs if name in self.parameters}
        positions = sum(prod(self.parameters.get(node.inputs[0], (0,))) for node in tables[1:])
        kinds, order = self._kinds(layers, hidden)
        tied = tables[0].inputs[0] in weights
        return TrainingModel(self.name, hidden, vocabulary, kinds, runs(order), tied, 0, positions)

    def _kinds(self, layers: dict[int, list[Node]], hidden: int) -> tuple[tuple[LayerKind, ...], tuple[str, ...]]:
        """Return the distinct kinds of layers, and the kind of each layer."""
        kinds: dict[LayerKind, str] = {}
        order: list[str] = []
        for number in sorted(layers):
            kind = _Layer(self, layers[number], hidden, number).kind()
            kinds.setdefault(kind, f"layer{len(kinds)}")
            order.append(kinds[kind])
        return tuple(replace(kind, name=name) for kind, name in kinds.items()), tuple(order)


class _Layer:
    """One layer: its products, attention, and what it saves and moves."""

    def __init__(self, program: _Program, nodes: list[Node], hidden: int, number: int) -> None:
        self.program, self.hidden = program, hidden
        self.nodes = [node for node in nodes if node.shape]
        self.named = {node.name: node for node in self.nodes}
        self.number = number
        for node in self.nodes:
            if node.base not in _PRODUCTS | _ATTENTION | _VIEWS | _ELEMENTWISE | _CONSTANTS:
                raise UnsupportedOperator(
                    place=Place(program.file), operator=node.operator, module=node.module or "the model"
                )
            if node.base in _PRODUCTS and not self.weight(node):
                raise UnsupportedOperator(
                    place=Place(program.file), operator=f"{node.operator} of two activations", module=node.module,
                    hint="write attention with torch.nn.functional.scaled_dot_product_attention",
                )  # fmt: skip

    @cached_property
    def readers(self) -> dict[str, list[Node]]:
        """Who reads a result."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def weight(self, node: Node) -> str:
        """Return the weight of a product, through views of it; empty for none."""
        for name in reversed(node.inputs):
            source = self.source(name)
            if len(self.program.parameters.get(source, ())) == 2:
                return source
        return ""

    def source(self, name: str) -> str:
        """Return what a result is a view of."""
        while (node := self.named.get(name)) is not None and node.base in _VIEWS and node.inputs:
            name = node.inputs[0]
        return name

    def size(self, name: str) -> int:
        """Return the elements per token of a result; 0 for what is no activation of this batch."""
        node = self.named.get(name)
        if node is None:
            return self.hidden if name not in self.program.parameters and name in self.readers else 0
        return prod(node.shape) // self.program.tokens

    def products(self) -> list[tuple[Node, Product]]:
        """Products with weights, in order."""
        found: list[tuple[Node, Product]] = []
        for node in self.nodes:
            if node.base in _PRODUCTS:
                name = self.weight(node)
                outputs, inputs = self.program.parameters[name]
                if node.base in ("mm", "matmul", "addmm") and outputs != node.shape[-1]:
                    outputs, inputs = inputs, outputs
                bias = any(len(self.program.parameters.get(item, ())) == 1 for item in node.inputs)
                label = name.removesuffix(".weight").rpartition(".")[2]
                found.append((node, Product(label, inputs, outputs, self.shard(node), bias)))
        return found

    def shard(self, node: Node) -> Shard:
        """Return how tensor parallelism splits a product."""
        return Shard.ROW if node.shape[-1] == self.hidden and self._joins(node) else Shard.COLUMN

    def _joins(self, node: Node) -> bool:
        """Whether a product's result is added to something that does not come from it."""
        mine, queue = {node.name}, [node.name]
        while queue:
            for reader in self.readers.get(queue.pop(), ()):
                if reader.base in _PRODUCTS | _ATTENTION | _ACTIVATIONS:
                    continue
                others = [name for name in reader.inputs if name not in mine and name not in self.program.parameters]
                if reader.base in ("add", "add_") and any(self._whole(name) for name in others):
                    return True
                if reader.name not in mine:
                    mine.add(reader.name)
                    queue.append(reader.name)
        return False

    def _whole(self, name: str) -> bool:
        """Whether a result is a hidden vector per token that no split product made."""
        return self.size(name) == self.hidden and not self.split(name)

    @cached_property
    def _split(self) -> set[str]:
        found: set[str] = set()
        for node in self.nodes:
            if node.base in _PRODUCTS:
                if node.shape[-1] != self.hidden or not self._near_row(node):
                    found.add(node.name)
            elif node.base in _ATTENTION or any(name in found for name in node.inputs):
                found.add(node.name)
        return found

    def _near_row(self, node: Node) -> bool:
        """Whether a product of hidden width reads something wider or an attention's result, as a last product does."""
        source = self.source(node.inputs[0])
        before = self.named.get(source)
        if before is None:
            return False
        chain = {source}
        for earlier in reversed(self.nodes[: self.nodes.index(node)]):
            if earlier.name in chain:
                if earlier.base in _ATTENTION | _ACTIVATIONS:
                    return True
                if earlier.base in _PRODUCTS:
                    return False
                chain.update(earlier.inputs)
        return False

    def split(self, name: str) -> bool:
        """Whether a result lives in the region that tensor parallelism splits."""
        return name in self._split

    def attention(self) -> AttentionCore | None:
        """Return the attention core of the layer."""
        for node in self.nodes:
            if node.base in _ATTENTION:
                query, key, value = (self.named[name].shape for name in node.inputs[:3])
                return AttentionCore(query[-3], key[-3], query[-1], value[-1])
        return None

    def saved(self) -> tuple[int, int, int, int]:
        """Return elements per token kept for the backward: replicated, split, made by norms, inside the MLP.

        An activation and the product with its gate are one kernel, which keeps what goes in.
        """
        kept: dict[str, None] = {}
        inner: set[str] = set()
        norms: set[str] = set()
        for node in self.nodes:
            activations = [name for name in node.inputs if name not in self.program.parameters]
            if node.base in _PRODUCTS | _ATTENTION | _ACTIVATIONS | _NORMS:
                kept |= dict.fromkeys(self.source(name) for name in activations)
            if node.base in _ATTENTION:
                kept[node.name] = None
            if node.base in ("mul", "mul_") and len(activations) == 2 and all(map(self.split, activations)):
                parts = [self.source(name) for name in activations]
                kept |= dict.fromkeys(name for name in parts if self.named[name].base not in _ACTIVATIONS)
                inner |= {*parts, node.name}
            if node.base in _ACTIVATIONS:
                inner |= {node.name, *map(self.source, activations)}
            if node.base in _PRODUCTS and not self.split(self.source(activations[0])):
                norms.add(self.source(activations[0]))
        totals = [0, 0]
        for name in kept:
            totals[self.split(name)] += self.size(name)
        if not any(node.base in _NORMS for node in self.nodes):
            totals[0] += len(norms) * self.hidden
        dropped = sum(self.size(name) for name in kept if name in inner and self.split(name))
        return totals[0], totals[1], sum(self.size(name) for name in norms), dropped

    def moved(self) -> tuple[int, int]:
        """Return elements per token that elementwise chains read and write, each chain of a module fused."""
        totals = [0, 0]
        clusters: dict[str, set[str]] = {}
        for node in self.nodes:
            if node.base in _ELEMENTWISE:
                clusters.setdefault(node.module, set()).add(node.name)
        for names in clusters.values():
            read = {self.source(item) for name in names for item in self.named[name].inputs}
            outside = {name for name in read if name not in names}
            written = {name for name in names if any(reader.name not in names for reader in self._users(name))}
            for name in outside | written:
                totals[self.split(name)] += self.size(name)
        return totals[0], totals[1]

    def _users(self, name: str) -> list[Node]:
        """Return the readers of a result, through views; a result nobody in the layer reads leaves it."""
        found: list[Node] = []
        queue = list(self.readers.get(name, ()))
        while queue:
            node = queue.pop()
            if node.base in _VIEWS:
                queue.extend(self.readers.get(node.name, ()))
            else:
                found.append(node)
        return found or [Node("", "", (), (), "")]

    def kind(self) -> LayerKind:
        """Return the layer's kind, without a name."""
        products = self.products()
        replicated, sharded, norms, inner = self.saved()
        moved = self.moved()
        prefix = f"{self.program.prefix}." if self.program.prefix else ""
        own = f"{prefix}{self.number}."
        total = sum(prod(shape) for name, shape in self.program.parameters.items() if name.startswith(own))
        counted = sum(product.parameters for _, product in products)
        chains = len({node.module for node in self.nodes if node.base in _ELEMENTWISE})
        again = tuple(item.name for node, item in products if self._feeds_activation(node))
        return LayerKind(
            "",
            tuple(item for _, item in products),
            total - counted,
            replicated,
            sharded,
            moved[0],
            moved[1],
            attention=self.attention(),
            selective_saved=inner,
            recomputed=again,
            norm_saved=norms,
            kernels=round(_KERNELS * (len(products) + 1 + chains)),
        )

    def _feeds_activation(self, node: Node) -> bool:
        return any(reader.base in _ACTIVATIONS | {"mul"} for reader in self._users(node.name)) and self.split(node.name)
