"""A sweep in the files of other tools, a file a tool. Reads the store; no torch, no ray, no network."""
