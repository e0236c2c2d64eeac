"""The command line: parse, call, print. Decides nothing."""
