"""One module per protocol the agent trades on: addresses, discovery, calldata."""
