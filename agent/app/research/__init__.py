"""Commands that need no wallet: backtests, stress tests, searches, what-if and replay."""
