"""What tests of several areas share.

Triton decides at its own import whether its library functions are interpreted, and packages of others (a CUDA build of
torch) import it unasked: so it is imported here, first, with the interpreter chosen. Compilation has its own process.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator

import pytest

if importlib.util.find_spec("triton"):
    os.environ["TRITON_INTERPRET"] = "1"
    importlib.import_module("triton.language")
    importlib.import_module("triton.experimental.gluon.language")  # refuses library functions it did not see chosen
    del os.environ["TRITON_INTERPRET"]


@pytest.fixture(scope="module")
def interpreter() -> Iterator[None]:
    """Choose Triton's interpreter for the kernels that the tests of a module define or load."""
    os.environ["TRITON_INTERPRET"] = "1"
    yield
    del os.environ["TRITON_INTERPRET"]
