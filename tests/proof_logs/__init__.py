"""Proof logs."""
