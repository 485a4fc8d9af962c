"""The training level: model, cluster and spec as the cost model sees them; plans and their legality."""
