"""Training one run on several devices, one file a technique. So far: data parallelism."""
