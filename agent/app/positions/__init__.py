"""Orders, liquidity and strategies that stand."""
