"""Target notional of each market, drift from it, and triggers of orders. Funding that a position is
expected to pay over the funding horizon is added to its notional, so that it counts as overweight
and is trimmed; funding to be received does not count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

from agent.layers.futures.policy.exposure import funding_cost_share
from agent.layers.futures.state import futures_policy, margin_account
from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw, size_for_notional_raw
from agent.margin.state import (
    LimitCheck,
    after_fill_at_bound,
    after_fill_at_mark,
    breaches,
    margin_state,
    oversized_positions,
)
from agent.model import (
    FuturesLimits,
    FuturesPolicy,
    MarginAccount,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
    Position,
    StepInput,
)
from agent.units import BPS, DAY_S, ceil_int, format_bps, sign_of


class FuturesTrigger(Enum):
    """Cause of a futures action. Reductions come before rebalances."""

    LEVERAGE = "leverage"
    UTILISATION = "utilisation"
    SPOT_MULTIPLE = "spot_multiple"
    POSITION = "max_position"
    FUNDING = "funding"
    DRIFT = "drift"
    LEVERAGE_DRIFT = "leverage_drift"
    SCHEDULE = "schedule"


REDUCING_TRIGGERS = (
    FuturesTrigger.LEVERAGE,
    FuturesTrigger.UTILISATION,
    FuturesTrigger.SPOT_MULTIPLE,
)
"""Triggers of reductions of every position that a limit requires."""
LIQUIDATION = "liquidation"
"""Trigger of emergency orders."""
DEPOSIT_TRIGGERS = (
    FuturesTrigger.LEVERAGE.value,
    FuturesTrigger.UTILISATION.value,
    LIQUIDATION,
)
"""Triggers of deposits that need no prices of the spot portfolio."""
LIMIT_TRIGGERS = (*REDUCING_TRIGGERS, FuturesTrigger.POSITION)
"""Triggers of all reductions that a limit requires."""
DRIFT_REASONS = {
    FuturesTrigger.FUNDING: "expected funding puts a position above its band",
    FuturesTrigger.DRIFT: "a weight of the notional has left its band",
    FuturesTrigger.LEVERAGE_DRIFT: "the leverage has left the band of its target",
    FuturesTrigger.SCHEDULE: "a scheduled review is due",
}
"""Reasons for orders that no limit requires."""
DUST_DIVISOR = 10
"""Divisor of the band, a share of the target notional: smaller changes are not worth an order."""
SCHEDULE_BAND_BPS = 500
"""Band of the template: for dust that of a schedule without one, for funding that of every policy
without one.
"""


@dataclass(frozen=True, slots=True)
class NotionalDrift:
    """A market's signed notional and its target, in quote base units, with its share of the held
    gross notional and its target weight. If nothing is held, the share is that of the target gross
    notional. `funding_share` is the share of notional that the position, or one at its target, pays
    over the funding horizon.
    """

    market: str
    symbol: str
    notional: Fraction
    target_notional: Fraction
    share: Fraction
    target_share: Fraction
    funding_share: Fraction

    @property
    def share_drift(self) -> Fraction:
        """Share above target; negative below."""
        return self.share - self.target_share

    @property
    def funded_share_drift(self) -> Fraction:
        """Share above target, with expected funding added to the held share."""
        return self.share * (1 + self.funding_share) - self.target_share

    @property
    def funded_target_notional(self) -> Fraction:
        """Notional that, with its expected funding, is at its target."""
        return self.target_notional / (1 + self.funding_share)


def without_hedges(account: MarginAccount, policy: FuturesPolicy) -> MarginAccount:
    """Return the account without its open hedges, since targets apply to the other positions."""
    for hedge in policy.hedges:
        size_raw = account.size_raw(hedge.market)
        positions = tuple(
            position for position in account.positions if position.market != hedge.market
        )
        if unhedged_size_raw := size_raw - hedge.size_raw:
            positions = (*positions, Position(hedge.market, unhedged_size_raw, 0))
        account = replace(account, positions=positions)
    return account


def target_gross_notional(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Return the target gross notional: account value times the target leverage; zero for an
    account without value.
    """
    return Fraction(max(0, margin.account_value_raw(account)) * policy.leverage_bps, BPS)


