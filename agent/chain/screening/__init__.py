"""Token screen: simulate the transfers of every token of a plan, at its amounts, accounts and
block.

Uses eth_call, and eth_getLogs for a balance that changed: pools lend the tokens to the contract
TokenScreen, and single calls run as the wallet, a pool or the router, since eth_call allows any
sender. docs/tokens.md lists what is detected and what is not.
"""

from agent.chain.screening.screen import TokenScreen

__all__ = ["TokenScreen"]
