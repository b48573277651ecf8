"""The run folder: atomic files, locks, metric parts, checkpoints with checksums, and their readers. No torch."""
