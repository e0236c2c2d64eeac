"""Report pages: HTML and JSON."""
