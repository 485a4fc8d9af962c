"""Tile level: tile programs, cyclic scheduling problems (loops), modulo schedules and their legality."""
