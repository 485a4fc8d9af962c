"""Machines as data, pure cost functions, and replays."""
