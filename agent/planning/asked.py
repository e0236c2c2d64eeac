"""What asked for a step, as the proposer that it was made by and in words: what was written down is proposed again by the same."""

from __future__ import annotations

from agent.model import Asked, ByHand, Invest, OwnStrategy, Proposed, RaiseMoney, SellEverything, SellOut, Swap, SwapAtPrice, Unwrap
from agent.planning import owner, strategies
from agent.planning.strategies import Proposer

OWN = "agent"
"""What asks for the agent's own strategy."""


def proposer(asked: Proposed) -> Proposer:
    """What proposes it, pure: the same StepInput gives the same proposal."""
    match asked:
        case OwnStrategy():
            return strategies.waiting_orders(asked.orders) if asked.orders else strategies.rebalance
        case Swap():
            return strategies.manual_swap(asked.token_in, asked.token_out, asked.amount_in_raw)
        case SwapAtPrice():
            return strategies.one_order(asked.order)
        case Invest():
            return owner.invest(dict(asked.came), asked.before)
        case RaiseMoney():
            return owner.raise_money(asked.token)
        case Unwrap():
            return owner.unwrap(asked.raw)
        case SellEverything():
            return owner.sell_everything
        case SellOut():
            return owner.sell_out(asked.token)


def named(asked: Asked) -> str:
    """What asks for it: OWN, or the command of its owner."""
    match asked:
        case OwnStrategy():
            return OWN
        case ByHand():
            return asked.what
        case Swap():
            return "swap"
        case SwapAtPrice():
            return "swap --limit"
        case Invest():
            return "invest"
        case RaiseMoney() | Unwrap():
            return "withdraw"
        case SellEverything():
            return "stop"
        case SellOut():
            return "edit --remove"
