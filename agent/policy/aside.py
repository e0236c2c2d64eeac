"""What came unexplained and takes the portfolio above portfolio.max_live_value: it is left alone, and the rest goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import PORTFOLIO, Flow, StepInput, Verdict
from agent.policy import coin, order_moves, stuck
from agent.policy.drift import drift, total
from agent.reference import reference_prices
from agent.units import NATIVE, Price, ceil_int, decimal_text, value_text

ABOVE = "it came unexplained, above portfolio.max_live_value; trimtab flows confirm, then withdraw it or raise that"
NOT_ASKED = "it came unexplained and is no part of this investment; trimtab invest or trimtab flows confirm later"


def set_aside(step: StepInput) -> StepInput:
    """The step in which unexplained rises are a reserve, named by `aside`, where the whole is worth more than the limit, and those that
    were one before; else the same. So a whole that wobbles around the limit neither buys nor sells with a gift.

    Nothing of them is managed, and guards judge the rest. What an exit was given back is taken out again. Without a price: the same.
    """
    if step.aside:
        return step
    if step.aside_raw:
        return left_alone(step, dict(step.aside_raw), ABOVE)
    limit, rises = step.limits.max_live_value, rises_of(step)
    if limit is None or not any(rises.values()):
        return step
    prices = _prices(step)
    try:
        standing = drift(step, prices)
    except Refused:
        return step
    if total(standing) > limit:
        return left_alone(step, _with_sold(step, rises, prices), ABOVE)
    before = _assets_of(step, step.history.left_rises)
    return left_alone(step, {token: min(raw, rises.get(token, 0)) for token, raw in before.items()}, ABOVE)


def left_alone(step: StepInput, raws: Mapping[str, int], why: str) -> StepInput:
    """The step in which so much of each asset (base units by token) is a reserve, no more than is free; `aside` says so with `why`."""
    portfolio, held = step.portfolio, coin.held(step)
    left = {}
    for asset in portfolio.assets:
        free = held.get(asset.token.address, 0) - coin.kept_raw(step, asset)
        left[asset.token.address] = max(0, min(free, raws.get(asset.token.address, 0)))
    if not any(left.values()):
        return step
    assets = tuple(replace(asset, reserve_raw=asset.reserve_raw + left[asset.token.address]) for asset in portfolio.assets)
    told = ", ".join(
        f"{decimal_text(raw, portfolio.token(token).decimals)} {portfolio.token(token).label}" for token, raw in left.items() if raw
    )
    kept = tuple((token, raw) for token, raw in left.items() if raw)
    return replace(step, portfolio=replace(portfolio, assets=assets), aside=f"{told} left alone: {why}", aside_raw=kept)


def given_back(step: StepInput) -> StepInput:
    """The step in which it is no reserve: an exit, a payment and the end take everything. What is sealed stays sealed."""
    if not step.aside:
        return step
    raws, shut = dict(step.aside_raw), stuck.kept(step)
    assets = tuple(
        asset if asset.token.address in shut else replace(asset, reserve_raw=max(0, asset.reserve_raw - raws.get(asset.token.address, 0)))
        for asset in step.portfolio.assets
    )
    return replace(step, portfolio=replace(step.portfolio, assets=assets), aside="")


def beside(step: StepInput, reason: str) -> str:
    """The reason, with what is left alone."""
    return f"{reason}; {step.aside}" if step.aside else reason


def rises_of(step: StepInput) -> dict[str, int]:
    """Base units of each asset that rose and nobody has explained; native coin counts as its wrapped token where it is an asset."""
    return _assets_of(step, step.history.rises)


def _assets_of(step: StepInput, found: tuple[tuple[str, int], ...]) -> dict[str, int]:
    rises = dict(found)
    if coin.is_native(step.portfolio):
        wrapped = step.portfolio.wrapped_native
        rises[wrapped] = rises.get(wrapped, 0) + rises.get(NATIVE, 0)
    return rises


def _with_sold(step: StepInput, rises: Mapping[str, int], prices: Mapping[str, Price]) -> dict[str, int]:
    """The rises, with what the wallet no longer holds of them as numeraire, at the prices of now: an exit sold it."""
    held, home = coin.held(step), step.portfolio.numeraire.address
    gone = ((token, raw - held[token]) for token, raw in rises.items() if token in held and token in prices and token != home)
    sold = sum((raw * prices[token] for token, raw in gone if raw > 0), Fraction(0))
    return {**rises, home: rises.get(home, 0) + ceil_int(sold)}


def everything_left(step: StepInput) -> tuple[tuple[str, int, str], ...]:
    """(token, base units, why) of all that is no part of the portfolio now, in its order; what is in quarantine or stuck is told there."""
    held, shut, found = coin.held(step), stuck.kept(step), []
    rises = {} if not step.aside else dict(step.aside_raw)
    for asset in step.portfolio.assets:
        token = asset.token.address
        if token in shut:
            continue
        claimed = [claim for claim in step.history.claims if claim.payment.token == token]
        free = held.get(token, 0)
        out = order_moves.out_of(step.history.orders, token) or order_moves.out_of(step.history.orders, PORTFOLIO)
        rest = asset.reserve_raw - rises.get(token, 0) - sum(claim.payment.raw for claim in claimed)
        why = "dust that an order leaves, and the reserve" if out is not None and asset.target_bps == 0 else "reserve of the config"
        reasons = [(claim.payment.raw, f"withdrawal {claim.request}") for claim in claimed]
        reasons += [
            (rises.get(token, 0), ABOVE),
            (rest, why),
            (coin.floor_wei(step) if asset.native else 0, "limits.native_floor, for gas"),
        ]
        for raw, told in reasons:
            if (kept := min(raw, free)) > 0:
                found.append((token, kept, told))
                free -= kept
    return tuple(found)


def fitting(step: StepInput, came: Sequence[Flow]) -> tuple[Flow, ...]:
    """Of these rises, oldest first, those that its owner may invest below portfolio.max_live_value: the oldest first, each whole,
    so that what comes later takes no room from a deposit of before.

    Raises Refused where not one of them fits: then it is his own ceiling.
    """
    limit, whole = step.limits.max_live_value, given_back(step)
    if limit is None or not came:
        return tuple(came)
    prices = _prices(whole)
    try:
        standing = drift(whole, prices)
    except Refused:
        return tuple(came)  # unknown: planning says why it refuses
    free = {one.token: one.investable_raw for one in standing}
    risen = _with_sold(whole, rises_of(whole), prices)
    rose = sum((min(free.get(token, 0), max(0, raw)) * prices[token] for token, raw in risen.items() if token in free), Fraction(0))
    room, taken = limit - (total(standing) - rose), list[Flow]()
    for flow in came:
        if (value := _value(whole, flow, prices)) <= room:
            taken.append(flow)
            room -= value
    if not taken:
        numeraire = step.portfolio.numeraire
        managed, most = (f"{value_text(one, numeraire.decimals, 2)} {numeraire.label}" for one in (total(standing) - rose, limit))
        smallest = min(_value(whole, flow, prices) for flow in came)
        came_words = f"{value_text(smallest, numeraire.decimals, 2)} {numeraire.label}"
        raise Refused(
            f"{came_words} invested on top of {managed} would be above portfolio.max_live_value of {most}",
            (Verdict("max_live_value", f"{managed} and {came_words} more", f"at most {most}", False),),
            "raise it by trimtab edit --set portfolio.max_live_value=AMOUNT, or send less",
        )
    return tuple(taken)


def _value(step: StepInput, flow: Flow, prices: Mapping[str, Price]) -> Fraction:
    return flow.delta_raw * prices[step.portfolio.wrapped_native if flow.token == NATIVE else flow.token]


def _prices(step: StepInput) -> dict[str, Price]:
    return {token: found.price for token, found in reference_prices(step).prices.items()}