def held_weights(step: StepInput) -> dict[str, Fraction]:
    """Return the signed shares of the target notional that are held, by market; empty without a
    known account.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if (
        account is None
        or policy is None
        or not (target_notional := target_gross_notional(account, policy))
    ):
        return {}
    return {
        drift.market: drift.notional / target_notional for drift in notional_drifts(account, policy)
    }


def notional_drifts(account: MarginAccount, policy: FuturesPolicy) -> tuple[NotionalDrift, ...]:
    """Return the drift of every market that has a target or a position, in the order of markets.

    Shares refer to the held gross notional, or to the target if nothing is held.
    """
    weight_bps_by_market = {target.market: target.weight_bps for target in policy.targets}
    active_weight_bps_by_market = weight_bps_by_market if policy.leverage_bps else {}
    target_notional = target_gross_notional(account, policy)
    account = without_hedges(account, policy)
    gross_notional = Fraction(margin.gross_notional_raw(account)) or target_notional
    drifts = []
    for market in account.markets:
        target_share = Fraction(active_weight_bps_by_market.get(market.market, 0), BPS)
        notional = Fraction(margin.position_value_raw(market, account.size_raw(market.market)))
        if not target_share and not notional:
            continue
        share = notional / gross_notional if gross_notional else Fraction(0)
        market_target_notional = target_notional * target_share
        funding_share = funding_cost_share(
            market, notional or market_target_notional, policy.funding_horizon_s
        )
        drifts.append(
            NotionalDrift(
                market.market,
                market.symbol,
                notional,
                market_target_notional,
                share,
                target_share,
                funding_share,
            )
        )
    return tuple(drifts)


def due_triggers(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None
) -> tuple[FuturesTrigger, ...]:
    """Return the triggers that require an order, by priority; empty if there are none. Triggers
    that wait for the user (`policy.manual_triggers`) are excluded.
    """
    triggers = fired_triggers(account, policy, spot_value)
    return tuple(trigger for trigger in triggers if trigger.value not in policy.manual_triggers)


def fired_triggers(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None
) -> tuple[FuturesTrigger, ...]:
    """Return all triggers that fire, by priority, including those that wait for the user. The spot
    multiple does not trigger while the spot value is unknown (None).
    """
    breached_limits = {breach.limit_name for breach in known_breaches(account, policy, spot_value)}
    triggers = [
        trigger
        for trigger, limit_names in (
            (FuturesTrigger.LEVERAGE, {"max_leverage", "stress_move"}),
            (FuturesTrigger.UTILISATION, {"max_utilisation"}),
            (FuturesTrigger.SPOT_MULTIPLE, {"spot_multiple"}),
        )
        if breached_limits & limit_names
    ]
    if position_trims(account, policy):
        triggers.append(FuturesTrigger.POSITION)
    band_share = Fraction(policy.band_bps, BPS)
    if funding_trims(account, policy):
        triggers.append(FuturesTrigger.FUNDING)
    # With a funding horizon a position may stay off its target, because funding forbids the order.
    may_order = not policy.funding_horizon_s or bool(sizes_to_target(account, policy))
    drifts = notional_drifts(account, policy)
    if band_share and may_order and any(abs(drift.share_drift) > band_share for drift in drifts):
        triggers.append(FuturesTrigger.DRIFT)
    if may_order and _leverage_drifted(account, policy, spot_value):
        triggers.append(FuturesTrigger.LEVERAGE_DRIFT)
    if policy.is_review_due and sizes_worth_an_order(account, policy):
        triggers.append(FuturesTrigger.SCHEDULE)
    return tuple(triggers)


def known_breaches(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None
) -> list[LimitCheck]:
    """Return every limit that the account is known to breach and that requires an action."""
    state = margin_state(account, policy.limits, policy.leverage_bps)
    account_breaches = breaches(state, policy.limits, spot_value)
    ignored_limits = (
        {"max_utilisation"} if _is_far_from_liquidation(account, policy) else set[str]()
    )
    if spot_value is None:
        ignored_limits.add("spot_multiple")
    return [breach for breach in account_breaches if breach.limit_name not in ignored_limits]


def _is_far_from_liquidation(account: MarginAccount, policy: FuturesPolicy) -> bool:
    """True if the leverage is below its target and the account survives the stress move.
    Utilisation then requires no deposit and no sale; it still bounds openings.
    """
    leverage = margin.leverage(account)
    state = margin_state(account, policy.limits)
    is_below_target = leverage is not None and round(leverage * BPS) < policy.leverage_bps
    return is_below_target and bool(policy.limits.stress_move_bps) and state.survives_stress


def _leverage_drifted(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None
) -> bool:
    """True if the gross notional is outside the band of its target. The target is capped at the
    maximum of `spot_multiple`, so that this limit causes no drift.
    """
    spot_multiple_bps = policy.limits.spot_multiple_bps
    if not policy.leverage_band_bps or (spot_multiple_bps and spot_value is None):
        return False
    gross_notional = Fraction(margin.gross_notional_raw(without_hedges(account, policy)))
    target_notional = target_gross_notional(account, policy)
    if policy.funding_horizon_s:
        funded_notionals = (
            abs(drift.funded_target_notional) for drift in notional_drifts(account, policy)
        )
        target_notional = sum(funded_notionals, Fraction(0))
    if spot_multiple_bps and spot_value is not None:
        target_notional = min(target_notional, spot_value * spot_multiple_bps / BPS)
    return abs(gross_notional - target_notional) > target_notional * policy.leverage_band_bps / BPS


def sizes_to_target(account: MarginAccount, policy: FuturesPolicy) -> dict[str, int]:
    """Return the size of the order that brings each market to its target notional, in whole lots;
    markets without a change are skipped. Positions end at or below their target. Expected funding
    is deducted from a target, and a position that pays too much funding is not enlarged
    (`funding_notes`).
    """
    size_by_market = {}
    for drift in notional_drifts(account, policy):
        change_raw = _change_to_target_raw(account, policy, drift)
        if change_raw and not _funding_forbids(account, policy, drift, change_raw):
            size_by_market[drift.market] = change_raw
    return size_by_market


def sizes_worth_an_order(account: MarginAccount, policy: FuturesPolicy) -> dict[str, int]:
    """Return the sizes of `sizes_to_target` that are above the dust."""
    min_notional = dust_notional(account, policy)
    return {
        market: size_raw
        for market, size_raw in sizes_to_target(account, policy).items()
        if abs(size_raw) * account.market(market).mark > min_notional
    }


def dust_notional(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Return the notional up to which a change is not worth an order, in quote base units."""
    band_bps = policy.band_bps or (0 if policy.schedule is None else SCHEDULE_BAND_BPS)
    return target_gross_notional(account, policy) * band_bps / BPS / DUST_DIVISOR


