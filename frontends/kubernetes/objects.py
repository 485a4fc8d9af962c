"""A dump's objects by kind, with careful access: what is missing or of the wrong type is a located error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from treadle.ir.cluster.errors import CyclicOwners, DuplicateName, NotACluster
from treadle.ir.diagnostics import Place
from treadle.ir.errors import WrongType

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a dump and where it stands."""

    data: Data
    place: Place

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self._metadata("name")

    @property
    def namespace(self) -> str:
        """`metadata.namespace`, `default` if there is none."""
        return self._metadata("namespace") or "default"

    def _metadata(self, field: str) -> str:
        metadata = self.data.get("metadata")
        return str(metadata.get(field) or "") if isinstance(metadata, dict) else ""

    def get(self, *path: str) -> Any:
        """Return the value at a path of fields, None if a step is missing; raises WrongType if a step is no table."""
        value: Any = self.data
        for position, step in enumerate(path):
            if value is None:
                return None
            if not isinstance(value, dict):
                raise self.wrong(".".join(path[:position]), value, "a table of fields")
            value = value.get(step)
        return value

    def table(self, *path: str) -> Data:
        """Return the table at a path; an absent one is empty."""
        value = self.get(*path)
        if value is not None and not isinstance(value, dict):
            raise self.wrong(".".join(path), value, "a table of fields")
        return value or {}

    def items(self, *path: str) -> list[Data]:
        """Return the list of tables at a path; an absent one is empty."""
        value = self.get(*path)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
            raise self.wrong(".".join(path), value, "a list of tables")
        return value or []

    def strings(self, *path: str) -> dict[str, str]:
        """Return the table of strings at a path (labels, annotations)."""
        return {str(key): str(value) for key, value in self.table(*path).items()}

    def wrong(self, field: str, found: object, expected: str) -> WrongType:
        """Return the error for a value of the wrong type."""
        return WrongType(
            place=self.place, field=f"{self.name}: {field}", found=f"`{str(found)[:60]}`", reason="wrong kind of value",
            expected=expected,
        )  # fmt: skip


@contextmanager
def reading(item: Object) -> Generator[None]:
    """Turn what a value of the wrong type causes while an object is read into an error that names the object.

    Raises:
        WrongType: from TypeError, AttributeError, ValueError, KeyError and OverflowError.
    """
    try:
        yield
    except (TypeError, AttributeError, ValueError, KeyError, OverflowError) as error:
        raise WrongType(
            place=item.place, field=item.name or "object", found="a value of the wrong type", reason=str(error)[:200]
        ) from None


@dataclass(frozen=True, slots=True)
class Dump:
    """All objects of a dump by kind."""

    kinds: dict[str, tuple[Object, ...]]
    named: dict[tuple[str, str, str], Object] = field(default_factory=dict[tuple[str, str, str], Object])
    """By kind, namespace and name."""

    def of(self, kind: str) -> tuple[Object, ...]:
        """Return the objects of a kind."""
        return self.kinds.get(kind, ())

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return one object, None if the dump does not show it."""
        return self.named.get((kind, namespace, name))


def read_dump(document: object, file: str, text: str = "") -> Dump:
    """Sort the objects of a (nested) List by kind.

    Raises:
        NotACluster: no list of objects, or no node among them.
        DuplicateName: two objects of one kind with one name and namespace.
    """
    kinds: dict[str, list[Object]] = defaultdict(list)
    seen: dict[tuple[str, str, str], Object] = {}
    for path, data in _walk(document, file, "items"):
        kind = str(data.get("kind") or "")
        found = Object(data, Place(file, path=path))
        found = Object(data, Place(file, _line(text, found.name), path=f"{kind} {found.name}"))
        key = (kind, found.namespace, found.name)
        if key in seen:
            raise DuplicateName(place=found.place, kind=kind.lower(), name=found.name)
        seen[key] = found
        kinds[kind].append(found)
    if "Node" not in kinds:
        raise NotACluster(place=Place(file), reason="there is no Node in it")
    return Dump({kind: tuple(objects) for kind, objects in kinds.items()}, seen)


def _walk(document: object, file: str, path: str) -> Iterator[tuple[str, Data]]:
    if not isinstance(document, dict) or not isinstance(document.get("items"), list):
        raise NotACluster(place=Place(file), reason="it is not a List with `items`")
    for index, item in enumerate(document["items"]):
        if not isinstance(item, dict) or not isinstance(item.get("kind"), str):
            raise NotACluster(place=Place(file, path=f"{path}[{index}]"), reason="an item has no `kind`")
        if item["kind"].endswith("List") and "items" in item:
            yield from _walk(item, file, f"{path}[{index}].items")
        else:
            yield f"{path}[{index}]", item


def _line(text: str, name: str) -> int:
    """Return the line of an object's name in the source; only small sources are searched (0: unknown)."""
    if not text or len(text) > 4_000_000:
        return 0
    position = text.find(f'"name": "{name}"')
    return text.count("\n", 0, position) + 1 if position >= 0 else 0


def top_owner(dump: Dump, item: Object) -> tuple[str, str]:
    """Return (kind, name) of the object at the top of the chain of controllers, ("", "") without one.

    Raises:
        CyclicOwners: the chain comes back to itself.
    """
    chain = [(str(item.get("kind")), item.name)]
    while True:
        references = item.items("metadata", "ownerReferences")
        owner = next((r for r in references if r.get("controller")), references[0] if references else None)
        if owner is None:
            return chain[-1] if len(chain) > 1 else ("", "")
        step = (str(owner.get("kind")), str(owner.get("name")))
        if step in chain:
            cycle = " -> ".join(f"{kind}/{name}" for kind, name in [*chain, step])
            raise CyclicOwners(place=item.place, name=chain[0][1], cycle=cycle)
        chain.append(step)
        above = dump.find(step[0], item.namespace, step[1])
        if above is None:
            return step
        item = above
