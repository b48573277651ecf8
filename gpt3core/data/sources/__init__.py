"""Documents out of files: which there are, what opens them, and what is no document of it and why; streamed."""
