"""Prefix-sharing order and grouping of offline requests."""
