"""web3 providers over the agent's endpoints: one endpoint, a quorum of several, eth-tester."""
