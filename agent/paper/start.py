"""What a paper wallet begins with: the chain's balances, so much of each token, or a value spread over the targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from agent.errors import ConfigError
from agent.model import Holding, Paper, Snapshot, StepInput
from agent.policy.flows import balances_of
from agent.reference import reference_prices
from agent.units import BPS, floor_int


def as_the_wallet(snapshot: Snapshot, tokens: Sequence[str]) -> Paper:
    """Balances of `tokens`, allowances and native coin of the real wallet now. Raises ConfigError for a balance that cannot be read."""
    sure = balances_of(snapshot)
    if unread := [token for token in tokens if token not in sure]:
        raise ConfigError(f"the balance of {unread[0]} cannot be read now", "try again, or begin with --start")
    balances = tuple(Holding(token, sure[token]) for token in sorted(tokens))
    return Paper(balances, snapshot.allowances, snapshot.native_wei, snapshot.nonce_latest, snapshot.head.number)


def with_amounts(snapshot: Snapshot, raw: Mapping[str, int], native_wei: int) -> Paper:
    """So many base units by token, and so much native coin."""
    return Paper(tuple(Holding(token, raw[token]) for token in sorted(raw)), (), native_wei, 0, snapshot.head.number)


def with_value(step: StepInput, value: Fraction, native_wei: int) -> Paper:
    """`value` in whole coins of the numeraire, spread over the targets at reference prices and rounded down; reserves beside it.

    Raises ConfigError for an asset that has no price now.
    """
    portfolio, found = step.portfolio, reference_prices(step)
    whole = value * 10**portfolio.numeraire.decimals
    raw = {}
    for asset in portfolio.assets:
        price = found.prices.get(asset.token.address)
        if price is None and asset.target_bps:
            raise ConfigError(f"--value: {asset.token.label} has no reference price now", "try again, or begin with --start")
        raw[asset.token.address] = asset.reserve_raw + (0 if price is None else floor_int(whole * asset.target_bps / BPS / price.price))
    return with_amounts(step.snapshot, raw, native_wei)
