"""Operator level: operators with modes on shared streams, periodic schedules, and their legality."""
