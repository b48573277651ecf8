"""Pure functions from a study to figures."""
