"""Money in and out: first purchases, top-ups, withdrawals, unexplained balance changes."""
