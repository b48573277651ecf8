"""Pages of HTML that carry figures."""