def funding_notes(account: MarginAccount, policy: FuturesPolicy) -> tuple[str, ...]:
    """Return a note on each position outside its band that is not enlarged because of funding."""
    band_share = _funding_band_share(policy)
    forbidden_markets = sizes_forbidden_by_funding(account, policy).keys()
    return tuple(
        f"{drift.symbol} is not enlarged: it would pay {float(drift.funding_share) * 100:.2f} % of its"
        f" notional in funding over {policy.funding_horizon_s / DAY_S:g} days"
        for drift in notional_drifts(account, policy)
        if abs(drift.share_drift) > band_share and drift.market in forbidden_markets
    )


def sizes_forbidden_by_funding(account: MarginAccount, policy: FuturesPolicy) -> dict[str, int]:
    """Return the sizes of the orders, by market, that would lead to the targets but for their
    funding.
    """
    change_by_market = {
        drift.market: (drift, _change_to_target_raw(account, policy, drift))
        for drift in notional_drifts(account, policy)
    }
    return {
        market: change_raw
        for market, (drift, change_raw) in change_by_market.items()
        if _funding_forbids(account, policy, drift, change_raw)
    }


def _change_to_target_raw(
    account: MarginAccount, policy: FuturesPolicy, drift: NotionalDrift
) -> int:
    target_size_raw = size_for_notional_raw(
        account.market(drift.market), drift.funded_target_notional
    )
    return target_size_raw - without_hedges(account, policy).size_raw(drift.market)


