"""What the core asks the layers about a step, a decision or a plan, from the model alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction

from agent.layers.futures.policy import exposure, targets
from agent.layers.futures.policy import plans as futures
from agent.layers.liquidity.policy import pools
from agent.layers.liquidity.policy import valuation as liquidity
from agent.layers.strategies.policy.faults import strategies_fault
from agent.layers.tax.policy import marginal_sale_taxes
from agent.model import (
    MARGIN_PLACE,
    AssetDrift,
    FuturesPlan,
    HaltCode,
    LayerPlan,
    MarginBaseline,
    MarketGrowthInputs,
    Plan,
    Portfolio,
    StepInput,
)
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
STOP_REASONS: tuple[tuple[HaltCode, Callable[[StepInput], str]], ...] = (
    (HaltCode.POSITIONS, liquidity.undecided_positions_reason),
)
"""Reasons to stop all trading but exits, until the owner decides."""
EXIT_ONLY_FAULTS: tuple[tuple[HaltCode, Callable[[StepInput], str]], ...] = (
    (HaltCode.FUTURES, exposure.unknown_margin_reason),
)
"""Faults during which only exits and withdrawals of liquidity are allowed, with their reason."""
PLACE_NAMES: tuple[Callable[[StepInput], str], ...] = (pools.place_name, futures.place_name)
"""Where else than in the wallet an asset may be; empty if nowhere."""
OUTSIDE_HOLDINGS: Mapping[str, Callable[[StepInput, Mapping[str, Price]], Mapping[str, int]]] = {
    pools.POSITIONS_PLACE: liquidity.holdings,
    MARGIN_PLACE: lambda step, _: exposure.margin_holdings_in_weights(step),
}
"""Base units by token outside the wallet that weights count at these prices, by the name of the
place. Raise Refused if something is unknown.
"""
UNWEIGHTED_HOLDINGS: tuple[Callable[[StepInput], Mapping[str, int]], ...] = (
    exposure.margin_holdings_outside_weights,
)
"""Base units by token outside the wallet that count in the total and in no weight."""
UNKNOWN_VALUE_REASONS: tuple[Callable[[StepInput], str], ...] = (exposure.unknown_account_reason,)
"""Why the value of an account outside the wallet, which then counts nowhere, is unknown; empty if
it is known.
"""
ACCOUNT_BASELINES: tuple[Callable[[StepInput], MarginBaseline | None], ...] = (
    exposure.margin_baseline,
)
"""Amounts of an account outside the wallet that the NAV record keeps to measure its later result;
None if it is not counted.
"""
ACCOUNT_RESULTS: tuple[Callable[[StepInput, Mapping[str, Price]], Value], ...] = (
    exposure.margin_result,
)
"""Result of that account since the recorded baseline, in numeraire base units."""
HELD_WEIGHTS: tuple[Callable[[StepInput], Mapping[str, Fraction]], ...] = (targets.held_weights,)
"""Signed weights of what a layer holds in markets, by market."""
MARKET_TERMS_READERS: tuple[Callable[[StepInput, Value], MarketGrowthInputs | None], ...] = (
    exposure.market_terms,
)
"""Data for the growth of capital in markets, given the value of the spot portfolio; None if they
are unknown.
"""
EMERGENCY_GAS_PRICES: Mapping[type[LayerPlan], Callable[[StepInput], int | None]] = {
    FuturesPlan: futures.max_emergency_gas_price_wei
}
"""Largest gas price of an emergency in wei, by the layer's part of the plan; None: unlimited."""
LEDGER_HOLDINGS: tuple[
    Callable[[StepInput, Mapping[str, Price]], dict[tuple[str, str], int]], ...
] = (liquidity.holdings_by_place,)
"""Base units outside the wallet for the ledger, by the name of the position and token; a missing
price counts as one.
"""
HELD_VALUE_CHECKS: tuple[Callable[[StepInput, AssetDrift, Value], bool], ...] = (pools.pools_hold,)
"""True if a layer has at least this value of an asset, which an exit frees and sells."""
VALUED_TOKENS: tuple[Callable[[Portfolio], set[str]], ...] = (pools.pooled_tokens,)
"""Tokens that are needed to value what a layer has."""
TARGET_REMOVERS: tuple[Callable[[Portfolio, Collection[str]], Portfolio], ...] = (
    pools.without_targets,
)
"""The portfolio in which a layer has no targets with these tokens, which an exit sells."""
SALE_TAXES: tuple[Callable[[StepInput, Mapping[str, Price]], Mapping[str, Fraction]], ...] = (
    marginal_sale_taxes,
)
"""Tax on the next unit sold of each token that has any, per unit of value."""
UNSPENDABLE_AMOUNTS: tuple[Callable[[StepInput], Mapping[str, int]], ...] = ()
"""Base units of the wallet by token that count but that no swap may spend; of an amount above the
balance, the balance.
"""
SPENDERS: tuple[Callable[[StepInput], dict[str, str]], ...] = (pools.spenders, futures.spenders)
"""Contracts that may hold an allowance of the wallet for a layer, with their roles."""


