"""Vector bin packing: fewest bins."""