def _funding_forbids(
    account: MarginAccount, policy: FuturesPolicy, drift: NotionalDrift, change_raw: int
) -> bool:
    """True if an order enlarges a position whose funding alone is above half of the band. Above the
    whole band it is trimmed; the difference is the hysteresis.
    """
    held_size_raw = without_hedges(account, policy).size_raw(drift.market)
    size_after_raw = held_size_raw + change_raw
    is_enlarged = size_after_raw * drift.target_notional > 0 and abs(size_after_raw) > abs(
        held_size_raw
    )
    funding_share = drift.funding_share * abs(drift.target_share)
    return is_enlarged and funding_share > _funding_band_share(policy) / 2


def _funding_band_share(policy: FuturesPolicy) -> Fraction:
    return Fraction(policy.band_bps or SCHEDULE_BAND_BPS, BPS)


def funding_trims(account: MarginAccount, policy: FuturesPolicy) -> dict[str, int]:
    """Return the sizes of the orders, by market, that trim positions beyond the band only because
    of funding to their funded targets, in whole lots; no order flips or enlarges a position. The
    band is the hysteresis: a trimmed position, with its funding, is at its target, so the rate has
    to rise by the whole band before it is trimmed again.
    """
    size_by_market = {}
    band_share = Fraction(policy.band_bps, BPS)
    band_notional = band_share * target_gross_notional(account, policy)
    for drift in notional_drifts(account, policy):
        market = account.market(drift.market)
        held_size_raw = without_hedges(account, policy).size_raw(drift.market)
        position_sign = sign_of(held_size_raw)
        if (
            not band_share
            or not held_size_raw
            or not position_sign * drift.share_drift
            <= band_share
            < position_sign * drift.funded_share_drift
        ):
            continue  # a share above its band without funding is drift
        if (
            position_sign * (drift.notional * (1 + drift.funding_share) - drift.target_notional)
            <= band_notional
        ):
            continue
        target_size_raw = size_for_notional_raw(market, drift.funded_target_notional)
        kept_size_raw = target_size_raw if target_size_raw * held_size_raw > 0 else 0
        if abs(kept_size_raw) < abs(held_size_raw):
            size_by_market[drift.market] = kept_size_raw - held_size_raw
    return size_by_market


def position_trims(account: MarginAccount, policy: FuturesPolicy) -> dict[str, int]:
    """Return the sizes of the orders, by market in whole lots, that trim each position above
    `max_position` to that share less the hysteresis. No position is trimmed below its target, and
    none that includes a hedge (`position_notes` names those).

    A position p beside others of notional r has the share p / max(p + r, target notional).
    """
    limits = policy.limits
    target_notional = target_gross_notional(account, policy)
    max_share = Fraction(limits.max_position_bps * (BPS - limits.hysteresis_bps), BPS**2)
    gross_notional = margin.gross_notional_raw(account)
    hedged_markets = {hedge.market for hedge in policy.hedges}
    weight_bps_by_market = {target.market: target.weight_bps for target in policy.targets}
    share_by_oversized_market = oversized_positions(account, limits, policy.leverage_bps)
    size_by_market = {}
    for position in account.positions:
        market = account.market(position.market)
        if position.market not in share_by_oversized_market or position.market in hedged_markets:
            continue
        other_notional = gross_notional - abs(margin.value_at_mark_raw(account, position))
        kept_notional = max(
            max_share * target_notional,
            max_share * other_notional / (1 - max_share) if max_share < 1 else Fraction(0),
        )
        weight_bps = weight_bps_by_market.get(position.market, 0)
        if weight_bps * position.size_raw > 0:
            kept_notional = max(kept_notional, target_notional * abs(weight_bps) / BPS)
        kept_size_raw = size_for_notional_raw(market, kept_notional)
        if kept_size_raw < abs(position.size_raw):
            size_by_market[position.market] = position.reduction_raw(
                abs(position.size_raw) - kept_size_raw
            )
    return size_by_market


