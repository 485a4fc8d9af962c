"""`treadle compile`: the whole line - specification, model, kernels, serving plan, packed pods, review, plan folder.

frontends -> ir -> costmodels -> solvers -> ir plan -> verify -> codegen
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from treadle.codegen.folder import write_plan
from treadle.costmodels.machines import load_machine
from treadle.driver import bundle
from treadle.driver.artifacts import Files, compile_kernels, emit_kernels, report_of, timelines
from treadle.driver.kernel import machine_input
from treadle.driver.kernels import KernelOptions, plan_hot_loop
from treadle.driver.serve import plan_loaded
from treadle.driver.spills import without_spills
from treadle.driver.versions import versions
from treadle.frontends.hf import load_model
from treadle.frontends.hot_loops import hot_loops
from treadle.frontends.spec import load_deployment
from treadle.ir.certificate import Status
from treadle.ir.codec import encode
from treadle.ir.deployment import DeploymentBody, predictions
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.machine import Machine
from treadle.ir.model import ModelGraph
from treadle.ir.plan import Input, Plan, input_from, read_bytes
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.workload import Deployment, HotLoop
from treadle.solvers.packing.solve import Options
from treadle.verification.core import Review, verify


@dataclass
class Progress:
    """Tells people what runs, and keeps the seconds of every phase."""

    say: Callable[[str, str, float], None]
    """Called with phase, result and seconds as each phase ends."""
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def phase(self, name: str) -> Generator[list[str]]:
        """Time a phase; what is appended to the list is said when it ends."""
        result: list[str] = []
        started = time.perf_counter()
        yield result
        self.seconds[name] = time.perf_counter() - started
        self.say(name, ", ".join(result), self.seconds[name])


@dataclass(frozen=True, slots=True)
class BundleOptions:
    """What a bundle holds beside kernels; a specification without `slo` has no serving plan."""

    serving: bool = True
    roofline: bool = False
    packing: Options = field(default_factory=Options)


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compilation gave: the sealed plan, its review, the seconds by phase, and the plans of its parts."""

    plan: Plan
    review: Review
    seconds: dict[str, float]
    parts: dict[str, Plan] = field(default_factory=dict[str, Plan])


def compile_deployment(
    specification: Path,
    folder: Path,
    options: KernelOptions,
    say: Callable[[str, str, float], None],
    parts: BundleOptions | None = None,
) -> Compiled:
    """Compile a deployment specification into a plan folder: kernels, and a part each for serving and packing.

    Raises:
        TreadleError: bad input (exit status 2) or a request that cannot be met (1); the folder is then untouched.
    """
    parts = parts or BundleOptions()
    if specification.is_dir():
        specification = specification / "deployment.toml"
    progress = Progress(say)
    with progress.phase("lower") as said:
        request = load_deployment(specification)
        model = load_model(request.model_path, weight_dtype=request.weight_dtype, kv_dtype=request.kv_dtype)
        machine = load_machine(request.cluster.gpu)
        loops = hot_loops(model, request)
        said.append(_model_line(model))
    with progress.phase("schedule") as said:
        kernels, refused = plan_kernels(loops, machine, options)
        said.append(f"{len(kernels)} hot loops, {_proven(kernels)} proven at every level")
    chosen = {**options.recorded(), "bundle": encode(parts)}
    envelope = Plan("deployment", _inputs(specification, request, machine), chosen, versions(), None)
    with progress.phase("kernels") as said:
        kernels, files = emit_kernels(kernels, machine, envelope.expected_id())
        rejected: dict[str, tuple[str, ...]] = {}
        if options.compiled:
            kernels, files = compile_kernels(kernels, machine, files, lambda _: None)
            kernels, files, spilling = without_spills(kernels, files, loops, machine, options, envelope.expected_id())
            refused |= spilling
            rejected = {kernel.name: kernel.attempts for kernel in kernels if kernel.attempts}
        said.append(_compiled_line(kernels))
    files |= _copies(specification, request)
    body = DeploymentBody(_without_trace(request), model, machine, loops, kernels, refused, rejected)
    plan = replace(envelope, body=body, predictions=predictions(body))
    files |= timelines(kernels)
    with tempfile.TemporaryDirectory() as scratch:
        built = build_parts(Path(scratch), specification, request, model, parts, progress)
        if bundle.PACKING in built:
            files |= bundle.top_level(built[bundle.PACKING])
        with progress.phase("write") as said:
            files["report.html"] = report_of(replace(plan, parts=tuple(sorted(built))), files)
            plan = write_plan(folder, plan, files, {name: part.folder for name, part in built.items()})
            said.append(f"{len(files) + 1} files and {len(built)} parts in {folder}")
    with progress.phase("verify") as said:
        review = verify(folder)
        said.append(
            f"{review.rederived} claims re-derived, {review.on_solver_word} on the solver's word, "
            f"{len(review.findings)} findings"
        )
    return Compiled(plan, review, progress.seconds, {name: part.plan for name, part in built.items()})


