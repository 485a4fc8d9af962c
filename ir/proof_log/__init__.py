"""Refutations another program wrote, replayed here: finite-domain problems, DRCP proofs, and the small checker."""
