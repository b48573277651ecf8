"""Published tables that the package ships, with their sources in SOURCES.md."""
