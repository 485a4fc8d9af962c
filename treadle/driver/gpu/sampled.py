"""Whether a kernel is right at its own shape: some rows of its results beside float64.

Small shapes do not show numbers that overflow, tiles that two instances write, or barriers that fail after many turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch

from treadle.driver.gpu.correct import compared, nearest_verdict, output_names
from treadle.driver.gpu.families import FAMILIES, Inputs, Options, Shape, Source, Tensor

ROWS = 64
"""Rows that are compared: the first, the last, and random ones between."""
UNWRITTEN = -7
"""What whole numbers are poisoned with; floats are with NaN."""

Results = tuple[Tensor, ...]
Pairs = tuple[Results, Results]
"""What was found, and what is right in float64."""


def check_sample(
    module: ModuleType, family: str, shape: Shape, options: Options, seed: int, device: str
) -> dict[str, Any]:
    """Run a kernel at a shape into poisoned outputs and compare some rows.

    Returns: `correct`, the relative `error` of the rows, how many `rows`, and what is wrong as `reason`; `correct` is
        None where the device has no memory for it.
    """
    source = Source(seed, device, str(options["dtype"]))
    try:
        inputs = FAMILIES[family].inputs(source, shape, options)
        results = _poisoned_run(module, family, inputs, options)
        picked = _picked(_rows_of(family, inputs, shape), seed)
        verdict = _verdict(family, inputs, results, shape, options, picked)
    except torch.OutOfMemoryError as error:
        return {"correct": None, "error": None, "rows": 0, "reason": f"out of memory: {error}"[:200]}
    return {**verdict, "rows": len(picked)}


def _poisoned_run(module: ModuleType, family: str, inputs: Inputs, options: Options) -> Results:
    """Launch twice: the second time into the first results, overwritten with what no kernel writes."""
    first = module.launch(*inputs)
    results: Results = first if isinstance(first, tuple) else (first,)
    for result in results:
        result.fill_(float("nan") if result.is_floating_point() else UNWRITTEN)
    names = output_names(FAMILIES[family], options, len(results))
    module.launch(*inputs, **dict(zip(names, results, strict=True)))
    return results


def _rows_of(family: str, inputs: Inputs, shape: Shape) -> int:
    """Return how many rows of results can be picked: of matrices, queries of heads, or groups of heads."""
    if family == "attention_bwd":
        return shape["batch"] * shape["kv_heads"]
    if family.startswith("attention"):
        return inputs[0].numel() // inputs[0].shape[-1]
    return inputs[0].shape[0]


def _picked(rows: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    random = torch.randint(rows, (ROWS - 2,), generator=generator).tolist()
    return sorted({0, rows - 1, *random})


def _verdict(
    family: str, inputs: Inputs, results: Results, shape: Shape, options: Options, picked: list[int]
) -> dict[str, Any]:
    if family == "kmeans_assign":
        every = FAMILIES[family].reference((inputs[0][picked], inputs[1]), shape, options)[0]
        return nearest_verdict(results[0], results[1], every, torch.tensor(picked, device=results[0].device))
    for position, result in enumerate(results):
        if result.isnan().any():
            return {"correct": False, "error": None, "reason": f"result {position} has values that were not written"}
    return compared(*_pairs(family, inputs, results, shape, options, picked))


def _pairs(family: str, inputs: Inputs, results: Results, shape: Shape, options: Options, picked: list[int]) -> Pairs:
    if family == "attention_bwd":
        return _of_heads(inputs, results, shape, options, picked[-1])
    if family.startswith("attention"):
        rows = list(_attention_rows(family, inputs, shape, options, picked))
        expected = tuple(torch.stack(parts) for parts in zip(*rows, strict=True))
        flat = [result.flatten(0, -2) if at == 0 else result.flatten() for at, result in enumerate(results)]
        return tuple(result[picked] for result in flat), expected
    cut = FAMILIES[family].reference(_cut(family, inputs, options, picked), shape, options)
    return tuple(result[picked] for result in results), cut


def _cut(family: str, inputs: Inputs, options: Options, picked: list[int]) -> Inputs:
    """Return the inputs of some rows alone."""
    if family == "grouped_gemm":
        starts = torch.tensor(picked, device=inputs[2].device)
        return inputs[0][picked], inputs[1], torch.searchsorted(starts, inputs[2].long()).int()
    own = {"gemm_fp8": (0, 2), "rms_norm": (0, 1) if options.get("residual") else (0,)}.get(family, (0,))
    return tuple(tensor[picked] if at in own else tensor for at, tensor in enumerate(inputs))


def _of_heads(inputs: Inputs, results: Results, shape: Shape, options: Options, index: int) -> Pairs:
    """The gradients of one key-value head and the query heads that share it."""
    batch, head = divmod(index, shape["kv_heads"])
    group = shape["heads"] // shape["kv_heads"]

    def own(tensor: Tensor) -> Tensor:
        each = group if tensor.shape[1] == shape["heads"] else 1
        return tensor[batch : batch + 1, head * each : (head + 1) * each]

    expected = FAMILIES["attention_bwd"].reference(tuple(own(tensor) for tensor in inputs), shape, options)
    return tuple(own(result) for result in results), expected


def _attention_rows(
    family: str, inputs: Inputs, shape: Shape, options: Options, picked: list[int]
) -> Iterator[Results]:
    """Yield (out[, lse]) of query rows, numbered as they lie in the queries."""
    queries = inputs[0].flatten(0, -2)
    for row in picked:
        keys, values = _seen(family, inputs, shape, row)
        scores = keys.double() @ queries[row].double() * shape["qk_head_dim"] ** -0.5
        out = scores.softmax(0) @ values.double()
        yield (out, scores.logsumexp(0)) if options.get("lse") else (out,)


def _seen(family: str, inputs: Inputs, shape: Shape, row: int) -> tuple[Tensor, Tensor]:
    """Return the keys and values that a query row sees."""
    heads, group = shape["heads"], shape["heads"] // shape["kv_heads"]
    if family == "attention_varlen":
        token, head = divmod(row, heads)
        begin, end = next((b, e) for b, e in pairwise(inputs[3].tolist()) if b <= token < e)
        seen = slice(begin, token + 1 if shape["causal"] else end)
        return inputs[1][seen, head // group], inputs[2][seen, head // group]
    if family == "attention_fwd":
        (batch, head), query = divmod(row // shape["seq"], heads), row % shape["seq"]
        seen = slice(0, query + 1 + shape["kv_seq"] - shape["seq"] if shape["causal"] else None)
        return inputs[1][batch, head // group, seen], inputs[2][batch, head // group, seen]
    batch, head = divmod(row, heads)
    if family == "attention_paged":
        return _from_pages(inputs, batch, head // group)
    keys = inputs[1][batch, head // group]
    return keys, keys[:, : shape["v_head_dim"]] if shape["latent"] else inputs[2][batch, head // group]


def _from_pages(inputs: Inputs, batch: int, head: int) -> tuple[Tensor, Tensor]:
    pages, length = inputs[3][batch].long(), int(inputs[4][batch])
    keys, values = (cache[pages, :, head].flatten(0, 1)[:length] for cache in inputs[1:3])
    return keys, values


def trusted(check: Mapping[str, Any]) -> bool:
    """Whether a kernel may be timed after its sample: nothing is wrong, as far as there was memory to see."""
    return check.get("correct") is not False
