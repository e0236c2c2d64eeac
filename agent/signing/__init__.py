"""Keys, and what they may sign: calldata decoded anew, and one table of rules."""
