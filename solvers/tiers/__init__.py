"""Weights and KV blocks onto memory tiers."""
