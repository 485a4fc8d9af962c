"""Solvers: constraint models and bounds, one folder per problem; the only user of OR-Tools."""
