"""One file a task: what it asks of a checkpoint, what it computes, how its outputs become predictions."""
