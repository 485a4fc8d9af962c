"""A live cluster, read through the user's kubeconfig with the official client (the extra `live`).

Only reads (GET of lists), in pages; what comes back is the same document as a dump, so everything after it is shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

from treadle.frontends.kubernetes.documents import Data
from treadle.ir.cluster.errors import NoClient, UnreachableCluster

_REQUIRED = ("/api/v1/nodes", "/api/v1/pods", "/apis/scheduling.k8s.io/v1/priorityclasses")
_OPTIONAL = (
    "/apis/policy/v1/poddisruptionbudgets",
    "/apis/apps/v1/replicasets",
    "/apis/apps/v1/deployments",
    "/api/v1/namespaces",
    "/apis/storage.k8s.io/v1/storageclasses",
    "/apis/storage.k8s.io/v1/csinodes",
    "/api/v1/persistentvolumes",
    "/api/v1/persistentvolumeclaims",
    "/apis/resource.k8s.io/v1/resourceslices",
    "/apis/resource.k8s.io/v1/deviceclasses",
    "/apis/resource.k8s.io/v1/resourceclaims",
    "/apis/resource.k8s.io/v1/resourceclaimtemplates",
    "/apis/scheduling.x-k8s.io/v1alpha1/podgroups",
    "/apis/scheduling.volcano.sh/v1beta1/podgroups",
)
"""Lists that a cluster may not know, or that may not be read; a 404 or 403 leaves them out (a 403 is told)."""
_PAGE = 500

Get = Callable[[str, dict[str, str]], tuple[int, Data]]
"""Path and query -> (HTTP status, document)."""


def fetch(get: Get, tell: Callable[[str], None] = lambda _: None) -> Data:
    """Return all objects that the packer reads, as one List.

    Raises:
        UnreachableCluster: a list that is needed cannot be read.
    """
    items: list[Data] = []
    for path in (*_REQUIRED, *_OPTIONAL):
        found = _listed(get, path)
        if isinstance(found, int):
            if path in _REQUIRED or found not in (403, 404):
                raise UnreachableCluster(reason=f"GET {path} answers {found}")
            if found == 403:
                tell(f"GET {path} is forbidden: its rules are not seen")
            continue
        items += found
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _listed(get: Get, path: str) -> list[Data] | int:
    """Return the items of a list, each with its kind; the status where it is not 200."""
    items: list[Data] = []
    query = {"limit": str(_PAGE)}
    while True:
        status, document = get(path, query)
        if status != 200:
            return status
        kind = str(document.get("kind", "")).removesuffix("List")
        version = {"apiVersion": str(document["apiVersion"])} if document.get("apiVersion") else {}
        items += [{"kind": kind, **version, **item} for item in document.get("items") or []]
        token = str((document.get("metadata") or {}).get("continue") or "")
        if not token:
            return items
        query = {"limit": str(_PAGE), "continue": token}


def kubeconfig_get(context: str | None = None) -> Get:
    """Return a reader through the user's kubeconfig.

    Raises:
        NoClient: the package `kubernetes` is not installed.
        UnreachableCluster: there is no usable kubeconfig, or the server does not answer.
    """
    try:
        config: Any = import_module("kubernetes.config")
        exceptions: Any = import_module("kubernetes.client.exceptions")
    except ImportError:
        raise NoClient() from None
    try:
        api = config.new_client_from_config(context=context)
    except Exception as error:  # the client raises many kinds: a missing file, a bad context, a failed login
        raise UnreachableCluster(reason=str(error)[:200]) from None
    failure: type[Exception] = exceptions.ApiException

    def get(path: str, query: dict[str, str]) -> tuple[int, Data]:
        try:
            response = api.call_api(
                *api.param_serialize("GET", path, query_params=list(query.items()), auth_settings=["BearerToken"])
            )
            return int(response.status), json.loads(response.read())
        except failure as error:
            return int(getattr(error, "status", 0) or 0), {}
        except Exception as error:
            raise UnreachableCluster(reason=str(error)[:200]) from None

    return get
