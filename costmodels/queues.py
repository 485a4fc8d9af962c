"""Waiting times of queues: exact means, and a tail estimate that the search uses and the replay judges.

M/G/1 by Pollaczek and Khinchine; M/M/k by Erlang's C; M/D/k by Cosmetatos (1975); M/G/k between the two by
the squared coefficient of variation (Kimura 1986).
"""

from __future__ import annotations

from math import inf, log, sqrt


def mean_wait_mg1(rate_per_s: float, mean_s: float, second_moment_s2: float) -> float:
    """Return the mean wait in seconds before service; infinite at or beyond full load."""
    load = rate_per_s * mean_s
    return inf if load >= 1 else rate_per_s * second_moment_s2 / (2 * (1 - load))


def erlang_c(servers: int, offered: float) -> float:
    """Return the probability that an arrival waits in M/M/k with `offered` = rate x service time."""
    if offered >= servers:
        return 1.0
    blocked = 1.0
    for count in range(1, servers + 1):
        blocked = offered * blocked / (count + offered * blocked)
    return blocked / (1 - offered / servers * (1 - blocked))


def mean_wait_mmk(rate_per_s: float, mean_s: float, servers: int) -> float:
    """Return the mean wait of M/M/k in seconds."""
    load = rate_per_s * mean_s / servers
    return inf if load >= 1 else erlang_c(servers, rate_per_s * mean_s) * mean_s / (servers * (1 - load))


def mean_wait_mdk(rate_per_s: float, mean_s: float, servers: int) -> float:
    """Return the mean wait of M/D/k in seconds: Cosmetatos' approximation, within 1 % up to 97 % load."""
    load = rate_per_s * mean_s / servers
    if load >= 1:
        return inf
    correction = (1 - load) * (servers - 1) * (sqrt(4 + 5 * servers) - 2) / (16 * servers * load)
    return 0.5 * (1 + correction) * mean_wait_mmk(rate_per_s, mean_s, servers)


def mean_wait_mgk(rate_per_s: float, mean_s: float, variation2: float, servers: int) -> float:
    """Return the mean wait of M/G/k with squared coefficient of variation `variation2`."""
    exponential = mean_wait_mmk(rate_per_s, mean_s, servers)
    constant = mean_wait_mdk(rate_per_s, mean_s, servers)
    if not 0 < exponential < inf:
        return exponential
    return (1 + variation2) / (2 * variation2 / exponential + (1 - variation2) / constant)


def wait_quantile_mg1(rate_per_s: float, mean_s: float, second_moment_s2: float, share: float) -> float:
    """Return the wait that the share of arrivals does not exceed: an exponential tail above the idle probability."""
    load = rate_per_s * mean_s
    if load >= 1:
        return inf
    if share <= 1 - load:
        return 0.0
    mean = mean_wait_mg1(rate_per_s, mean_s, second_moment_s2)
    return mean / load * log(load / (1 - share))


def largest_load(mean_s: float, second_moment_s2: float, share: float, allowed_wait_s: float) -> float:
    """Return the largest load of one server at which the wait stays within the limit for that share of arrivals."""
    low, high = 0.0, 0.999
    for _ in range(40):
        middle = (low + high) / 2
        waits = wait_quantile_mg1(middle / mean_s, mean_s, second_moment_s2, share)
        low, high = (middle, high) if waits <= allowed_wait_s else (low, middle)
    return low