def raw_by_place_outside(
    step: StepInput, prices: Mapping[str, Price], skipped_places: Collection[str] = ()
) -> dict[str, Mapping[str, int]]:
    """Return the base units by token that weights count in each place outside the wallet, but those
    `skipped_places`. Raises Refused if something is unknown.
    """
    return {
        place: holdings_of(step, prices)
        for place, holdings_of in OUTSIDE_HOLDINGS.items()
        if place not in skipped_places
    }


def raw_outside_wallet(
    step: StepInput, prices: Mapping[str, Price], skipped_places: Collection[str] = ()
) -> dict[str, int]:
    """Return the base units by token that weights count in all these places together."""
    return _summed_by_token(raw_by_place_outside(step, prices, skipped_places).values())


def unweighted_raw(step: StepInput) -> dict[str, int]:
    """Return the base units by token outside the wallet that count in no weight."""
    return _summed_by_token(holdings_of(step) for holdings_of in UNWEIGHTED_HOLDINGS)


def _summed_by_token(amounts_to_sum: Iterable[Mapping[str, int]]) -> dict[str, int]:
    raw_sum_by_token: dict[str, int] = {}
    for raw_by_token in amounts_to_sum:
        for token, raw in raw_by_token.items():
            raw_sum_by_token[token] = raw_sum_by_token.get(token, 0) + raw
    return raw_sum_by_token


def unspendable_raw(step: StepInput) -> dict[str, int]:
    """Return the base units of the wallet by token that no swap may spend."""
    return _summed_by_token(locked_of(step) for locked_of in UNSPENDABLE_AMOUNTS)


def sale_taxes(step: StepInput, prices: Mapping[str, Price]) -> dict[str, Fraction]:
    """Return the tax on the next unit sold of each token that has any, per unit of value."""
    return {token: tax for taxes_of in SALE_TAXES for token, tax in taxes_of(step, prices).items()}


def value_outside_wallet(
    step: StepInput, prices: Mapping[str, Price], skipped_places: Collection[str] = ()
) -> Value:
    """Return the value outside the wallet, but in `skipped_places`; zero without a price. Raises
    Refused if something is unknown.
    """
    raw_by_token = _summed_by_token(
        (raw_outside_wallet(step, prices, skipped_places), unweighted_raw(step))
    )
    return sum(
        (raw * prices.get(token, Fraction(0)) for token, raw in raw_by_token.items()), Fraction(0)
    )


def unknown_value_reason(step: StepInput) -> str:
    """Return why the value of an account outside the wallet is unknown; empty if all are known."""
    return next((why for reason_of in UNKNOWN_VALUE_REASONS if (why := reason_of(step))), "")


def account_baseline(step: StepInput) -> MarginBaseline | None:
    """Return the baseline of the account outside the wallet; None without one that counts."""
    baselines = (baseline_of(step) for baseline_of in ACCOUNT_BASELINES)
    return next((baseline for baseline in baselines if baseline is not None), None)


def account_result(step: StepInput, prices: Mapping[str, Price]) -> Value:
    """Return the result of accounts outside the wallet since the recorded baseline."""
    return sum((result_of(step, prices) for result_of in ACCOUNT_RESULTS), Fraction(0))


def market_terms(step: StepInput, spot_value: Value) -> MarketGrowthInputs | None:
    """Return the data for the growth of capital in markets; None without any."""
    layer_terms = (growth_of(step, spot_value) for growth_of in MARKET_TERMS_READERS)
    return next((growth for growth in layer_terms if growth is not None), None)


def held_weights(step: StepInput) -> dict[str, Fraction]:
    """Return the signed weights of what layers hold in markets, by market."""
    return {
        market: weight for weights_of in HELD_WEIGHTS for market, weight in weights_of(step).items()
    }


def gas_price_limit_wei(step: StepInput, plan: Plan) -> int | None:
    """Return the largest gas price of a plan, wei; None: unlimited."""
    layer_plan = next((layer_plan for layer_plan in plan.layers if layer_plan.is_emergency), None)
    return (
        step.limits.gas_price_wei
        if layer_plan is None
        else EMERGENCY_GAS_PRICES[type(layer_plan)](step)
    )
