"""Write `lengths.toml` (length quantiles) of every example from a request trace.

python examples/make_lengths.py --data ../shared/data/traces/azure_llm_2023_conv.csv

The Azure 2023 conversation trace is `AzureLLMInferenceTrace_conv.csv` of github.com/Azure/AzurePublicDataset.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from treadle.frontends.traces import FORMATS, length_quantiles, load_trace
from treadle.ir.workload import LengthQuantiles

EXAMPLES = Path(__file__).parent
SOURCE = "Azure LLM inference trace 2023, conversation (github.com/Azure/AzurePublicDataset @ b469a113)"
DATA = "../shared/data/traces/azure_llm_2023_conv.csv"


def text_of(lengths: LengthQuantiles) -> str:
    """Return quantiles as the TOML that `treadle.frontends.spec.load_quantiles` reads."""
    columns: dict[str, Sequence[float]] = {
        "probability": [point.probability for point in lengths.points],
        "prompt_tokens": [point.prompt_tokens for point in lengths.points],
        "output_tokens": [point.output_tokens for point in lengths.points],
    }
    head = (
        "# Marginal quantiles of prompt and output lengths; written by examples/make_lengths.py.\n"
        f'source = "{lengths.source}"\nlicence = "{lengths.licence}"\ndate = "{lengths.date}"\n'
        f"requests = {lengths.requests}\n"
    )
    return head + "".join(f"{name} = {list(values)}\n" for name, values in columns.items())


def main() -> None:
    """Compute the quantiles and write them beside every example's specification."""
    parser = argparse.ArgumentParser(description="Write lengths.toml of every example from a request trace.")
    parser.add_argument("--data", type=Path, default=Path(DATA), help=f"the trace (default {DATA})")
    parser.add_argument("--format", default="azure-2023", choices=list(FORMATS))
    parser.add_argument("--source", default=SOURCE)
    parser.add_argument("--licence", default="CC-BY 4.0")
    parser.add_argument("--date", default=date.today().isoformat(), help="when the trace was read (default today)")
    chosen = parser.parse_args()
    requests = load_trace(chosen.data, chosen.format)
    text = text_of(length_quantiles(requests, chosen.source, chosen.licence, chosen.date))
    for specification in sorted(EXAMPLES.glob("*/deployment.toml")):
        file = specification.parent / "lengths.toml"
        if file.exists() and "make_lengths" not in file.read_text(encoding="utf-8"):
            continue  # lengths of its own
        file.write_text(text, encoding="utf-8")
        print(f"{specification.parent.name}/lengths.toml: quantiles of {len(requests)} requests")


if __name__ == "__main__":
    main()
