"""Machine reassignment (ROADEF/EURO challenge 2012)."""
