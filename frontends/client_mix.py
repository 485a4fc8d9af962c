"""A mix of clients (as ServeGen describes traffic) -> requests: each client with its own rate, burstiness, lengths.

[[clients]]
name   = "agents"
rate   = "3/s"
cv     = 2.5                              # of the times between arrivals; 1 is Poisson
family = "gamma"                          # or "weibull"
prompt = { mean = 4000, cv = 1.2 }        # lognormal; or { probability = [...], tokens = [...] }
output = { mean = 150, cv = 0.8 }
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from treadle.frontends.errors import BadSpecification
from treadle.frontends.located import toml_place
from treadle.frontends.toml_files import Table, read_toml
from treadle.ir.diagnostics import Place, closest
from treadle.ir.errors import UnknownName
from treadle.ir.units import parse_quantity
from treadle.ir.workload import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FAMILIES = ("gamma", "weibull")
"""Families of the times between arrivals."""


class LengthsTable(Table):
    """A length distribution: lognormal by mean and variation, or quantiles."""

    mean: float | None = Field(default=None, ge=1, le=10**7)
    cv: float = Field(default=1.0, ge=0, le=20)
    probability: list[float] = Field(default=[], max_length=1000)
    tokens: list[int] = Field(default=[], max_length=1000)


class ClientTable(Table):
    """One client."""

    name: str
    rate: str
    cv: float = Field(default=1.0, gt=0, le=20)
    family: str = "gamma"
    prompt: LengthsTable
    output: LengthsTable


class MixTable(Table):
    """The whole file."""

    clients: list[ClientTable] = Field(min_length=1, max_length=10_000)
    requests: int = Field(default=4000, ge=100, le=10**6)
    seed: int = Field(default=0, ge=0)


def load_clients(path: Path) -> tuple[Request, ...]:
    """Draw the requests of a client mix, by time of arrival; the same file gives the same requests.

    Raises:
        UnreadableFile, MalformedText, UnknownField, MissingField, WrongType, WrongUnit, UnknownName, BadSpecification.
    """
    import numpy as np

    table, text = read_toml(MixTable, path)
    random = np.random.default_rng(table.seed)
    rates = [
        _rate(client, toml_place(text, str(path), ("clients", position)))
        for position, client in enumerate(table.clients)
    ]
    span = table.requests / sum(rates)
    found: list[Request] = []
    for position, (client, rate) in enumerate(zip(table.clients, rates, strict=True)):
        place = toml_place(text, str(path), ("clients", position))
        arrivals = _arrivals(client, rate, span, random)
        prompts = _lengths(client.prompt, len(arrivals), random, place)
        outputs = _lengths(client.output, len(arrivals), random, place)
        found += [
            Request(float(arrival), int(prompt), int(output))
            for arrival, prompt, output in zip(arrivals, prompts, outputs, strict=True)
        ]
    return tuple(sorted(found, key=lambda request: request.arrival_s))


def _rate(client: ClientTable, place: Place) -> float:
    if client.family not in FAMILIES:
        raise UnknownName(
            place=place,
            kind="family",
            name=client.family,
            expected=f"one of {', '.join(FAMILIES)}",
            hint=closest(client.family, list(FAMILIES)),
        )
    rate = float(parse_quantity(client.rate, "rate", place))
    if not 0 < rate < 1e9:
        raise BadSpecification(place=place, message=f"the client `{client.name}` has the rate {client.rate}")
    return rate


def _arrivals(client: ClientTable, rate: float, span: float, random: np.random.Generator) -> NDArray[np.float64]:
    """Renewal times within the span, with the client's mean and variation of the gaps."""
    import numpy as np

    count = max(8, math.ceil(rate * span * 1.5 + 10 * client.cv * math.sqrt(rate * span)))
    if client.family == "gamma":
        shape = 1 / client.cv**2
        gaps = random.gamma(shape, 1 / (rate * shape), count)
    else:
        shape = _weibull_shape(client.cv)
        gaps = random.weibull(shape, count) / (rate * math.gamma(1 + 1 / shape))
    arrivals = np.cumsum(gaps)
    return arrivals[arrivals < span]


def _weibull_shape(variation: float) -> float:
    """Return the Weibull shape with a coefficient of variation, by bisection on log-gamma."""
    low, high = 0.1, 50.0
    for _ in range(80):
        middle = math.sqrt(low * high)
        square = math.exp(math.lgamma(1 + 2 / middle) - 2 * math.lgamma(1 + 1 / middle)) - 1
        low, high = (middle, high) if square > variation**2 else (low, middle)
    return low


def _lengths(table: LengthsTable, count: int, random: np.random.Generator, place: Place) -> NDArray[np.int64]:
    import numpy as np

    if (table.mean is None) == (not table.tokens):
        raise BadSpecification(place=place, message="lengths need either `mean` or `probability` and `tokens`")
    if table.mean is not None:
        sigma = math.sqrt(math.log(1 + table.cv**2))
        drawn = random.lognormal(math.log(table.mean) - sigma**2 / 2, sigma, count)
        return np.clip(np.rint(drawn), 1, 10**7).astype(np.int64)
    rising = all(a < b for a, b in zip(table.probability, table.probability[1:], strict=False))
    if len(table.probability) != len(table.tokens) or not rising or min(table.tokens) < 1:
        raise BadSpecification(
            place=place, message="`probability` rises, and has one count of at least 1 in `tokens` each"
        )
    return np.maximum(1, np.rint(np.interp(random.random(count), table.probability, table.tokens))).astype(np.int64)
