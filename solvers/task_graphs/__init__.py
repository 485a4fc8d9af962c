"""Task graphs on unlike processors."""
