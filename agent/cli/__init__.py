"""Commands: parse, call, print. Decides nothing."""
