"""Reads expert loads: JSON with loads per layer and counts, under treadle's names or those of EPLB."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treadle.ir.diagnostics import Place, TreadleError, closest
from treadle.ir.errors import MissingField, UnknownField
from treadle.ir.layout.errors import WrongForm
from treadle.ir.layout.experts import ExpertsProblem, Policy
from treadle.ir.plan import parse_json, read_text

_NAMES = {
    "loads": ("loads", "weight", "weights", "load"),
    "slots": ("slots", "num_replicas", "replicas", "num_slots", "physical_experts"),
    "gpus": ("gpus", "num_gpus"),
    "nodes": ("nodes", "num_nodes"),
    "groups": ("groups", "num_groups", "expert_groups"),
    "policy": ("policy", "mode"),
    "sources": ("sources", "traffic"),
}
_COMMENTS = ("name", "description", "source", "comment")


@dataclass(frozen=True, slots=True)
class ExpertOptions:
    """Counts given on the command line; they take precedence over the file's."""

    slots: int | None = None
    gpus: int | None = None
    nodes: int | None = None
    groups: int | None = None
    policy: Policy | None = None


def read_experts(path: Path, options: ExpertOptions) -> ExpertsProblem:
    """Read expert loads.

    The document is a table with `loads` (a list per layer, or one list), `slots`, `gpus`, and optionally `nodes`,
    `groups`, `policy`; or just the list of lists, with the counts as options. Without a policy, hierarchical when the
    groups divide evenly over several nodes, else global: the rule of EPLB.

    Raises:
        UnreadableFile, MalformedText, WrongForm, MissingField, UnknownField, InconsistentCounts: with the file.
    """
    data = parse_json(read_text(path), str(path))
    fields = _fields(data if isinstance(data, dict) else {"loads": data}, path)
    given = {name: getattr(options, name) for name in ("slots", "gpus", "nodes", "groups")}
    counts = {name: _count(fields, name, given[name], path) for name in given}
    policy = options.policy or _policy(fields.get("policy"), path)
    if policy is None:
        several = counts["nodes"] > 1 and counts["groups"] % counts["nodes"] == 0
        policy = Policy.HIERARCHICAL if several else Policy.GLOBAL
    try:
        sources = _sources(fields.get("sources"), path)
        return ExpertsProblem(_loads(fields.get("loads"), path), policy=policy, sources=sources, **counts)
    except TreadleError as error:
        error.place = error.place or Place(str(path))
        raise


def _fields(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the document under our names."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        name = next((ours for ours, aliases in _NAMES.items() if key in aliases), None)
        if name is None and key not in _COMMENTS:
            raise UnknownField(
                place=Place(str(path), path=key),
                field=key,
                expected=f"one of {', '.join(_NAMES)}",
                hint=closest(key, [alias for aliases in _NAMES.values() for alias in aliases]),
            )
        if name:
            found[name] = value
    return found


def _count(fields: dict[str, Any], name: str, given: int | None, path: Path) -> int:
    value = given if given is not None else fields.get(name, 1 if name in ("nodes", "groups") else None)
    if value is None:
        raise MissingField(place=Place(str(path)), field=name, hint=f"add `{name}`, or give --{name}")
    if type(value) is not int or value < 1:
        raise WrongForm(
            place=Place(str(path), path=name), reason=f"`{name}` is {value!r}", expected="a whole number of at least 1"
        )
    return value


def _policy(value: object, path: Path) -> Policy | None:
    if value is None:
        return None
    words = [policy.value for policy in Policy]
    if value not in words:
        raise WrongForm(
            place=Place(str(path), path="policy"), reason=f"policy {value!r}", expected=f"one of {', '.join(words)}"
        )
    return Policy(value)


def _sources(value: object, path: Path) -> tuple[tuple[tuple[float, ...], ...], ...]:
    """Return tokens per layer, node and expert; a table of one layer may stand without its list."""
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(isinstance(one, list) and one for one in value):
        place = Place(str(path), path="sources")
        raise WrongForm(place=place, reason="no table of tokens", expected="a list of numbers per layer and node")
    layers = value if isinstance(value[0][0], list) else [value]
    return tuple(_loads(layer, path, f"sources[{index}]") for index, layer in enumerate(layers))


def _loads(value: object, path: Path, name: str = "loads") -> tuple[tuple[float, ...], ...]:
    place = Place(str(path), path=name)
    if not isinstance(value, list) or not value:
        raise WrongForm(place=place, reason="there are no loads", expected="a list of numbers per layer")
    layers: list[Any] = value if isinstance(value[0], list) else [value]
    for index, layer in enumerate(layers):
        if not isinstance(layer, list) or any(type(load) not in (int, float) for load in layer):
            where = Place(str(path), path=f"{name}[{index}]")
            raise WrongForm(place=where, reason="not a list of numbers", expected="one number per expert")
    return tuple(tuple(layer) for layer in layers)
