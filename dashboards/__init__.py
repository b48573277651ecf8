"""A study as interactive pages: pure figures, a static report, and an app."""
