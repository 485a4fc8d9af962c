"""Runs the benchmarks behind the README's table, one after the other, and writes their results."""

from __future__ import annotations

import argparse
import subprocess
import sys

from benchmarks.common import RESULTS

BENCHMARKS: dict[str, list[str]] = {
    "startup": [],
    "compile_examples": [],
    "model_graphs": [],
    "cost_accuracy": [],
    "hls_loops": ["--jobs", "2"],
    "warp_pipelines": ["--solutions", "build/warp_solutions"],
    "warp_oracle": [],
    "warp_scaling": ["--limit", "0.1", "--figure", "docs/figures/warp_scaling.svg"],
    "warp_timelines": [],
    "warp_programs": ["--solutions", "build/warp_solutions"],
    "kernel_static": ["--kept", "build/kernel_rows"],
    "expert_layout": [],
    "kv_limit": [],
    "serving_regret": [],
    "plan_verification": [],
    "buffer_layout": [],
    "operator_overlap": [],
    "moe_overlap": [],
    "sections": [],
    "step_buffers": [],
    "memory_spaces": [],
    "serving_replay": [],
    "distserve": [],
    "parallel_speed": ["--growth", "--figure", "docs/figures/parallel_growth.svg"],
    "parallel_oracle": [],
    "training_runs": [],
    "training_reach": [],
    "replan": [],
    "sequence_groups": [],
    "recorded_scheduler": [],
    "packing_exact": [],
    "dump_memory": [],
    "roadef": ["--window", "45", "--hard", "280"],
    "pack_growth": ["--window", "55", "--add", str(RESULTS / "pack_growth.json")],
}
"""Module -> arguments. By hand: pod_packing, openb, pack_growth of 10^5 pods, serving_peer, training_fit and
training_kernels (training_fit also with --leave-out and --draws 10)."""


def main() -> int:
    """Run them; a failure is reported at the end and in the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(BENCHMARKS)}; all unless given")
    chosen = parser.parse_args().names or list(BENCHMARKS)
    failed: list[str] = []
    for name in chosen:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(RESULTS / f"{name}.json")]
        if subprocess.run([*command, *BENCHMARKS.get(name, [])], check=False).returncode:
            failed.append(name)
    print(f"failed: {', '.join(failed)}" if failed else "all done")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
