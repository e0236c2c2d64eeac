"""Plans of liquidity actions."""
