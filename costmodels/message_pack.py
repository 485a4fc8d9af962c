"""Reads MessagePack data (msgpack.org, specification of 2013) as far as AMD code objects use it."""

from __future__ import annotations

import struct
from typing import Any

_NUMBERS = {
    0xCC: "B", 0xCD: "H", 0xCE: "I", 0xCF: "Q", 0xD0: "b", 0xD1: "h", 0xD2: "i", 0xD3: "q", 0xCA: "f", 0xCB: "d",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
_SIZES = {0xD9: "B", 0xDA: "H", 0xDB: "I", 0xDC: "H", 0xDD: "I", 0xDE: "H", 0xDF: "I", 0xC4: "B", 0xC5: "H", 0xC6: "I"}
_DEEPEST = 32


def unpack(data: bytes) -> Any:
    """Return the value that `data` starts with; raises ValueError or struct.error on malformed data."""
    return _value(data, 0, 0)[0]


def _value(data: bytes, offset: int, depth: int) -> tuple[Any, int]:
    """Return the value at an offset and the offset behind it."""
    if depth > _DEEPEST:
        raise ValueError("MessagePack data is nested too deeply")
    (head,) = struct.unpack_from("B", data, offset)
    offset += 1
    if head in _CONSTANTS:
        return _CONSTANTS[head], offset
    if head < 0x80:
        return head, offset
    if head >= 0xE0:
        return head - 256, offset
    if head in _NUMBERS:
        form = ">" + _NUMBERS[head]
        return struct.unpack_from(form, data, offset)[0], offset + struct.calcsize(form)
    size, offset = _size(data, head, offset)
    if 0x80 <= head < 0x90 or head in (0xDE, 0xDF):
        return _map(data, size, offset, depth)
    if 0x90 <= head < 0xA0 or head in (0xDC, 0xDD):
        return _array(data, size, offset, depth)
    return _string(data, size, offset, text=head not in (0xC4, 0xC5, 0xC6))


def _size(data: bytes, head: int, offset: int) -> tuple[int, int]:
    if head in _SIZES:
        form = ">" + _SIZES[head]
        return struct.unpack_from(form, data, offset)[0], offset + struct.calcsize(form)
    if head >= 0xC0:
        raise ValueError(f"MessagePack type {head:#x} is not read here")
    return head & (0x1F if head >= 0xA0 else 0x0F), offset


def _map(data: bytes, size: int, offset: int, depth: int) -> tuple[dict[Any, Any], int]:
    found: dict[Any, Any] = {}
    for _ in range(size):
        key, offset = _value(data, offset, depth + 1)
        found[key], offset = _value(data, offset, depth + 1)
    return found, offset


def _array(data: bytes, size: int, offset: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    for _ in range(size):
        value, offset = _value(data, offset, depth + 1)
        found.append(value)
    return found, offset


def _string(data: bytes, size: int, offset: int, text: bool) -> tuple[str | bytes, int]:
    raw = data[offset : offset + size]
    if len(raw) < size:
        raise ValueError("MessagePack data ends within a string")
    return (raw.decode("utf-8") if text else raw), offset + size
