"""What tests of several areas share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def interpreter() -> Iterator[None]:
    """Choose Triton's interpreter, which is fixed when triton is imported; compilation has a process of its own."""
    library = sys.modules.get("triton.language")
    interpreted = library is None or type(library.cdiv).__name__ == "InterpretedFunction"
    assert interpreted, "triton was imported before its interpreter was chosen"
    os.environ["TRITON_INTERPRET"] = "1"
    yield
    del os.environ["TRITON_INTERPRET"]
