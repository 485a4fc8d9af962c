"""Compiles emitted modules to GPU binaries where there is no GPU, and reads back what they take.

The compiler runs in a process of its own (`worker.py`). Results are kept by content: the same source, target and
Triton version are compiled once.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from treadle.codegen.triton.errors import CompilationFailed, UnsupportedTarget
from treadle.costmodels.cubin import read_resources
from treadle.ir.errors import MissingExtra
from treadle.ir.tile.kernel import Compiled

WORKER = Path(__file__).with_name("worker.py")

TARGETS: dict[str, tuple[str, int | str, int]] = {
    "sm_80": ("cuda", 80, 32),
    "sm_86": ("cuda", 86, 32),
    "sm_89": ("cuda", 89, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "sm_120": ("cuda", 120, 32),
    "gfx942": ("hip", "gfx942", 64),
}
"""Architecture of a machine -> Triton's backend, architecture and warp size."""

LONGEST_S = 300
"""Seconds one module may take to compile."""


@dataclass(frozen=True, slots=True)
class KernelBinary:
    """One compiled kernel function: its bytes, its resources, and what a launcher must know."""

    kernel: str
    target: str
    compiler: str
    data: bytes
    suffix: str
    """`cubin` or `hsaco`."""
    registers: int
    spill_bytes: int
    smem_bytes: int
    launch: dict[str, Any]
    """Symbol, warps, argument types in order and constants, for a launch through the driver interface."""

    def record(self, binary: str) -> Compiled:
        """Return the plan's record of this binary, given its path in the plan folder."""
        return Compiled(
            target=self.target,
            compiler=self.compiler,
            binary=binary,
            registers=self.registers,
            spill_bytes=self.spill_bytes,
            smem_bytes=self.smem_bytes,
        )

    def sidecar(self) -> str:
        """Return the JSON file that goes beside the binary; the order of `arguments` is that of the launch."""
        facts = {
            "kernel": self.kernel,
            "target": self.target,
            "compiler": self.compiler,
            "registers": self.registers,
            "spill_bytes": self.spill_bytes,
            "dynamic_shared_bytes": self.smem_bytes,
            **self.launch,
        }
        return json.dumps(facts, indent=1) + "\n"


def compile_source(source: str, architecture: str, name: str = "kernel") -> tuple[KernelBinary, ...]:
    """Compile one emitted module for an architecture (`sm_90`); see `compile_sources`."""
    return compile_sources({name: source}, architecture)[name]


def compile_sources(
    sources: Mapping[str, str], architecture: str, *, python: str = sys.executable, cache_folder: Path | None = None
) -> dict[str, tuple[KernelBinary, ...]]:
    """Compile emitted modules for an architecture, without a GPU and without torch.

    Args:
        sources: emitted text by name; names appear in messages.
        architecture: a key of `TARGETS`, as machines name it.
        python: the Python whose Triton compiles.
        cache_folder: where results are kept; `default_cache()` unless given.

    Returns: per name the binaries of all kernel functions of the module, in the module's order.

    Raises:
        UnsupportedTarget, MissingExtra, CompilationFailed.
    """
    if architecture not in TARGETS:
        raise UnsupportedTarget(target=architecture, expected=f"one of {', '.join(TARGETS)}")
    version = _triton_version(python)
    kept = cache_folder or default_cache()
    keys = {name: _key(text, architecture, version) for name, text in sources.items()}
    missing = {name: text for name, text in sources.items() if not (kept / keys[name] / "answer.json").is_file()}
    if missing:
        _compile_missing(missing, keys, architecture, version, python, kept)
    return {name: _read(kept / keys[name], architecture, version, sources[name]) for name in sources}


