"""Alerts about drift and reviews: one message a cause, with what would be traded, its cost and the command that does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import Alert, AlertKind, AssetDrift, Plan, Portfolio
from agent.policy import max_weight
from agent.policy.drift import alert_prices
from agent.policy.words import band, percent
from agent.units import BPS, Price, decimal_text, price_text

MOVED = Fraction(1, 100)
"""An asset whose ratio of weight to target is within so much of the median did not move: others did."""
MOST_NAMED = 3
OPEN = (OutcomeKind.HOLD, OutcomeKind.PLANNED, OutcomeKind.DECLINED)
"""Ends that leave the drift as it was and say nothing of it themselves."""


@dataclass(frozen=True, slots=True)
class Standing:
    """An asset between the prices at which it leaves its band when it alone moves; None where no price does that."""

    drift: AssetDrift
    low: Price | None
    high: Price | None

    @property
    def side(self) -> str:
        """Where it stands: below or above its band, or inside; no band of some width has no sides."""
        if self.drift.band_low_bps >= self.drift.band_high_bps or not self.drift.outside:
            return "inside"
        return "below" if self.drift.share * BPS < self.drift.band_low_bps else "above"


def standings(drifts: tuple[AssetDrift, ...]) -> tuple[Standing, ...]:
    """Every asset with its alert prices, those of agent/policy/drift.py."""
    prices = alert_prices(drifts)
    return tuple(Standing(drift, *prices[drift.token]) for drift in drifts)


def causes(found: Sequence[Standing], numeraire: str) -> tuple[Standing, ...]:
    """Assets outside their bands that moved themselves, widest first; all that are outside where none stands out. Never the numeraire.

    Between two rebalances units stay, so that weight over target moves with an asset's price against the portfolio. What stays at
    the median ratio did not move: it left its band because another asset did.
    """
    outside = [one for one in found if one.side != "inside" and one.drift.token != numeraire]
    ratios = sorted(_ratio(one) for one in found if one.drift.target_bps > 0)
    if not ratios:
        return tuple(outside)
    median = (ratios[len(ratios) // 2] + ratios[(len(ratios) - 1) // 2]) / 2
    moved = [one for one in outside if one.drift.target_bps == 0 or abs(_ratio(one) - median) > MOVED * median]
    return tuple(sorted(moved or outside, key=lambda one: (-abs(one.drift.drift_bps), one.drift.token)))


def drifted(found: Outcome) -> Iterator[Alert]:
    """One alert for what left its band, else one for a review. A rebalance, a refusal or a halt speaks for itself."""
    if found.kind not in OPEN:
        return
    portfolio = found.step_input.portfolio
    left = causes(standings(found.decided.drifts), portfolio.numeraire.address)
    trades = traded(found.plan, portfolio)
    planned = f" Would {trades}. trimtab rebalance --send does it." if trades else ""
    if left:
        named = "; ".join(_standing(one, portfolio) for one in left[:MOST_NAMED])
        more = "" if len(left) <= MOST_NAMED else f"; and {len(left) - MOST_NAMED} more"
        key = ",".join(f"{one.drift.token}:{one.side}" for one in sorted(left[:MOST_NAMED], key=lambda one: one.drift.token))
        yield Alert(AlertKind.PRICE, f"price:{key}", f"{named}{more}.{planned or ' trimtab plan shows what would be traded.'}", True)
    elif found.kind is OutcomeKind.PLANNED:
        yield Alert(AlertKind.REVIEW, "planned", f"A rebalance is due: {found.reason}.{planned}", True)
    elif over := max_weight.over(found.decided.drifts):
        named = "; ".join(
            f"{portfolio.token(one.token).label} is {percent(one.share)} of the portfolio, limits.max_weight {(one.max_bps or 0) / 100:g} %"
            for one in over
        )
        key = ",".join(sorted(one.token for one in over))
        yield Alert(AlertKind.PRICE, f"max_weight:{key}", f"{named}; it is not brought down: {found.reason}. trimtab status", True)
    elif found.decided.reviews:
        yield Alert(AlertKind.REVIEW, "review", f"Reviewed, nothing to trade: {found.reason}. trimtab status")


def traded(plan: Plan | None, portfolio: Portfolio, tense: tuple[str, str] = ("sell", "buy")) -> str:
    """Every asset but the numeraire, and the cost: "sell 0.5 WETH, buy 0.01 WBTC; cost 2.1 USDC (5 bps)". Empty without swaps."""
    if plan is None or not plan.legs:
        return ""
    moves: dict[str, int] = {}
    for leg in plan.legs:
        moves[leg.token_in] = moves.get(leg.token_in, 0) - leg.amount_in_raw
        moves[leg.token_out] = moves.get(leg.token_out, 0) + leg.amount_out_raw
    numeraire, words = portfolio.numeraire, []
    for asset in portfolio.assets:
        raw = moves.get(asset.token.address, 0)
        if raw and asset.token.address != numeraire.address:
            words.append(f"{tense[raw > 0]} {_amount(abs(raw), asset.token.decimals)} {asset.token.label}")
    share = f" ({decimal_text(round(plan.cost.total / plan.turnover * BPS * 10), 1)} bps)" if plan.turnover > 0 else ""
    return f"{', '.join(words)}; cost {_amount(round(plan.cost.total), numeraire.decimals)} {numeraire.label}{share}"


def _ratio(one: Standing) -> Fraction:
    return one.drift.share * BPS / one.drift.target_bps


def _standing(one: Standing, portfolio: Portfolio) -> str:
    drift, numeraire = one.drift, portfolio.numeraire
    limit = one.low if one.side == "below" else one.high
    token = portfolio.token(drift.token)
    text = (
        f"{token.label} is {one.side} its band: {percent(drift.share)} of the portfolio, band {band(drift)}, "
        f"price {price_text(drift.price, token.decimals, numeraire.decimals, 6)} {numeraire.label}"
    )
    if limit is not None:
        text += f", alert-{'low' if one.side == 'below' else 'high'} {price_text(limit, token.decimals, numeraire.decimals, 6)}"
    return text


def _amount(raw: int, decimals: int) -> str:
    """Rounded down to six places."""
    cut = max(0, decimals - 6)
    return decimal_text(raw // 10**cut, decimals - cut)
