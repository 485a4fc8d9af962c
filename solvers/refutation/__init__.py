"""Refutations with a proof log, by pumpkin-solver (extra `proofs`)."""