def default_cache() -> Path:
    """Return the folder that keeps binaries: `$TREADLE_CACHE_DIR`, or `treadle` in the user's cache folder."""
    chosen = os.environ.get("TREADLE_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(chosen) if chosen else Path(base) / "treadle" / "kernels"


@cache
def _triton_version(python: str) -> str:
    """Return the version of Triton that `python` would import; raises MissingExtra."""
    from importlib.metadata import PackageNotFoundError, version

    missing = MissingExtra(package="triton", purpose="compiling kernels", extra="kernels")
    if python == sys.executable:
        try:
            return version("triton")
        except PackageNotFoundError:
            raise missing from None
    question = "from importlib.metadata import version; print(version('triton'))"
    try:
        answer = subprocess.run([python, "-c", question], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        raise missing from None
    if answer.returncode:
        raise missing
    return answer.stdout.strip()


def _key(source: str, architecture: str, version: str) -> str:
    parts = (source, architecture, version, WORKER.read_text(encoding="utf-8"))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _compile_missing(
    sources: Mapping[str, str], keys: Mapping[str, str], architecture: str, version: str, python: str, kept: Path
) -> None:
    """Compile in one worker and move every result into the cache as a whole folder."""
    with tempfile.TemporaryDirectory(prefix="treadle-kernels-") as scratch:
        folder = Path(scratch)
        paths = {str(folder / f"{keys[name]}.py"): name for name in sources}
        for path, name in paths.items():
            Path(path).write_text(sources[name], encoding="utf-8")
        answers, stopped = _run_worker(paths, architecture, python, folder)
        for path, name in paths.items():
            answer = answers.get(path, {"error": stopped})
            if "error" in answer:
                reason = _brief(answer["error"])
                raise CompilationFailed(version=version, kernel=name, target=architecture, reason=reason)
            _keep(answer, kept / keys[name])


def _run_worker(
    paths: Iterable[str], architecture: str, python: str, folder: Path
) -> tuple[dict[str, dict[str, Any]], str]:
    """Return the worker's answers by source path, and why it stopped if it did not answer all."""
    jobs = folder / "jobs.json"
    sources = list(paths)
    jobs.write_text(json.dumps({"target": TARGETS[architecture], "sources": sources, "folder": str(folder)}))
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    # Line tables name the scratch folder; without them equal sources give equal bytes.
    environment["TRITON_DISABLE_LINE_INFO"] = "1"
    environment.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    try:
        run = subprocess.run(
            [python, "-P", str(WORKER), str(jobs)],
            capture_output=True,
            text=True,
            timeout=LONGEST_S * len(sources),
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {LONGEST_S * len(sources)} s"
    # Compilers may print there too, as ptxas does where it gives up.
    answers = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{"')]
    complaint = run.stderr.strip().splitlines()[-1:] or ["no message"]
    told = next((line for line in run.stderr.splitlines() if ": error: " in line), "")
    for answer in answers:
        if told and "error" in answer:
            answer["error"] += f" {told.partition(': error: ')[2]}"
    return {answer["source"]: answer for answer in answers}, f"the compiler ended with {run.returncode}: {complaint[0]}"


def _brief(text: str) -> str:
    """Return where and what: the first line of a compiler's complaint and the last, without the source between."""
    # What ptxas may be run again with names scratch files.
    text = text.partition("Repro command")[0].strip() or text
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " ".join(lines if len(lines) < 3 else [lines[0], lines[-1]])[:400]


def _keep(answer: dict[str, Any], target: Path) -> None:
    """Write the answer and its binaries beside the target folder, then rename: no result is ever half there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    for position, kernel in enumerate(answer["kernels"]):
        binary = Path(kernel["binary"])
        kernel["binary"] = f"{position}{binary.suffix}"
        (staging / kernel["binary"]).write_bytes(binary.read_bytes())
    (staging / "answer.json").write_text(json.dumps(answer["kernels"]))
    try:
        staging.rename(target)
    except OSError:  # another process was first; its result is the same
        for path in staging.iterdir():
            path.unlink()
        staging.rmdir()


def _read(folder: Path, architecture: str, version: str, source: str) -> tuple[KernelBinary, ...]:
    answer = json.loads((folder / "answer.json").read_text())
    planned = _planned_arguments(source)
    return tuple(_binary(folder / kernel["binary"], kernel, architecture, version, planned) for kernel in answer)


def _multiples_of_16(signature: Mapping[str, str], planned: Mapping[str, Any]) -> list[str]:
    """Return the arguments that the binary takes for multiples of 16: pointers, and whole numbers planned as such."""
    return [
        name
        for name, kind in signature.items()
        if kind.startswith("*") or (isinstance(value := planned.get(name), int) and value != 1 and value % 16 == 0)
    ]


def _planned_arguments(source: str) -> dict[str, dict[str, Any]]:
    """Return by kernel what its arguments were compiled for, from the module's `KERNELS`."""
    found: dict[str, dict[str, Any]] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for key, entry in zip(statement.value.keys, statement.value.values, strict=True):
                if not isinstance(key, ast.Constant) or not isinstance(entry, ast.Dict):
                    continue
                for field, value in zip(entry.keys, entry.values, strict=True):
                    if isinstance(field, ast.Constant) and field.value == "arguments" and isinstance(value, ast.Dict):
                        found[str(key.value)] = dict(_literals(value))
    return found


def _literals(entries: ast.Dict) -> Iterator[tuple[str, Any]]:
    """Yield the entries written as literals; descriptors of TMA copies are made of their layouts when run."""
    for name, value in zip(entries.keys, entries.values, strict=True):
        if isinstance(name, ast.Constant) and isinstance(value, ast.Constant):
            yield str(name.value), value.value


def _binary(
    path: Path, kernel: dict[str, Any], architecture: str, version: str, planned: Mapping[str, dict[str, Any]]
) -> KernelBinary:
    data = path.read_bytes()
    resources = {entry.kernel: entry for entry in read_resources(data, str(path))}[kernel["symbol"]]
    return KernelBinary(
        kernel=kernel["kernel"],
        target=architecture,
        compiler=f"triton {version}",
        data=data,
        suffix=path.suffix[1:],
        registers=resources.registers,
        spill_bytes=resources.local_bytes,
        smem_bytes=kernel["smem_bytes"],
        launch={
            "symbol": kernel["symbol"],
            "warps": kernel["warps"],
            "arguments": {name: kind for name, kind in kernel["signature"].items() if kind != "constexpr"},
            "constants": kernel["constants"],
            "multiples_of_16": _multiples_of_16(kernel["signature"], planned.get(kernel["kernel"], {})),
        },
    )
