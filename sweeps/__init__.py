"""Which runs, where, when, and surviving it all."""
