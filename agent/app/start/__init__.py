"""Set-up, checks, wallet and endpoints before the first trade."""
