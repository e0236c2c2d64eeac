"""Two signals for trimtab: trend and mean reversion."""