def build_parts(
    scratch: Path,
    specification: Path,
    request: Deployment,
    model: ModelGraph,
    options: BundleOptions,
    progress: Progress,
) -> dict[str, bundle.Part]:
    """Plan the serving and pack its pods, where the specification has service levels."""
    if not options.serving or not request.service_levels:
        return {}
    with progress.phase("serving") as said:
        plan = plan_loaded(request, model, specification, options.roofline, lambda _: None)
        serving = bundle.write_serving(scratch / bundle.SERVING, plan, request)
        said.append(bundle.serving_line(plan.body))
    with progress.phase("pack") as said:
        packing = bundle.pack_serving(scratch / bundle.PACKING, serving, options.packing, lambda _: None)
        said.append(bundle.packing_line(packing.plan.body))
    return {bundle.SERVING: serving, bundle.PACKING: packing}


def plan_kernels(
    loops: tuple[HotLoop, ...], machine: Machine, options: KernelOptions
) -> tuple[tuple[KernelPlan, ...], dict[str, str]]:
    """Return the best kernel plan of every hot loop, and the reasons for those the library does not cover."""
    kernels: list[KernelPlan] = []
    refused: dict[str, str] = {}
    for loop in loops:
        try:
            kernels.append(plan_hot_loop(loop, machine, options)[0])
        except TreadleError as error:
            if error.exit_code is not ExitCode.UNMET:
                raise
            refused[loop.name] = str(error)
    return tuple(kernels), refused


def _model_line(model: ModelGraph) -> str:
    return (
        f"{model.name}: {model.block_count} layers, {model.parameters() / 1e9:.2f} B parameters, "
        f"{model.stored_bytes() / 1e9:.1f} GB"
    )


def _proven(kernels: tuple[KernelPlan, ...]) -> int:
    return sum(kernel.certificate.status is Status.OPTIMAL for kernel in kernels)


def _compiled_line(kernels: tuple[KernelPlan, ...]) -> str:
    binaries = [binary for kernel in kernels for binary in kernel.compiled]
    spilled = sum(binary.spill_bytes > 0 for binary in binaries)
    if not binaries:
        return f"{len(kernels)} sources, not compiled"
    target = binaries[0].target
    return f"{len(binaries)} binaries for {target}, {spilled} with spills"


def _inputs(specification: Path, request: Deployment, machine: Machine) -> tuple[Input, ...]:
    return (
        input_from("specification", specification),
        input_from("model", Path(request.model_path)),
        machine_input(machine),
    )


def _copies(specification: Path, request: Deployment) -> Files:
    """Keep the small inputs in the plan, so that a reader a year later can lower them again."""
    return {
        "inputs/deployment.toml": read_bytes(specification),
        "inputs/config.json": read_bytes(Path(request.model_path)),
    }


def _without_trace(request: Deployment) -> Deployment:
    """Drop what belongs to this machine and this moment: the requests themselves and absolute paths."""
    workload = replace(request.workload, requests=())
    return replace(request, workload=workload, model_path=Path(request.model_path).name)
