"""Runs in a process of its own: a `torch.export` program, or a factory that makes one, as a list of operators.

Reads `{"file", "name"}` as JSON from stdin and writes one line of JSON: nodes with operator, inputs, shape and module,
and the parameters' shapes; or `{"error", "expected"}`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, cast


def main() -> int:
    """Answer one request."""
    request = json.loads(sys.stdin.read())
    try:
        import torch
    except ImportError:
        return _say({"error": "torch is not installed", "expected": "pip install 'treadle[torch]'"})
    path = Path(request["file"])
    try:
        program = torch.export.load(path) if path.suffix == ".pt2" else _made(torch, path, request["name"])
    except Exception as error:  # what the user's file raises, in one line
        first = (str(error).strip().splitlines() or [""])[0]
        expected = "a file written by torch.export.save, or a function that returns (module, inputs)"
        return _say({"error": f"{type(error).__name__}: {first}"[:300], "expected": expected})
    return _say(_listed(program))


def _say(answer: dict[str, Any]) -> int:
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    return 0


def _made(torch: Any, path: Path, name: str) -> Any:
    """Export what the factory returns: (module, inputs), (module, inputs, keywords), or an exported program."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    if not callable(factory := getattr(module, name, None)):
        raise AttributeError(f"{path.name} has no function `{name}`")
    with torch.device("meta"):
        made = factory()
    if isinstance(made, torch.export.ExportedProgram):
        return made
    model, inputs, *keywords = tuple(cast(Any, made))
    return torch.export.export(model.to("meta"), tuple(inputs), *keywords)


def _listed(program: Any) -> dict[str, Any]:
    names = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers}
    parameters = {name: list(value.shape) for name, value in program.named_parameters()}
    nodes: list[dict[str, Any]] = []
    inputs: list[list[int]] = []
    for node in program.graph.nodes:
        value: Any = node.meta.get("val")
        if node.op == "placeholder" and node.name not in names and hasattr(value, "shape"):
            inputs.append([int(size) for size in value.shape])
        if node.op != "call_function":
            continue
        if isinstance(value, (tuple, list)):
            value = next((item for item in value if hasattr(item, "shape")), None)
        stack = list(node.meta.get("nn_module_stack", {}).values())
        path = str(stack[-1][0]) if stack else ""
        nodes.append(
            {
                "name": node.name,
                "operator": str(node.target),
                "inputs": [names.get(item.name, item.name) for item in node.all_input_nodes],
                "shape": [int(size) for size in value.shape] if hasattr(value, "shape") else [],
                "module": path.removeprefix("L__self__").lstrip("."),
            }
        )
    return {"nodes": nodes, "parameters": parameters, "inputs": inputs}


if __name__ == "__main__":
    sys.exit(main())
