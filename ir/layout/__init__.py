"""Offline placements (buffers, experts, adapters, tiers, batch order): problems, placements, legality."""
