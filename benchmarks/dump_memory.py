"""Time and peak memory of reading a large dump: a synthetic one of so many megabytes, as `kubectl` writes it.

`python -m benchmarks.dump_memory --megabytes 200 --json OUT`. The contract: 200 MB within 4 GB.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table

_NODES = 5_000
_MANAGED = {
    "manager": "kube-controller-manager",
    "operation": "Update",
    "apiVersion": "v1",
    "time": "2026-11-01T00:00:00Z",
    "fieldsType": "FieldsV1",
    "fieldsV1": {f"f:field-{i}": {".": {}, "f:name": {}, "f:value": {}} for i in range(24)},
}


def write_dump(path: Path, megabytes: int) -> int:
    """Write a List of nodes, then of pods until the file is large enough; return the number of pods."""
    pods = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"apiVersion": "v1", "kind": "List", "items": [\n')
        for index in range(_NODES):
            file.write(json.dumps(_node(index), indent=4) + ",\n")
        while file.tell() < megabytes * 1_000_000:
            file.write((",\n" if pods else "") + json.dumps(_pod(pods), indent=4))
            pods += 1
        file.write("\n]}\n")
    return pods


def _node(index: int) -> dict[str, Any]:
    labels = {"kubernetes.io/hostname": f"node-{index}", "topology.kubernetes.io/zone": f"z{index % 3}"}
    allocatable = {"cpu": "64", "memory": "256Gi", "pods": "110"}
    metadata = {"name": f"node-{index}", "labels": labels, "managedFields": [_MANAGED]}
    return {"kind": "Node", "metadata": metadata, "spec": {}, "status": {"allocatable": allocatable}}


def _pod(index: int) -> dict[str, Any]:
    app = f"app-{index // 20}"
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "controller": True}
    requests = {"cpu": f"{100 + 10 * (index // 20 % 50)}m", "memory": f"{128 + index // 20 % 512}Mi"}
    metadata = {
        "name": f"{app}-{index}", "namespace": "default", "labels": {"app": app}, "ownerReferences": [owner],
        "managedFields": [_MANAGED],
    }  # fmt: skip
    spec = {"nodeName": f"node-{index % _NODES}", "containers": [{"name": "app", "resources": {"requests": requests}}]}
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Running"}}


def _read(path: Path) -> None:
    """Read the dump in this process, and print what it took."""
    from treadle.frontends.kubernetes.cluster import load_cluster

    started = time.perf_counter()
    cluster = load_cluster(path)
    seconds = time.perf_counter() - started
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"pods": len(cluster.pods), "seconds": round(seconds, 1), "peak_gib": round(peak_gib, 2)}))


def main() -> None:
    """Write the dump and read it in a process of its own."""
    chosen = arguments(
        __doc__ or "",
        megabytes={"type": int, "default": 200, "help": "size of the dump"},
        read={"type": Path, "help": "read this dump and print what it took"},
    )
    if chosen.read:
        _read(chosen.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cluster.json"
        write_dump(path, chosen.megabytes)
        command = [sys.executable, "-m", "benchmarks.dump_memory", "--read", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = {"megabytes": round(path.stat().st_size / 1e6), "nodes": _NODES, **json.loads(done.stdout)}
    table(list(row), [list(row.values())])
    finish("dump_memory", {"limit_gib": 4, "peak_gib": row["peak_gib"]}, [row], chosen.json)


if __name__ == "__main__":
    main()
