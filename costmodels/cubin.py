"""What a compiled kernel takes of a multiprocessor, read from the binary itself: registers, local and shared memory.

Cubins (NVIDIA) and code objects (AMD) are 64-bit little-endian ELF files. A cubin tells registers and stack frame in
the attribute lists of its `.nv.info` sections (the layout as printed by `cuobjdump -elf`); a code object tells them in
a MessagePack note (LLVM "User Guide for AMDGPU Backend", Code Object V3 and later). Neither needs a vendor's tool.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

from treadle.costmodels.message_pack import unpack
from treadle.ir.diagnostics import TreadleError

EM_CUDA = 190
EM_AMDGPU = 224

_EIFMT_SVAL = 4
_EIATTR_FRAME_SIZE = 0x11
_EIATTR_REGCOUNT = 0x2F
_NT_AMDGPU_METADATA = 32
_SHT_SYMTAB = 2
_SHT_NOTE = 7
_SHT_NOBITS = 8


class MalformedBinary(TreadleError):
    """A kernel binary that cannot be read: no ELF file, cut short, or without the attributes of a kernel."""

    code = "TRD515"
    template = "`{path}` is not a readable kernel binary: {reason}"
    hint = "compile the plan again"


@dataclass(frozen=True, slots=True)
class Resources:
    """Resources of one kernel function. Shared memory is the static part; what a launch adds is not in the binary."""

    kernel: str
    registers: int
    """Registers per thread."""
    local_bytes: int
    """Stack frame per thread, bytes: spilled registers and local arrays."""
    static_shared_bytes: int
    """Shared memory per program instance that the binary reserves, bytes."""


def read_resources(data: bytes, path: str = "binary") -> tuple[Resources, ...]:
    """Return the resources of every kernel function of a cubin or AMD code object, by name; raises MalformedBinary."""
    try:
        image = _Elf(data)
        found = _cuda_kernels(image) if image.machine == EM_CUDA else _amd_kernels(image)
    except (struct.error, IndexError, KeyError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise MalformedBinary(path=path, reason=str(error) or type(error).__name__) from None
    if not found:
        raise MalformedBinary(path=path, reason="it holds no kernel function")
    return tuple(sorted(found, key=lambda resources: resources.kernel))


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    offset: int
    size: int
    link: int
    info: int


@dataclass(frozen=True)
class _Elf:
    """The sections of a 64-bit little-endian ELF file."""

    data: bytes

    def __post_init__(self) -> None:
        if self.data[:4] != b"\x7fELF":
            raise ValueError("it does not begin like an ELF file")
        if self.data[4:6] != b"\x02\x01":
            raise ValueError("it is no 64-bit little-endian ELF file")
        if self.machine not in (EM_CUDA, EM_AMDGPU):
            raise ValueError(f"it is for the machine {self.machine}, which is no GPU known here")

    @property
    def machine(self) -> int:
        """The processor type."""
        return int.from_bytes(self.data[18:20], "little")

    @cached_property
    def sections(self) -> tuple[_Section, ...]:
        """All sections; raises ValueError where one lies outside the file."""
        (table,) = struct.unpack_from("<Q", self.data, 40)
        size, count, names = struct.unpack_from("<HHH", self.data, 58)
        raw = [struct.unpack_from("<IIQQQQIIQQ", self.data, table + position * size) for position in range(count)]
        if not raw:
            raise ValueError("it has no sections")
        name_table = raw[names][4]
        sections = tuple(_Section(self._text(name_table + r[0]), r[1], r[4], r[5], r[6], r[7]) for r in raw)
        for section in sections:
            if section.kind != _SHT_NOBITS and section.offset + section.size > len(self.data):
                raise ValueError(f"section `{section.name}` reaches beyond the end of the file")
        return sections

    def content(self, section: _Section) -> bytes:
        """Return the bytes of a section."""
        return self.data[section.offset : section.offset + section.size]

    def _text(self, offset: int) -> str:
        end = self.data.index(b"\0", offset)
        return self.data[offset:end].decode("utf-8")

    def symbols(self) -> list[str]:
        """Return the names in the symbol table, by index."""
        for section in self.sections:
            if section.kind == _SHT_SYMTAB:
                strings = self.sections[section.link].offset
                entries = struct.iter_unpack("<IBBHQQ", self.content(section))
                return [self._text(strings + entry[0]) for entry in entries]
        raise ValueError("it has no symbol table")


def _cuda_kernels(image: _Elf) -> list[Resources]:
    symbols = image.symbols()
    by_name = {section.name: section for section in image.sections}
    registers: dict[str, int] = {}
    frames: dict[str, int] = {}
    for attribute, payload in _attributes(image.content(by_name[".nv.info"])):
        if attribute not in (_EIATTR_REGCOUNT, _EIATTR_FRAME_SIZE):
            continue
        index, value = struct.unpack("<II", payload)
        (registers if attribute == _EIATTR_REGCOUNT else frames)[symbols[index]] = value
    kernels = [name for name in registers if f".nv.info.{name}" in by_name]
    shared = {name: by_name[f".nv.shared.{name}"].size for name in kernels if f".nv.shared.{name}" in by_name}
    return [Resources(name, registers[name], frames.get(name, 0), shared.get(name, 0)) for name in kernels]


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    """Return (attribute, payload) of the list's sized attributes; the others hold at most two bytes."""
    found: list[tuple[int, bytes]] = []
    offset = 0
    while offset < len(data):
        form, attribute, size = struct.unpack_from("<BBH", data, offset)
        offset += 4
        if form != _EIFMT_SVAL:
            continue
        if offset + size > len(data):
            raise ValueError("an attribute reaches beyond the end of its section")
        found.append((attribute, data[offset : offset + size]))
        offset += size
    return found


def _amd_kernels(image: _Elf) -> list[Resources]:
    kernels: list[Resources] = []
    for section in image.sections:
        if section.kind != _SHT_NOTE:
            continue
        for kind, payload in _notes(image.content(section)):
            if kind == _NT_AMDGPU_METADATA:
                kernels += [_amd_kernel(entry) for entry in unpack(payload)["amdhsa.kernels"]]
    return kernels


def _amd_kernel(entry: dict[str, int | str]) -> Resources:
    return Resources(
        kernel=str(entry[".name"]),
        registers=int(entry[".vgpr_count"]),
        local_bytes=int(entry[".private_segment_fixed_size"]),
        static_shared_bytes=int(entry[".group_segment_fixed_size"]),
    )


def _notes(data: bytes) -> list[tuple[int, bytes]]:
    """Return (type, payload) of every note of a note section."""
    found: list[tuple[int, bytes]] = []
    offset = 0
    while offset < len(data):
        name_size, size, kind = struct.unpack_from("<III", data, offset)
        start = offset + 12 + -(-name_size // 4) * 4
        if start + size > len(data):
            raise ValueError("a note reaches beyond the end of its section")
        found.append((kind, data[start : start + size]))
        offset = start + -(-size // 4) * 4
    return found
