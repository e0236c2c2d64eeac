"""Set-up, checks and wallet keys before the first trade."""
