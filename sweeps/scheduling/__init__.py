"""The cluster as data, and who starts now; pure."""
