"""Proof logs as they stand in a certificate: compressed text in characters that JSON keeps as they are."""

from __future__ import annotations

import base64
import binascii
import zlib

from treadle.ir.proof_log.errors import UnreadableProof

LARGEST_CHARACTERS = 500_000
"""Longest packed proof a certificate carries; a longer one leaves the bound on the solver's word."""
LARGEST_TEXT_BYTES = 32_000_000
"""Longest text a checker unpacks."""


def packed(text: str) -> str:
    """Return a proof log as one line."""
    return base64.b85encode(zlib.compress(text.encode(), 9)).decode()


def unpacked(line: str) -> str:
    """Return the proof log of one line.

    Raises:
        UnreadableProof: it is not the compressed form, or larger than any proof that treadle writes.
    """
    try:
        data = base64.b85decode(line)
        if base64.b85encode(data).decode() != line:
            raise ValueError("characters that carry nothing")
        decompressor = zlib.decompressobj()
        text = decompressor.decompress(data, LARGEST_TEXT_BYTES)
        if decompressor.unconsumed_tail or decompressor.unused_data or not decompressor.eof:
            raise ValueError(f"longer than {LARGEST_TEXT_BYTES} bytes, cut short, or with something behind it")
        return text.decode("ascii")
    except (ValueError, TypeError, AttributeError, zlib.error, binascii.Error) as error:
        raise UnreadableProof(line=0, text=str(line)[:40], reason=str(error)) from None
