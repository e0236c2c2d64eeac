"""How much may still be paid out today, and what stays for what the owner has set aside."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.model import Asset, Claim, Parts, Payment, StepInput
from agent.policy import aside, coin, words
from agent.reference import reference_prices
from agent.units import NATIVE, UINT256_MAX, Price, Value, decimal_text, floor_int


def price_of(step: StepInput, token: str) -> Price | None:
    """Reference price of a token, numeraire base units per base unit; the native coin is worth its wrapped token."""
    found = reference_prices(step).prices.get(step.portfolio.wrapped_native if token == NATIVE else token)
    return None if found is None or found.price <= 0 else found.price


def left(step: StepInput) -> Value | None:
    """What limits.payout_per_day leaves of the last 24 h of chain time, numeraire base units; None while the limit is off."""
    limit = step.limits.payout_per_day
    return None if limit is None else max(Fraction(0), limit - step.history.outflow_24h)


def most_raw(step: StepInput, token: str) -> int:
    """The same in base units of a token, rounded down: nothing without a price, or while the last 24 h cannot be told."""
    room, price = left(step), price_of(step, token)
    if room is None:
        return UINT256_MAX
    return 0 if price is None or step.history.unknown else floor_int(room / price)


def set_aside(step: StepInput) -> StepInput:
    """The step in which open withdrawals are reserves of their assets: targets do not touch them."""
    return _reserved(step, step.history.claims)


def claimed(step: StepInput, more: tuple[Claim, ...]) -> StepInput:
    """The same with claims that are not written down yet; those of the history are reserves already."""
    history = replace(step.history, claims=(*step.history.claims, *more))
    return _reserved(replace(step, history=history), more)


def kept_back(step: StepInput) -> StepInput:
    """The step in which rises that hold something back are reserves of their assets: a withdrawal takes what was there before, and what
    is left alone above portfolio.max_live_value.

    No more than there is of each, without what is set aside for withdrawals already.
    """
    step = aside.given_back(step)
    came: dict[str, int] = {}
    for flow in step.history.flows:
        if flow.holds and flow.delta_raw > 0:
            token = step.portfolio.wrapped_native if flow.token == NATIVE else flow.token
            came[token] = came.get(token, 0) + flow.delta_raw
    if not came:
        return step
    held = coin.held(step)

    def kept(asset: Asset) -> Asset:
        token = asset.token.address
        claimed = sum(claim.payment.raw for claim in step.history.claims if claim.payment.token == token)
        there = held.get(token, 0) - coin.kept_raw(step, asset) + claimed
        return replace(asset, reserve_raw=asset.reserve_raw + max(0, min(came.get(token, 0), there)))

    return replace(step, portfolio=replace(step.portfolio, assets=tuple(map(kept, step.portfolio.assets))))


def _reserved(step: StepInput, claims: tuple[Claim, ...]) -> StepInput:
    if not claims:
        return step
    kept: dict[str, int] = {}
    for claim in claims:
        kept[claim.payment.token] = kept.get(claim.payment.token, 0) + claim.payment.raw
    assets = tuple(replace(asset, reserve_raw=asset.reserve_raw + kept.get(asset.token.address, 0)) for asset in step.portfolio.assets)
    return replace(step, portfolio=replace(step.portfolio, assets=assets))


def lacking(step: StepInput, token: str) -> int:
    """Base units of an asset that its reserve, what is set aside among it, still lacks; zero where it is filled."""
    asset = next((one for one in step.portfolio.assets if one.token.address == token), None)
    return 0 if asset is None else max(0, coin.kept_raw(step, asset) - coin.held(step).get(token, 0))


def unfinished(step: StepInput) -> str:
    """Why nothing is traded while a withdrawal waits for more than there is; empty when there is enough of everything set aside."""
    for claim in step.history.claims:
        short, label = lacking(step, claim.payment.token), step.portfolio.token(claim.payment.token).label
        if (parts := claim.parts) is not None and goes_on(step, parts):
            lacks = f"{amount(step, Payment(claim.payment.token, short))} {label} lack" if short else "all is there, to be paid"
            number = counted(step, parts, claim.payment.token).done + 1
            told = f"part {number} of about {max(parts.count, number)} next at {words.moment(parts.next_s)} by"
            return (
                f"withdrawal {claim.request}: {lacks}; {told if short else 'the next look of'} trimtab run --send; "
                f"trimtab withdraw --release {claim.request} takes it back"
            )
        if short > 0:
            return (
                f"withdrawal {claim.request} lacks {amount(step, Payment(claim.payment.token, short))} {label}: "
                f"trimtab withdraw --resume {claim.request} goes on with it, --release {claim.request} takes it back"
            )
    return ""


def goes_on(step: StepInput, parts: Parts) -> bool:
    """Whether a run goes on with a withdrawal in parts; after its time its owner has to."""
    return step.snapshot.head.timestamp_s < parts.until_s


def next_part_s(step: StepInput) -> int | None:
    """Chain time from which a run goes on with an open withdrawal in parts; None where there is none."""
    return next((one.parts.next_s for one in step.history.claims if one.parts is not None and goes_on(step, one.parts)), None)


def parts_done(step: StepInput, token: str) -> int:
    """How many parts of the withdrawal that lacks `token` have been raised."""
    found = (claim.parts for claim in step.history.claims if claim.payment.token == token and claim.parts is not None)
    return next((counted(step, parts, token).done for parts in found), 0)


def counted(step: StepInput, parts: Parts, token: str) -> Parts:
    """The parts with the one under way among those done, where less of `token` lacks than when it began: its process ended too soon."""
    if lacking(step, token) >= parts.lacked_raw:
        return parts
    return replace(parts, done=parts.done + 1, lacked_raw=0)


def amount(step: StepInput, payment: Payment) -> str:
    """How much, in whole coins."""
    return decimal_text(payment.raw, step.portfolio.token(payment.token).decimals)
