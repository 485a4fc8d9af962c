"""Projects under resources with downtime (RCPSP)."""
