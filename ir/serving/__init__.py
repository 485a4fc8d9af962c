"""Engine pools: candidates, demands, plans, legality; mixed-integer programs and their search trees."""
