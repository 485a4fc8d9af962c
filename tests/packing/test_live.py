"""Reading a live cluster: an API server of the test's own, the official client where it is installed."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import pytest
import yaml

from tests.packing.test_frontends import NODE, OTHERS, POD, changed
from treadle.cli.main import main
from treadle.frontends.kubernetes.cluster import cluster_from
from treadle.frontends.kubernetes.live import fetch, kubeconfig_get
from treadle.ir.cluster.errors import NoClient, UnreachableCluster

PORTLESS = changed(POD, "spec", "containers", value=[{"name": "app"}])
LISTS: dict[str, list[dict[str, Any]]] = {
    "/api/v1/nodes": [NODE],
    "/api/v1/pods": [PORTLESS, changed(PORTLESS, "metadata", "name", value="p2")],
    "/apis/scheduling.k8s.io/v1/priorityclasses": [OTHERS[0]],
    "/apis/apps/v1/replicasets": [OTHERS[1]],
    "/apis/policy/v1/poddisruptionbudgets": [OTHERS[2]],
}


def answer(path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Two pods a page of one, everything else at once; unknown kinds are 404, claims are forbidden."""
    if path.endswith("resourceclaims"):
        return 403, {}
    if path not in LISTS:
        return 404, {}
    items = LISTS[path]
    kind = str(items[0]["kind"])
    first = int(query.get("continue", "0"))
    page = [{k: v for k, v in item.items() if k != "kind"} for item in items[first : first + 1]]
    more = {"continue": str(first + 1)} if first + 1 < len(items) else {}
    return 200, {"kind": f"{kind}List", "metadata": more, "items": page}


def test_pages_are_put_together() -> None:
    told: list[str] = []
    cluster = cluster_from(fetch(answer, told.append), "live")
    assert [pod.name for pod in cluster.pods] == ["p1", "p2"]
    assert cluster.shapes[0].workload == "Deployment/d"
    assert len(told) == 1
    assert "resourceclaims is forbidden" in told[0]


@pytest.mark.parametrize("status", [401, 403, 500])
def test_lists_that_are_needed(status: int) -> None:
    with pytest.raises(UnreachableCluster, match=str(status)):
        fetch(lambda path, query: (status, {}) if path.endswith("pods") else answer(path, query))


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        address = urlparse(self.path)
        status, document = answer(address.path, {k: v[0] for k, v in parse_qs(address.query).items()})
        if self.headers.get("Authorization") != "Bearer secret":
            status, document = 401, {}
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    path = tmp_path / "config"
    cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    user = {"name": "u", "user": {"token": "secret"}}
    context = {"name": "here", "context": {"cluster": "c", "user": "u"}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "users": [user], "contexts": [context]}
    path.write_text(yaml.safe_dump({**config, "current-context": "here"}))
    monkeypatch.setenv("KUBECONFIG", str(path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield path
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.filterwarnings("ignore")
def test_the_official_client_reads_a_server(kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("kubernetes")
    from kubernetes.config import kube_config

    kube_config.KUBE_CONFIG_DEFAULT_LOCATION = str(kubeconfig)
    cluster = cluster_from(fetch(kubeconfig_get("here")), "live")
    assert len(cluster.pods) == 2
    assert main(["pack", "--live", "--context", "here", "--deterministic-seconds", "1"]) in (0, 3)
    assert "1 nodes, 2 pods" in capsys.readouterr().out
    assert main(["pack", "--live", "--context", "gone"]) == 2
    assert "TRD583" in capsys.readouterr().err


def test_without_the_client(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("kubernetes", "kubernetes.config", "kubernetes.client"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NoClient):
        kubeconfig_get()
    assert main(["pack", "--live"]) == 2
    assert "treadle[live]" in capsys.readouterr().err
