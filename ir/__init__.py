"""Frozen data: loops, models, machines, plans, certificates, diagnostics, and what makes a plan legal."""
