"""Training one run exactly: numerics, optimizer, schedule in tokens, checkpoints, the loop."""
