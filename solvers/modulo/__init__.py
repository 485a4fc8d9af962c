"""Exact modulo scheduling of a loop: least initiation interval, least length, fewest ring bytes - each certified."""
