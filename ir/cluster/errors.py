"""What can be wrong with a cluster (codes x60 to x79)."""

from __future__ import annotations

from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.errors import Unmet


class BadQuantity(TreadleError):
    """Text that is not a Kubernetes quantity."""

    code = "TRD160"
    template = "`{found}` is not a quantity"
    hint = "kubectl explain pod.spec.containers.resources.requests"


class NegativeAmount(TreadleError):
    """A request or a capacity below zero."""

    code = "TRD161"
    template = "{what} is {found}; amounts are not negative"
    hint = "write an amount of zero or more, or leave it out"


class DuplicateName(TreadleError):
    """Two objects of one kind with one name."""

    code = "TRD162"
    template = "the {kind} `{name}` is listed twice"
    hint = "merge the dumps, or remove one of the two"


class UnknownNode(TreadleError):
    """A pod bound to a node that the cluster does not have."""

    code = "TRD163"
    template = "pod `{pod}` runs on the node `{node}`, which is not listed"
    hint = "dump nodes and pods together: kubectl get nodes,pods -A -o json"


class OverfullNode(TreadleError):
    """Bound pods that request more than their node has."""

    code = "TRD164"
    template = "node `{node}` is overfull: its pods request {found} of {resource}, it has {capacity}; most ask {pods}"
    hint = "dump nodes and pods at one moment; a node that shrank must be drained first"


class CyclicOwners(TreadleError):
    """Owner references that form a cycle."""

    code = "TRD165"
    template = "the owners of `{name}` form a cycle: {cycle}"
    hint = "an object cannot own itself; look at metadata.ownerReferences"


class InconsistentCluster(TreadleError):
    """Facts of a cluster that contradict each other."""

    code = "TRD166"
    template = "{message}"


class NotACluster(TreadleError):
    """A JSON document that is no dump of a cluster."""

    code = "TRD167"
    template = "this is no cluster dump: {reason}"
    hint = "kubectl get nodes,pods,priorityclasses,poddisruptionbudgets,replicasets -A -o json"


class UnsupportedRule(TreadleError):
    """A rule of a pod that the model cannot honour; it is refused rather than ignored."""

    code = "TRD168"
    template = "{what} is not supported"
    hint = "take the pod out of the dump, or pin it to its node"


class NoLegalOrder(Unmet):
    """A placement that no order of steps reaches under the rules."""

    code = "TRD360"
    template = "no order of steps reaches the placement: {reason}"
    hint = "allow outages (--allow-outage), or relax the budget that blocks"


class StoppedEarly(TreadleError):
    """The window closed before anything beyond the current placement was found."""

    code = "TRD361"
    template = "{message}"
    exit_code = ExitCode.LIMIT


class NoSchedule(Unmet):
    """A project whose windows and resources leave no schedule, or none was found."""

    code = "TRD362"
    template = "there is no schedule: {reason}"
    hint = "widen the deadlines, shorten the downtime, or raise the limit"


class NotAnOffer(TreadleError):
    """A list of node types that may be added which cannot be read as one."""

    code = "TRD169"
    template = "this is no offer of nodes: {reason}"
    hint = (
        "give a list of offers, each with name, capacity (cpu, memory, ...), and optionally most, cost, labels, taints"
    )


class UnreadableSelector(TreadleError):
    """A device selector (CEL) beyond what is read."""

    code = "TRD580"
    template = "the device selector `{expression}` cannot be read: {reason}"
    hint = "docs/verbs/pack.md lists what is read of CEL; a selector is refused rather than guessed"


class UnsupportedClaim(TreadleError):
    """A claim for devices (DRA) that the model cannot honour, or whose parts are not in the dump."""

    code = "TRD581"
    template = "the device claim of {what} cannot be honoured: {reason}"
    hint = "dump resourceslices, resourceclaims, resourceclaimtemplates, deviceclasses too, or leave the pod out"


class NoClient(TreadleError):
    """The official client of Kubernetes is not installed."""

    code = "TRD582"
    template = "reading a live cluster needs the package `kubernetes`, which is not installed"
    hint = "pip install 'treadle[live]', or give a dump: kubectl get nodes,pods -A -o json > cluster.json"


class UnreachableCluster(TreadleError):
    """A live cluster that does not answer, or does not let its objects be read."""

    code = "TRD583"
    template = "the cluster cannot be read: {reason}"
    hint = "look at `kubectl config current-context` and `kubectl auth can-i list pods -A`"
