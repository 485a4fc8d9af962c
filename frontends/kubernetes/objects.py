"""A dump's objects by kind, with careful access: what is missing or of the wrong type is a located error."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from treadle.frontends.kubernetes.documents import Data, Entry
from treadle.ir.cluster.errors import CyclicOwners, DuplicateName, NotACluster
from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.errors import MissingField, WrongType

_DRA = ("resource.k8s.io",)
_READ: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Node", "Pod", "Namespace", "PersistentVolume", "PersistentVolumeClaim"), ("",)),
    **dict.fromkeys(("ReplicaSet", "Deployment"), ("apps",)),
    "PriorityClass": ("scheduling.k8s.io",),
    "PodDisruptionBudget": ("policy",),
    **dict.fromkeys(("StorageClass", "CSINode"), ("storage.k8s.io",)),
    "PodGroup": (
        "scheduling.x-k8s.io", "scheduling.k8s.io", "scheduling.volcano.sh", "scheduling.run.ai",
        "scheduling.sigs.k8s.io",
    ),
    "Workload": ("scheduling.k8s.io",),
    **dict.fromkeys(("ResourceSlice", "ResourceClaim", "ResourceClaimTemplate", "DeviceClass"), _DRA),
}  # fmt: skip
"""Kinds that are read, and the API groups they are read from: other groups have kinds of the same names (`Node` of
Longhorn, `Workload` of Kueue), which are other things."""


@dataclass(frozen=True, slots=True)
class Object:
    """One object of a dump and where it stands."""

    data: Data
    place: Place
    text: str = ""
    """The text of its file, to find lines in (empty: not known)."""
    at: int = -1
    end: int = -1
    """Where the object begins and ends in the text."""

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
            place=self.near(field.rpartition(".")[2]), field=f"{self.name}: {field}", found=f"`{str(found)[:60]}`",
            reason="wrong kind of value", expected=expected, hint=self.explained(),
        )  # fmt: skip

    def explained(self) -> str:
        """Return the command that explains the object's kind."""
        kind = str(self.data.get("kind") or "")
        return f"kubectl explain {kind.lower()}" if kind in _READ else ""

    def whole(self, field: str, value: object, *, least: int = 0) -> int:
        """Return a whole number of 32 bits, as the API has them; raises WrongType."""
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**31:
            raise self.wrong(field, value, f"a whole number from {least} to {2**31 - 1}")
        return value

    def near(self, *words: str) -> Place:
        """Return the place of the first of these JSON strings that the object has, that of its name without one."""
        for word in (*words, self.name):
            position = self.text.find(f'"{word}"', self.at, self.end) if self.at >= 0 and word else -1
            if position >= 0:
                return replace(self.place, line=self.place.line + self.text.count("\n", self.at, position))
        return self.place


@contextmanager
def reading(item: Object) -> Generator[None]:
    """Turn what a value of the wrong type causes while an object is read into an error that names the object.

    Raises:
        WrongType: from TypeError, AttributeError, ValueError, KeyError and OverflowError.
    """
    try:
        yield
    except TreadleError as error:
        error.place = error.place or item.near()
        raise
    except (TypeError, AttributeError, ValueError, KeyError, OverflowError):
        raise WrongType(
            place=item.near(), field=item.name or "object", found="of the wrong kind inside it",
            reason="a text, number, list or table stands where the API has another one",
            expected="an object as `kubectl get -o json` writes it", hint=item.explained(),
        ) from None  # fmt: skip


