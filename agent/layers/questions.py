"""What the core asks the layers about a step, from the model alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeVar

from agent.layers.futures.policy import exposure, targets
from agent.layers.futures.policy import plans as futures
from agent.layers.liquidity.policy import pools
from agent.layers.liquidity.policy import valuation as liquidity
from agent.layers.strategies.policy.faults import strategies_fault
from agent.layers.tax.policy import marginal_sale_taxes
from agent.model import (
    MARGIN_PLACE,
    AssetDrift,
    HaltCode,
    MarginBaseline,
    MarketGrowthInputs,
    Plan,
    Portfolio,
    StepInput,
)
from agent.units import Price, Value

Amount = TypeVar("Amount", int, Fraction)


@dataclass(frozen=True, slots=True)
class LayerFaults:
    """Faults of a layer, with their code; an empty reason is no fault."""

    code: HaltCode
    spot: Callable[[StepInput], str] = lambda step: ""
    """Fault that halts the spot portfolio. Futures are reduced despite it."""
    holdings: Callable[[StepInput], Sequence[str]] = lambda step: ()
    """Faults of what the layer holds outside the wallet, which halt the spot portfolio."""
    stop: Callable[[StepInput], str] = lambda step: ""
    """Reason to stop all trading, exits too, until the owner decides."""
    exits_only: Callable[[StepInput], str] = lambda step: ""
    """Fault during which only exits and withdrawals of liquidity are allowed."""


FAULTS: tuple[LayerFaults, ...] = (
    LayerFaults(HaltCode.STRATEGIES, spot=strategies_fault),
    LayerFaults(
        HaltCode.POSITIONS, holdings=liquidity.faults, stop=liquidity.undecided_positions_reason
    ),
    LayerFaults(HaltCode.FUTURES, exits_only=exposure.unknown_margin_reason),
)
"""Faults of each layer that may halt a step."""


@dataclass(frozen=True, slots=True)
class OutsideHoldings:
    """What a layer holds outside the wallet. Amounts are base units by token."""

    place: str = ""
    """Name of the place; empty: the layer holds nothing outside the wallet."""
    raw_by_token: Callable[[StepInput, Mapping[str, Price]], Mapping[str, int]] = (
        lambda step, prices: {}
    )
    """Amounts that weights count at these prices. Raises Refused if something is unknown."""
    unweighted_raw: Callable[[StepInput], Mapping[str, int]] = lambda step: {}
    """Amounts that count in the total and in no weight."""
    ledger_raw: Callable[[StepInput, Mapping[str, Price]], Mapping[tuple[str, str], int]] = (
        lambda step, prices: {}
    )
    """Base units for the ledger, by the name of the position and token; a missing price counts as
    one.
    """
    keeps_value: Callable[[StepInput, AssetDrift, Value], bool] = lambda step, drift, min_value: (
        False
    )
    """True for at least this value of an asset, which an exit frees and sells."""
    unknown_reason: Callable[[StepInput], str] = lambda step: ""
    """Why the value of the account, which then counts nowhere, is unknown; empty if it is known."""
    baseline: Callable[[StepInput], MarginBaseline | None] = lambda step: None
    """Amounts of the account that the NAV record keeps to measure its later result; None if it is
    not counted.
    """
    result: Callable[[StepInput, Mapping[str, Price]], Value] = lambda step, prices: Fraction(0)
    """Result of the account since the recorded baseline, in numeraire base units."""


@dataclass(frozen=True, slots=True)
class LayerAnswers:
    """What a layer answers about a step; without an answer the step is as if it were off."""

    holdings: OutsideHoldings = OutsideHoldings()
    """What it holds outside the wallet."""
    place_name: Callable[[StepInput], str] = lambda step: ""
    """Where an asset may be that swaps cannot spend; empty if nowhere."""
    unspendable_raw: Callable[[StepInput], Mapping[str, int]] = lambda step: {}
    """Base units of the wallet by token that count but that no swap may spend; of an amount above
    the balance, the balance.
    """
    spenders: Callable[[StepInput], Mapping[str, str]] = lambda step: {}
    """Contracts that may hold an allowance of the wallet for the layer, with their roles."""
    valued_tokens: Callable[[Portfolio], Collection[str]] = lambda portfolio: ()
    """Tokens that are needed to value what the layer has."""
    without_targets: Callable[[Portfolio, Collection[str]], Portfolio] = (
        lambda portfolio, exited_tokens: portfolio
    )
    """The portfolio in which the layer has no targets with these tokens, which an exit sells."""
    sale_taxes: Callable[[StepInput, Mapping[str, Price]], Mapping[str, Fraction]] = (
        lambda step, prices: {}
    )
    """Tax on the next unit sold of each token that has any, per unit of value."""
    held_weights: Callable[[StepInput], Mapping[str, Fraction]] = lambda step: {}
    """Signed weights of what the layer holds in markets, by market."""
    market_terms: Callable[[StepInput, Value], MarketGrowthInputs | None] = (
        lambda step, spot_value: None
    )
    """Data for the growth of capital in markets, given the value of the spot portfolio; None if
    they are unknown.
    """
    gas_price_limit_wei: Callable[[StepInput, Plan, int | None], int | None] = (
        lambda step, plan, limit_wei: limit_wei
    )
    """Largest gas price of a plan, wei, in place of that of other plans; None: unlimited."""


LAYERS: tuple[LayerAnswers, ...] = (
    LayerAnswers(
        holdings=OutsideHoldings(
            pools.POSITIONS_PLACE,
            liquidity.holdings,
            ledger_raw=liquidity.holdings_by_place,
            keeps_value=pools.pools_hold,
        ),
        place_name=pools.place_name,
        spenders=pools.spenders,
        valued_tokens=pools.pooled_tokens,
        without_targets=pools.without_targets,
    ),
    LayerAnswers(
        holdings=OutsideHoldings(
            MARGIN_PLACE,
            lambda step, _: exposure.margin_holdings_in_weights(step),
            unweighted_raw=exposure.margin_holdings_outside_weights,
            unknown_reason=exposure.unknown_margin_reason,
            baseline=exposure.margin_baseline,
            result=exposure.margin_result,
        ),
        place_name=futures.place_name,
        spenders=futures.spenders,
        held_weights=targets.held_weights,
        market_terms=exposure.market_terms,
        gas_price_limit_wei=futures.gas_price_limit_wei,
    ),
    LayerAnswers(sale_taxes=marginal_sale_taxes),
)
"""Answers of each layer, in the order in which the core adds them up."""


def raw_by_place_outside(
    step: StepInput, prices: Mapping[str, Price], skipped_places: Collection[str] = ()
) -> dict[str, Mapping[str, int]]:
    """Return the base units by token that weights count in each place outside the wallet, but those
    `skipped_places`. Raises Refused if something is unknown.
    """
    return {
        layer.holdings.place: layer.holdings.raw_by_token(step, prices)
        for layer in LAYERS
        if layer.holdings.place and layer.holdings.place not in skipped_places
    }


def raw_outside_wallet(
    step: StepInput, prices: Mapping[str, Price], skipped_places: Collection[str] = ()
) -> dict[str, int]:
    """Return the base units by token that weights count in all these places together."""
    return _summed_by_key(raw_by_place_outside(step, prices, skipped_places).values())


def unweighted_raw(step: StepInput, skipped_places: Collection[str] = ()) -> dict[str, int]:
    """Return the base units by token outside the wallet, but in `skipped_places`, that count in no
    weight.
    """
    return _summed_by_key(
        layer.holdings.unweighted_raw(step)
        for layer in LAYERS
        if layer.holdings.place not in skipped_places
    )


def _summed_by_key(amounts_to_sum: Iterable[Mapping[str, Amount]]) -> dict[str, Amount]:
    sum_by_key: dict[str, Amount] = {}
    for amount_by_key in amounts_to_sum:
        for key, amount in amount_by_key.items():
            sum_by_key[key] = sum_by_key[key] + amount if key in sum_by_key else amount
    return sum_by_key


def unspendable_raw(step: StepInput) -> dict[str, int]:
    """Return the base units of the wallet by token that no swap may spend."""
    return _summed_by_key(layer.unspendable_raw(step) for layer in LAYERS)


def sale_taxes(step: StepInput, prices: Mapping[str, Price]) -> dict[str, Fraction]:
    """Return the tax on the next unit sold of each token that has any, per unit of value."""
    return _summed_by_key(layer.sale_taxes(step, prices) for layer in LAYERS)


def value_outside_wallet(
    step: StepInput, prices: Mapping[str, Price], skipped_places: Collection[str] = ()
) -> Value:
    """Return the value outside the wallet, but in `skipped_places`; zero without a price. Raises
    Refused if something is unknown.
    """
    raw_by_token = _summed_by_key(
        (
            raw_outside_wallet(step, prices, skipped_places),
            unweighted_raw(step, skipped_places),
        )
    )
    return sum(
        (raw * prices.get(token, Fraction(0)) for token, raw in raw_by_token.items()), Fraction(0)
    )


def unknown_value_reason(step: StepInput) -> str:
    """Return why the value of an account outside the wallet is unknown; empty if all are known."""
    reasons = (layer.holdings.unknown_reason(step) for layer in LAYERS)
    return next((reason for reason in reasons if reason), "")


def account_baseline(step: StepInput) -> MarginBaseline | None:
    """Return the baseline of the account outside the wallet; None without one that counts."""
    baselines = (layer.holdings.baseline(step) for layer in LAYERS)
    return next((baseline for baseline in baselines if baseline is not None), None)


def account_result(step: StepInput, prices: Mapping[str, Price]) -> Value:
    """Return the result of accounts outside the wallet since the recorded baseline."""
    return sum((layer.holdings.result(step, prices) for layer in LAYERS), Fraction(0))


def market_terms(step: StepInput, spot_value: Value) -> MarketGrowthInputs | None:
    """Return the data for the growth of capital in markets; None without any."""
    layer_terms = (layer.market_terms(step, spot_value) for layer in LAYERS)
    return next((terms for terms in layer_terms if terms is not None), None)


def held_weights(step: StepInput) -> dict[str, Fraction]:
    """Return the signed weights of what layers hold in markets, by market."""
    return _summed_by_key(layer.held_weights(step) for layer in LAYERS)


def gas_price_limit_wei(step: StepInput, plan: Plan) -> int | None:
    """Return the largest gas price of a plan, wei; None: unlimited."""
    limit_wei = step.limits.gas_price_wei
    for layer in LAYERS:
        limit_wei = layer.gas_price_limit_wei(step, plan, limit_wei)
    return limit_wei
