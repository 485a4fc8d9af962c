"""Warp programs: lowering, checking, interpretation, simulation."""