def position_notes(account: MarginAccount, policy: FuturesPolicy) -> tuple[str, ...]:
    """Return a note on each position above `max_position` that is not trimmed."""
    trim_size_by_market = position_trims(account, policy)
    share_by_oversized_market = oversized_positions(account, policy.limits, policy.leverage_bps)
    hedged_markets = {hedge.market for hedge in policy.hedges}
    return tuple(
        f"{account.market(market).symbol} is {float(share) * 100:.2f} % of the notional, above"
        f" max_position of {format_bps(policy.limits.max_position_bps)}, and is not trimmed:"
        f" {'it includes a hedge' if market in hedged_markets else 'it is at its target'}"
        for market, share in share_by_oversized_market.items()
        if market not in trim_size_by_market
    )


def reduction_goal_notional(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None
) -> Fraction:
    """Return the gross notional at which a reduction ends. It is below each breached limit by the
    hysteresis, so that the next tick does not trigger again. It is also within every limit if all
    prices move against the positions by `slippage` before the fill.
    """
    limits = policy.limits
    gross_notional = Fraction(margin.gross_notional_raw(account))
    kept_shares = _kept_shares(account, policy, spot_value)
    if not kept_shares:
        return gross_notional
    hysteresis_factor = 1 - Fraction(limits.hysteresis_bps, BPS)
    account_after_move = margin.with_adverse_move(account, Fraction(limits.slippage_bps, BPS))
    allowed_shares = [hysteresis_factor * share for share in kept_shares] + _kept_shares(
        account_after_move, policy, spot_value
    )
    return gross_notional * max(Fraction(0), min(Fraction(1), *allowed_shares))


def _kept_shares(
    account: MarginAccount, policy: FuturesPolicy, spot_value: Fraction | None
) -> list[Fraction]:
    """Return, for each breached limit, the share of all positions that meets it. Margin and stress
    loss are proportional to the notional, so one factor also meets utilisation and the stress move.
    """
    limits = policy.limits
    gross_notional = Fraction(margin.gross_notional_raw(account))
    account_value = Fraction(max(0, margin.account_value_raw(account)))
    kept_shares = []
    for breach in known_breaches(account, policy, spot_value):
        match breach.limit_name:
            case "max_leverage":
                kept_shares.append(account_value * limits.max_leverage_bps / BPS / gross_notional)
            case "spot_multiple" if spot_value is not None:
                kept_shares.append(spot_value * limits.spot_multiple_bps / BPS / gross_notional)
            case "max_utilisation":
                kept_shares.append(_utilisation_kept_share(account, policy))
            case "stress_move":
                kept_shares.append(_stress_gross_notional(account, policy) / gross_notional)
            case _:
                pass
    return kept_shares


