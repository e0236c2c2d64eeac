"""What came unexplained and takes the portfolio above portfolio.max_live_value: it is left alone, and the rest is rebalanced."""

from __future__ import annotations

from dataclasses import replace

from agent.errors import Refused
from agent.model import StepInput
from agent.policy import coin
from agent.policy.drift import drift, total
from agent.reference import reference_prices
from agent.units import NATIVE, decimal_text


def set_aside(step: StepInput) -> StepInput:
    """The step in which all that rose and nobody has explained is a reserve, and `aside` says so, where the whole is worth more than
    the limit; else the same. Nothing of it is managed, and the guard judges what is left. Where a price is missing nothing changes, nor
    with strategies: which of them would it belong to?
    """
    limit, rises = step.limits.max_live_value, dict(step.history.rises)
    if limit is None or step.aside or step.split is not None or not any(rises.values()):
        return step
    try:
        standing = drift(step, {token: found.price for token, found in reference_prices(step).prices.items()})
    except Refused:
        return step
    if total(standing) <= limit:
        return step
    if coin.is_native(step.portfolio):
        wrapped = step.portfolio.wrapped_native
        rises[wrapped] = rises.get(wrapped, 0) + rises.get(NATIVE, 0)
    left = {one.token: min(one.investable_raw, max(0, rises.get(one.token, 0))) for one in standing}
    if not any(left.values()):
        return step
    portfolio = step.portfolio
    assets = tuple(replace(asset, reserve_raw=asset.reserve_raw + left[asset.token.address]) for asset in portfolio.assets)
    told = ", ".join(
        f"{decimal_text(raw, portfolio.token(token).decimals)} {portfolio.token(token).label}" for token, raw in left.items() if raw
    )
    why = f"{told} left alone: it came unexplained, above portfolio.max_live_value; trimtab flows confirm, then withdraw it or raise that"
    return replace(step, portfolio=replace(portfolio, assets=assets), aside=why)
