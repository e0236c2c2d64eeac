"""What the core asks the layers about a step, a decision or a plan, from the model alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction

from agent.layers.futures.policy import plans as futures
from agent.layers.futures.policy.exposure import unknown_margin_reason
from agent.layers.liquidity.policy import pools
from agent.layers.liquidity.policy import valuation as liquidity
from agent.layers.strategies.policy.faults import strategies_fault
from agent.model import AssetDrift, Decision, HaltCode, Plan, Portfolio, StepInput
from agent.units import Price, Value

SPOT_FAULTS: tuple[tuple[HaltCode, Callable[[StepInput], str]], ...] = (
    (HaltCode.STRATEGIES, strategies_fault),
)
"""Faults that halt the spot portfolio, with their reason (empty: no fault). Futures are reduced
despite them.
"""
HOLDING_FAULTS: tuple[tuple[HaltCode, Callable[[StepInput], Sequence[str]]], ...] = (
    (HaltCode.POSITIONS, liquidity.faults),
)
"""Faults of what a layer holds outside the wallet, which halt the spot portfolio."""
STOPS: tuple[tuple[HaltCode, Callable[[StepInput], str]], ...] = (
    (HaltCode.POSITIONS, liquidity.undecided_positions_reason),
)
"""Reasons to stop all trading but exits, until the owner decides."""
HELD_BACK: tuple[tuple[HaltCode, Callable[[StepInput], str]], ...] = (
    (HaltCode.FUTURES, unknown_margin_reason),
)
"""Faults during which only exits and withdrawals of liquidity are allowed, with their reason."""
EXIT_NAMES: tuple[Callable[[Plan], str], ...] = (futures.exit_name,)
"""Name that failures of a risk-reducing plan are counted under; empty for any other plan."""
WITHOUT_GAS: tuple[Callable[[StepInput, Decision], bool], ...] = (futures.needs_no_gas,)
"""True for a decision whose plan sends no transaction."""
DEPOSITS: tuple[Callable[[StepInput, Plan], tuple[str, int, str]], ...] = (futures.deposit,)
"""Token, base units and spender of a plan's deposit; zero units without one."""
ACTION_COUNTS: tuple[Callable[[Plan], int], ...] = (futures.action_count,)
"""Number of a plan's actions in the layer, each a transaction."""
PLACES: tuple[Callable[[StepInput], str], ...] = (pools.place, futures.place)
"""Where else than in the wallet an asset may be; empty if nowhere."""
OUTSIDE: tuple[Callable[[StepInput, Mapping[str, Price]], dict[str, int]], ...] = (
    liquidity.holdings,
)
"""Base units by token outside the wallet that weights count at these prices. Raise Refused if
something is unknown.
"""
VALUES: tuple[Callable[[StepInput, Mapping[str, Price]], Value], ...] = (liquidity.total_value,)
"""Value outside the wallet at these prices. Raise Refused if something is unknown."""
BY_PLACE: tuple[Callable[[StepInput, Mapping[str, Price]], dict[tuple[str, str], int]], ...] = (
    liquidity.holdings_by_place,
)
"""The same for the ledger, by the name of the place and token; a missing price counts as one."""
KEEPS: tuple[Callable[[StepInput, AssetDrift, Value], bool], ...] = (pools.keeps,)
"""True if a layer has at least this value of an asset, which an exit frees and sells."""
TOKENS: tuple[Callable[[Portfolio], set[str]], ...] = (pools.tokens,)
"""Tokens that are needed to value what a layer has."""
WITHOUT_TARGETS: tuple[Callable[[Portfolio, Collection[str]], Portfolio], ...] = (
    pools.without_targets,
)
"""The portfolio in which a layer has no targets with these tokens, which an exit sells."""
LOCKED: tuple[Callable[[StepInput], Mapping[str, int]], ...] = ()
"""Base units of the wallet by token that count but that no swap may spend; of an amount above the
balance, the balance.
"""
SPENDERS: tuple[Callable[[StepInput], dict[str, str]], ...] = (pools.spenders, futures.spenders)
"""Contracts that may hold an allowance of the wallet for a layer, with their roles."""


def outside_raw(step: StepInput, prices: Mapping[str, Price]) -> dict[str, int]:
    """Return the base units by token outside the wallet. Raises Refused if something is unknown."""
    total: dict[str, int] = {}
    for holdings in OUTSIDE:
        for token, raw in holdings(step, prices).items():
            total[token] = total.get(token, 0) + raw
    return total


def locked_raw(step: StepInput) -> dict[str, int]:
    """Return the base units of the wallet by token that no swap may spend."""
    total: dict[str, int] = {}
    for locked in LOCKED:
        for token, raw in locked(step).items():
            total[token] = total.get(token, 0) + raw
    return total


def outside_value(step: StepInput, prices: Mapping[str, Price]) -> Value:
    """Return the value outside the wallet. Raises Refused if something is unknown."""
    return sum((value(step, prices) for value in VALUES), Fraction(0))