@dataclass(frozen=True, slots=True)
class Dump:
    """All objects of a dump by kind."""

    kinds: dict[str, tuple[Object, ...]]
    named: dict[tuple[str, str, str], Object] = field(default_factory=dict[tuple[str, str, str], Object])
    """By kind, namespace and name."""
    owned: dict[tuple[str, str, str], Object] = field(default_factory=dict[tuple[str, str, str], Object])
    """Objects of kinds that are not read, of which only the owners count."""
    unread: Counter[str] = field(default_factory=Counter[str])
    """Objects of kinds that are not read, by kind."""

    def of(self, kind: str) -> tuple[Object, ...]:
        """Return the objects of a kind."""
        return self.kinds.get(kind, ())

    def find(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return one object, None if the dump does not show it."""
        return self.named.get((kind, namespace, name))

    def owner(self, kind: str, namespace: str, name: str) -> Object | None:
        """Return one object of any kind, None if the dump does not show it or nothing owns it."""
        return self.named.get((kind, namespace, name)) or self.owned.get((kind, namespace, name))


def read_dump(entries: Iterable[Entry], file: str) -> Dump:
    """Sort objects by kind; of kinds that are not read only owners are kept.

    Raises:
        NotACluster: there is no node among them.
        MissingField: an object of a kind that is read has no name.
        DuplicateName: two objects of one kind with one name and namespace.
    """
    kinds: dict[str, list[Object]] = defaultdict(list)
    dump = Dump({})
    for entry in entries:
        kind = str(entry.data["kind"])
        if _group(entry.data, kind) not in _READ.get(kind, ()):
            _pass_over(dump, kind, entry)
            continue
        item = _object(kind, entry)
        key = (kind, item.namespace, item.name)
        if key in dump.named:
            first = dump.named[key].place
            if _group(dump.named[key].data, kind) != _group(entry.data, kind):
                continue  # PodGroups of two schedulers may have one name
            raise DuplicateName(
                place=item.near(), kind=kind.lower(), name=item.name,
                expected=f"one object of this name; the first is at {first.file}:{first.line or first.path}",
            )  # fmt: skip
        dump.named[key] = item
        kinds[kind].append(item)
    if "Node" not in kinds:
        raise NotACluster(place=Place(file), reason="there is no Node in it")
    dump.kinds.update({kind: tuple(objects) for kind, objects in kinds.items()})
    return dump


def _group(data: Data, kind: str) -> str:
    """Return the API group; objects without `apiVersion` are of the group their kind is read from."""
    version = data.get("apiVersion")
    if not isinstance(version, str):
        return _READ.get(kind, ("?",))[0]
    return version.rpartition("/")[0]


def _object(kind: str, entry: Entry) -> Object:
    metadata = entry.data.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        raise MissingField(
            place=entry.place,
            field="metadata.name",
            expected=f"a {kind} with a name",
            hint="kubectl writes one: run it again",
        )
    metadata.pop("managedFields", None)
    place = Place(entry.place.file, entry.place.line, path=f"{kind} {metadata['name']}")
    return Object(entry.data, place, entry.text, entry.at, entry.end)


def _pass_over(dump: Dump, kind: str, entry: Entry) -> None:
    dump.unread[kind] += 1
    metadata = entry.data.get("metadata")
    references = metadata.get("ownerReferences") if isinstance(metadata, dict) else None
    if isinstance(metadata, dict) and references:
        item = Object(
            {"kind": kind, "metadata": {"name": metadata.get("name"), "ownerReferences": references}}, entry.place
        )
        dump.owned.setdefault((kind, str(metadata.get("namespace") or "default"), item.name), item)


def top_owner(dump: Dump, item: Object) -> tuple[str, str]:
    """Return (kind, name) of the object at the top of the chain of controllers, ("", "") without one.

    Raises:
        CyclicOwners: the chain comes back to itself.
    """
    first, chain = item, [(str(item.get("kind")), item.name)]
    while True:
        references = item.items("metadata", "ownerReferences")
        owner = next((r for r in references if r.get("controller")), references[0] if references else None)
        if owner is None:
            return chain[-1] if len(chain) > 1 else ("", "")
        step = (str(owner.get("kind")), str(owner.get("name")))
        if step in chain:
            cycle = " -> ".join(f"{kind}/{name}" for kind, name in [*chain, step])
            raise CyclicOwners(place=item.near("ownerReferences"), name=chain[0][1], cycle=cycle)
        chain.append(step)
        above = dump.owner(step[0], first.namespace, step[1])
        if above is None:
            return step
        item = above
