"""Keys and the transactions they may sign: calldata decoded anew, one table of rules."""
