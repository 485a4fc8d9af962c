"""One driver per job: the line frontends -> ir -> costmodels -> solvers -> plan -> verify -> codegen."""
