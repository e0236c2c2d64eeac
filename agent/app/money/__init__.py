"""Money in, money out, the end."""
