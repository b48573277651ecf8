"""What the store tells of sweeps and runs, for people and scripts: no cluster, no Ray, no torch."""
