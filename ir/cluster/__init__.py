"""Clusters: nodes, pods and their rules; placements, migrations, and what makes them legal."""
