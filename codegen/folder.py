"""Writes a plan folder: everything beside the target first, then one rename, so no folder is ever half written."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from treadle.ir.errors import UnwritablePath
from treadle.ir.plan import Artifact, Plan, to_text


def write_plan(folder: Path, plan: Plan, files: Mapping[str, bytes], parts: Mapping[str, Path] | None = None) -> Plan:
    """Write `plan.json` and `files` (by path relative to the folder), replacing an older plan folder as a whole.

    Args:
        folder: the target; created, or replaced if it holds a plan or is empty.
        plan: unsealed; the artifacts and parts written are recorded and the plan is sealed.
        files: contents by relative path.
        parts: finished plan folders by relative path, moved in.

    Returns: the sealed plan as written.

    Raises:
        UnwritablePath: the target is no plan folder, or the file system refuses.
    """
    recorded = tuple(Artifact(path, hashlib.sha256(data).hexdigest()) for path, data in sorted(files.items()))
    sealed = replace(plan, artifacts=recorded, parts=tuple(sorted(parts or {}))).sealed()
    _refuse_foreign(folder)
    staging: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        staging.chmod(0o755)
        for path, data in {**files, "plan.json": to_text(sealed).encode()}.items():
            target = staging / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        for path, part in (parts or {}).items():
            shutil.move(part, staging / path)
        _swap(staging, folder)
    except OSError as error:
        raise UnwritablePath(path=str(folder), reason=error.strerror or str(error)) from None
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)
    return sealed


def _refuse_foreign(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UnwritablePath(path=str(folder), reason="it is a file, not a folder")
    try:
        foreign = folder.is_dir() and any(folder.iterdir()) and not (folder / "plan.json").exists()
    except OSError as error:
        raise UnwritablePath(path=str(folder), reason=error.strerror or str(error)) from None
    if foreign:
        raise UnwritablePath(path=str(folder), reason="the folder holds other files and no plan.json")


def _swap(staging: Path, folder: Path) -> None:
    """Put `staging` in the place of `folder`; the old folder goes only after the new one stands."""
    if not folder.exists():
        os.replace(staging, folder)
        return
    retired = folder.with_name(f".{folder.name}-retired-{os.getpid()}")
    os.replace(folder, retired)
    try:
        os.replace(staging, folder)
    except OSError:
        os.replace(retired, folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)
