"""What users have -> IR: model configurations, traces, specs, loop files."""
