"""Money that comes and goes: first purchases, withdrawals, balance changes."""
