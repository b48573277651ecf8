"""The loop of a sweep: reconcile, decide, act."""