def _utilisation_kept_share(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Return the share k of the positions that leaves utilisation at its limit u.

    Initial margin I shrinks with the positions, and a fill at the mark leaves the account value V
    unchanged: k·I / V = u.
    """
    account_value = Fraction(max(0, margin.account_value_raw(account)))
    initial_margin_raw = margin.initial_margin_raw(account)
    if initial_margin_raw == 0:
        return Fraction(1)
    return min(
        Fraction(1), account_value * policy.limits.max_utilisation_bps / BPS / initial_margin_raw
    )


def _stress_gross_notional(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Return the gross notional whose stress loss leaves just the maintenance margin."""
    value_per_notional = stress_value_per_notional(account, policy)
    return (
        Fraction(max(0, margin.account_value_raw(account))) / value_per_notional
        if value_per_notional
        else Fraction(0)
    )


def stress_value_per_notional(account: MarginAccount, policy: FuturesPolicy) -> Fraction:
    """Return the account value per gross notional that just keeps the maintenance margin after the
    stress move: value - g·move = rate·(longs·(1 - move) + shorts·(1 + move)); zero without
    positions. By tiers the rate of a smaller book is at most that of the whole.
    """
    gross_notional = margin.gross_notional_raw(account)
    if not gross_notional:
        return Fraction(0)
    stress_move = Fraction(policy.limits.stress_move_bps, BPS)
    return stress_move + Fraction(
        margin.maintenance_margin_raw(margin.with_adverse_move(account, stress_move)),
        gross_notional,
    )


def reduction_sizes(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    waiting_markets: Collection[str] = (),
) -> dict[str, int]:
    """Return the sizes of the orders, by market, that reduce every position by the same share to
    the allowed gross notional, in whole lots rounded up; empty while no limit is breached. If
    paused markets, or those in `waiting_markets`, cannot be reduced, the others are cut by that
    much more.
    """
    gross_notional = Fraction(margin.gross_notional_raw(account))
    allowed_notional = reduction_goal_notional(account, policy, spot_value)
    if not gross_notional or allowed_notional >= gross_notional:
        return {}
    reducible_notional = Fraction(0)
    for position in account.positions:
        market = account.market(position.market)
        if not market.is_paused and position.market not in waiting_markets:
            reducible_notional += abs(margin.position_value_raw(market, position.size_raw))
    reduced_share = min(
        Fraction(1), (gross_notional - allowed_notional) / (reducible_notional or gross_notional)
    )
    size_by_market = {}
    for position in account.positions:
        lot_raw = account.market(position.market).lot_raw
        reduced_raw = abs(position.size_raw) * reduced_share
        lot_count = -(-reduced_raw.numerator // (reduced_raw.denominator * lot_raw))
        abs_size_raw = min(abs(position.size_raw), lot_count * lot_raw)
        size_by_market[position.market] = position.reduction_raw(abs_size_raw)
    return size_by_market


def closing_suffices(
    account: MarginAccount,
    policy: FuturesPolicy,
    spot_value: Fraction | None,
    waiting_markets: Collection[str],
) -> bool:
    """True if closing all positions but the paused ones and those in `waiting_markets` leaves the
    allowed gross notional.
    """
    remaining_notional = sum(
        abs(margin.value_at_mark_raw(account, position))
        for position in account.positions
        if account.market(position.market).is_paused or position.market in waiting_markets
    )
    return remaining_notional <= reduction_goal_notional(account, policy, spot_value)


def unfinished_sizes(
    account: MarginAccount, goal_sizes: Iterable[tuple[str, int]]
) -> dict[str, int]:
    """Return the sizes of the orders, by market, that reduce each position above its goal to it."""
    size_by_market = {}
    for market, goal_raw in goal_sizes:
        held_size_raw = account.size_raw(market)
        if held_size_raw and abs(goal_raw) < abs(held_size_raw) and goal_raw * held_size_raw >= 0:
            size_by_market[market] = goal_raw - held_size_raw
    return size_by_market


def stale_index_reasons(
    account: MarginAccount, policy: FuturesPolicy, now_s: int
) -> dict[str, str]:
    """Return, by market, why each unknown index is unknown: for held markets, or for targeted
    markets if none is held. A market without a position never blocks a reduction of another. No
    position is opened while an index is unknown. A reduction needs only the index of its own
    market, because the account's risk is judged at the marks, as liquidators do.
    """
    judged_markets = {position.market for position in account.positions}
    judged_markets = judged_markets or {
        target.market for target in policy.targets if target.weight_bps
    }
    return {
        market.market: reason
        for market in account.markets
        if market.market in judged_markets and (reason := stale_index_reason(market, policy, now_s))
    }


def stale_index_reason(market: PerpMarket, policy: FuturesPolicy, now_s: int) -> str:
    """Return a message if a market's index is too old, dated in the future, or of unknown age;
    empty otherwise.
    """
    age_s = now_s - market.index_s
    if 0 <= age_s <= policy.limits.index_age_s:
        return ""
    if not market.index_s:
        return f"the time of the index of {market.symbol} is unknown"
    if age_s < 0:
        return f"the index of {market.symbol} is dated in the future"
    return f"the index of {market.symbol} is {age_s} s old"


def unnamed_market_reasons(account: MarginAccount) -> dict[str, str]:
    """Return a message for each held market that the config does not name: someone else, such as
    the holder of a stolen delegate key, has opened a position there. It counts in every figure.
    Until it is closed no position is opened and no margin deposited. It is reduced in emergencies,
    by the owner, and for a limit that the other positions alone cannot meet.
    """
    return {
        market.market: f"the account has a position in {market.symbol}, which the config does not"
        " name"
        for market in account.markets
        if not market.is_configured
        and (account.size_raw(market.market) or market.market in account.isolated_markets)
    }


def isolated_positions_reason(account: MarginAccount) -> str:
    """Return that the account has isolated positions; empty if it has none."""
    if not account.isolated_markets:
        return ""
    symbols_text = ", ".join(account.market(market).symbol for market in account.isolated_markets)
    return (
        f"{symbols_text} has an isolated position, which is neither reduced nor closed; its margin"
        " counts as lost"
    )


def uncertain_profit_reason(account: MarginAccount) -> str:
    """Return why the profit of the margin account is uncertain; empty if it is not."""
    if not account.unknown_row_kinds:
        return ""
    transfer_kinds = ", ".join(account.unknown_row_kinds)
    return (
        f"the venue lists transfers of a kind that trimtab does not know ({transfer_kinds}): they count as"
        " profit or loss of the margin account, which is uncertain"
    )


def emergency_sizes(account: MarginAccount, policy: FuturesPolicy) -> dict[str, int]:
    """Return the sizes of the orders, by market, that close positions whose liquidation is nearer
    than `emergency_distance_bps`; empty without any. All positions are closed if the account is
    liquidatable, or would be if every price moved against its position by that distance. Half of a
    position is closed at a time, as liquidators do, so that a temporary spike costs only half. More
    is closed if the venue does not accept half, or if half leaves the distance below its limit plus
    the hysteresis, at which the next tick could trigger again.
    """
    emergency_distance = Fraction(policy.limits.emergency_distance_bps, BPS)
    closes_all = margin.is_liquidatable(margin.with_adverse_move(account, emergency_distance))
    size_by_market = {}
    for position in account.positions:
        distance = margin.liquidation_distance(account, position.market)
        if not closes_all and (distance is None or abs(distance) >= emergency_distance):
            continue
        abs_size_raw = emergency_size_raw(account, position, policy.limits)
        size_by_market[position.market] = position.reduction_raw(abs_size_raw)
    return size_by_market


def emergency_size_raw(account: MarginAccount, position: Position, limits: FuturesLimits) -> int:
    """Return the size to close: half of a position in whole lots, or the smallest larger size that
    is enough; the whole position if nothing less is. A size is enough if a fill at the bound leaves
    the margin that the venue requires for a reduction, and a fill at the mark leaves the distance
    to liquidation plus hysteresis.
    """
    market = account.market(position.market)
    lot_raw = market.lot_raw
    high_lots = -(-abs(position.size_raw) // market.lot_raw)
    low_lots = ceil_int(Fraction(high_lots, 2))
    safe_distance = Fraction(limits.emergency_distance_bps * (BPS + limits.hysteresis_bps), BPS**2)

    def is_enough(lot_count: int) -> bool:
        size_raw = min(abs(position.size_raw), lot_count * lot_raw)
        signed_size_raw = position.reduction_raw(size_raw)
        bound_raw = index_bound_raw(market, signed_size_raw, limits.emergency_slippage_bps)
        order = PerpOrder(position.market, signed_size_raw, PerpOrderKind.MARKET, bound_raw, True)
        account_after = after_fill_at_mark(account, position.market, signed_size_raw)
        distance = margin.liquidation_distance(account_after, position.market)
        is_safe = not margin.is_liquidatable(account_after) and (
            distance is None or abs(distance) >= safe_distance
        )
        return is_safe and margin.is_reduction_accepted(after_fill_at_bound(account, order))

    if is_enough(low_lots):
        high_lots = low_lots
    while high_lots - low_lots > 1:
        middle_lots = (low_lots + high_lots) // 2
        low_lots, high_lots = (
            (low_lots, middle_lots) if is_enough(middle_lots) else (middle_lots, high_lots)
        )
    return min(abs(position.size_raw), high_lots * lot_raw)
