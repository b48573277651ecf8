"""A study as files, tables of words and notes, and read back from its files."""
