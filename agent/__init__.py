"""trimtab: a wallet-keyed agent that rebalances token portfolios on chain. The public surface is `agent.api`, loaded on first use."""
