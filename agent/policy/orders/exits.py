"""What orders do to the targets, and to the decision: what is out is sold for the numeraire and stays out, what waits is not bought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    PORTFOLIO,
    Absent,
    AdjustLiquidity,
    Asset,
    AssetDrift,
    Goal,
    GoalWeight,
    LateRefusal,
    Order,
    OrderKind,
    OrderStage,
    Portfolio,
    Rebalance,
    StepInput,
    StuckExit,
)
from agent.policy import minimum
from agent.policy import native_coin as coin
from agent.policy import text as words
from agent.policy.drift import drift, total
from agent.policy.liquidity import decide as lp_wish
from agent.policy.liquidity.book import Out
from agent.policy.orders import lifecycle as order_moves
from agent.policy.orders.levels import armed, by_key, filled_at_once, fitted, level, name, price_words, subject, waits_for
from agent.policy.orders.lifecycle import crumb, in_wanted_liquidity, moved, out_of, unconfirmed
from agent.reference import References, reference_prices
from agent.units import BPS, Price, Value, largest_remainder

WIDER = Fraction(10, 9)
"""By which the share of an asset that an exit leaves alone may change, since what the exit costs makes the whole smaller."""


def ordered(step: StepInput) -> StepInput:
    """The step with every order moved on by this block, and what they leave of the targets."""
    return keep_out(moved(step))


def keep_out(step: StepInput) -> StepInput:
    """The step with the targets that orders leave: none for what is out, no more than is held for what waits for its entry."""
    orders = step.history.orders
    if not orders:
        return step
    numeraire = step.portfolio.numeraire.address
    assets = [asset for asset in step.portfolio.assets if asset.token.address != numeraire]
    out = [asset.token.address for asset in assets if _kept_by(orders, asset.token.address) is not None]
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    drifts = _drifts(step, prices)
    waits = {
        asset.token.address: _held_bps(asset, drifts)
        for asset in assets
        if asset.token.address not in out and order_moves.waits(step, asset.token.address)
    }
    told = (*(_out_words(step, token) for token in out), *(_wait_words(step, token) for token in waits), *_unconfirmed_words(step))
    if not out and not waits:
        return replace(step, wishes=(*step.wishes, *told)) if told else step
    crumbs = {one.token for one in drifts if one.token in out and one.investable_raw * one.price < crumb(step, drifts)}
    crumbs |= {token for token, bps in waits.items() if total(drifts) * bps < _least(step, prices) * BPS}

    targets = _shared_out(step.portfolio, dict.fromkeys(out, 0) | {token: 0 if token in crumbs else bps for token, bps in waits.items()})

    def other(asset: Asset) -> Asset:
        token = asset.token.address
        if token in crumbs:
            return replace(asset, target_bps=0, reserve_raw=coin.sealed_raw(step, asset))
        return replace(asset, target_bps=targets[token])

    wanted = tuple(replace(one, share_bps=0) if {one.token0, one.token1} & {*out} else one for one in step.portfolio.lp_targets)
    portfolio = replace(step.portfolio, assets=tuple(map(other, step.portfolio.assets)), lp_targets=wanted)
    return replace(step, portfolio=portfolio, wishes=(*step.wishes, *told))


def faults(step: StepInput, references: References) -> list[str]:
    """Orders that contradict the prices of now: with one of them nothing is traded until its owner has looked at it."""
    book, known, found = step.portfolio.orders, by_key(step.history.orders), []
    entries = {order.token: order for order in step.history.orders if order.kind is OrderKind.ENTRY and order.stage is not OrderStage.OFF}
    for terms in book.terms:
        order, price = known.get((terms.token, terms.kind)), _price(references, terms.token)
        if order is None or price is None:
            continue
        try:
            if order.stage is OrderStage.WAITING and not waits_for(terms.kind, entries.get(terms.token)):
                armed(replace(order, terms=terms), price, 0, book, entries.get(terms.token))
            elif order.terms != terms and order.stage is OrderStage.ARMED:
                fitted(replace(order, terms=terms), price, book)
        except Refused as why:
            at = price_words(step.portfolio, terms.token, price)
            found.append(f"{name(step.portfolio, terms)} contradicts the price of {at}: {why.message} ({why.remedy}; trimtab orders)")
    return found


def exit_now(step: StepInput, drifts: Sequence[AssetDrift], prices: Mapping[str, Price]) -> Rebalance | AdjustLiquidity | None:
    """What an order that fired asks for, whatever trigger and cooldown say; None while there is nothing left to sell.

    What the wallet holds of it is sold for the numeraire, and nothing else is traded; then liquidity that has a target is taken out,
    for the same way.
    """
    fired = _fired(step)
    goes = [one for one in drifts if _leaves(step, one, fired)]
    leaving = {*leaves(step, drifts)}
    in_pools = {one.token for one in goes if in_wanted_liquidity(step, one.token)}
    reason = "; ".join(_fired_words(step, order) for order in fired if order.token in {PORTFOLIO, *leaving, *in_pools})
    if leaving:
        return Rebalance(reason, exit_goal(step.portfolio, drifts, leaving), exit=True)
    pools = tuple(one.pool for one in step.portfolio.lp_targets if {one.token0, one.token1} & in_pools)
    return AdjustLiquidity(reason, pools) if pools and _taken_out(lp_wish.within(step, pools), prices) else None


def leaves(step: StepInput, drifts: Sequence[AssetDrift]) -> tuple[str, ...]:
    """What of the wallet an order that fired sells now, in the portfolio's order; not what it is stuck with."""
    fired, least = _fired(step), crumb(step, drifts)
    return tuple(one.token for one in drifts if _leaves(step, one, fired) and 0 < one.investable_raw * one.price >= least)


def _fired(step: StepInput) -> list[Order]:
    return [order for order in step.history.orders if order.is_exit and order.stage is OrderStage.FIRED]


def exit_goal(portfolio: Portfolio, drifts: Sequence[AssetDrift], leaving: set[str]) -> Goal:
    """Nothing of what leaves, but what lies in liquidity; the others stay what they are, the numeraire takes the rest."""
    numeraire = portfolio.numeraire.address
    locked = {one.token: one.lp_raw * one.price / total(drifts) for one in drifts if one.token in leaving}
    weights = {}
    for one in drifts:
        if one.token in leaving:
            weights[one.token] = GoalWeight(one.token, locked[one.token], locked[one.token])
        elif one.token != numeraire:
            weights[one.token] = GoalWeight(one.token, one.share / WIDER, min(Fraction(1), one.share * WIDER))
    free = 1 - sum((locked.get(one.token, one.share) for one in drifts if one.token != numeraire), Fraction(0))
    rest = GoalWeight(numeraire, free, free)
    return Goal(tuple(weights.get(one.token, rest) for one in drifts))


def _taken_out(step: StepInput, prices: Mapping[str, Price]) -> bool:
    """Whether liquidity can be taken out now: not while its pool is off, or something is not known."""
    try:
        return any(isinstance(move, Out) for move in lp_wish.asked_for(step, prices).moves)
    except Refused:
        return False


def _leaves(step: StepInput, one: AssetDrift, fired: Sequence[Order]) -> bool:
    """Whether it is sold by an order that fired. What is in quarantine is left as it is until it is out of it."""
    numeraire = step.portfolio.numeraire.address
    if one.token == numeraire or one.token in {shut.token for shut in step.quarantine}:
        return False
    return any(order.token in (one.token, PORTFOLIO) for order in fired)


def _kept_by(orders: Sequence[Order], token: str) -> Order | None:
    return out_of(orders, PORTFOLIO) or out_of(orders, token)


def _held_bps(asset: Asset, drifts: Sequence[AssetDrift]) -> int:
    """What it keeps of its target: what there is of it already, rounded down, so that nothing is bought."""
    share = next((one.share for one in drifts if one.token == asset.token.address), Fraction(0))
    return min(asset.target_bps, share * BPS // 1)


def _shared_out(portfolio: Portfolio, fixed: Mapping[str, int]) -> dict[str, int]:
    """Targets in bps by token: those of `fixed`, and what they leave as the owner has chosen."""
    numeraire, targets = portfolio.numeraire.address, {asset.token.address: asset.target_bps for asset in portfolio.assets}
    free = BPS - sum(fixed.values())
    others = {token: bps for token, bps in targets.items() if token not in fixed}
    if portfolio.orders.absent is Absent.CASH or sum(others.values()) == 0:
        spent = sum(bps for token, bps in others.items() if token != numeraire)
        return {**targets, **fixed, numeraire: free - spent}
    shares = dict(zip(others, largest_remainder([Fraction(bps) for bps in others.values()], free), strict=True))
    most = {asset.token.address: asset.max_bps for asset in portfolio.assets if asset.max_bps is not None}
    kept = {token: min(bps, most.get(token, bps)) for token, bps in shares.items() if token != numeraire}
    return {**targets, **fixed, **kept, numeraire: free - sum(kept.values())}


def _least(step: StepInput, prices: Mapping[str, Price]) -> Value:
    """Worth that any target must have for the portfolio not to count as too small, numeraire base units."""
    native = prices.get(step.portfolio.wrapped_native)
    gas = Fraction(0) if native is None else minimum.leg_gas_value(step.snapshot, native) * minimum.GAS_MULTIPLE
    return Fraction(0) if step.limits.min_trade is None else max(step.limits.min_trade, gas)


def _drifts(step: StepInput, prices: Mapping[str, Price]) -> tuple[AssetDrift, ...]:
    try:
        return drift(step, prices)
    except Refused:  # then nothing is decided; what waits keeps none of its target
        return ()


def _price(references: References, token: str) -> Price | None:
    return references.prices[token].price if token in references.prices else None


def _fired_words(step: StepInput, order: Order) -> str:
    portfolio, money = step.portfolio, step.portfolio.numeraire.label
    what = "everything" if order.token == PORTFOLIO else "all of it"
    again = "portfolio" if order.token == PORTFOLIO else subject(portfolio, order.token)
    at, limit = price_words(portfolio, order.token, order.at), price_words(portfolio, order.token, level(order))
    said = f"{name(portfolio, order)} at {limit} fired at {at} ({words.moment(order.since_s)})"
    return f"{said}: {what} is sold for {money} and stays out until trimtab orders arm {again}"


def _out_words(step: StepInput, token: str) -> str:
    order, portfolio = _kept_by(step.history.orders, token), step.portfolio
    if order is None:
        return ""
    again = "portfolio" if order.token == PORTFOLIO else subject(portfolio, token)
    kept = f"{subject(portfolio, token)} is out since {words.moment(order.since_s)}: {name(portfolio, order)}"
    return f"{kept} {'is being sold' if order.stage is OrderStage.FIRED else 'is done'}; back in by trimtab orders arm {again}"


def _wait_words(step: StepInput, token: str) -> str:
    entry = by_key(step.history.orders)[token, OrderKind.ENTRY]
    return f"{subject(step.portfolio, token)} is bought only at or below its entry of {price_words(step.portfolio, token, level(entry))}"


def _unconfirmed_words(step: StepInput) -> list[str]:
    """Orders that the prices of now would move and the blocks before do not, and entries that hold nothing back."""
    portfolio, now = step.portfolio, by_key(step.history.orders)
    waiting = [order for order in unconfirmed(step) if order.key in now and order.stage is not now[order.key].stage]
    blocks = step.policy.confirm_blocks
    told = [f"{name(portfolio, one)} would be {one.stage.value}, but the {blocks} blocks before do not confirm it" for one in waiting]
    for order in step.history.orders:
        if order.stage is OrderStage.FIRED and filled_at_once(order):
            at = price_words(portfolio, order.token, level(order))
            told.append(f"{name(portfolio, order)} at {at} was not below the price when it was armed: it held nothing back")
    return told


# --- Exits that fired and cannot be done now: what is left as it is for them, so that everything else goes on, and how that is said. An


REMEDY = "wait for deeper pools, take in others by trimtab trust, or widen limits.price_impact or limits.plan_cost"


SOONER = "find out why its token refuses; trimtab resume has it tried at the next look"
FREE_TIMES = 3
"""How often in a row an exit may be refused when about to be sent and is tried again at the very next look: markets move."""
REST_S, LONGEST_REST_S = 600, 3_600
"""Chain time for which it rests after one time more, doubled with each, and at most: every try approves and takes back, for gas. No
longer, since who pushes its pool between look and send makes it rest too.
"""
DAY_S = 86_400


def rests_until_s(one: LateRefusal) -> int:
    """Chain time before which an exit that was refused late is not tried."""
    more = one.times - FREE_TIMES
    return one.at_s + (0 if more <= 0 else min(REST_S << min(more - 1, 16), LONGEST_REST_S))


def resting(step: StepInput, tokens: Iterable[str]) -> list[StuckExit]:
    """Which of these exits rest now; none by a refusal whose time is still to come, whatever header told it."""
    now_s, wanted = step.snapshot.head.timestamp_s, {*tokens}
    resting = [one for one in step.history.late if one.token in wanted and one.at_s <= now_s < rests_until_s(one)]
    return [
        StuckExit(one.token, f"{one.why}; {_often(one)}, so it rests until {words.moment(rests_until_s(one))}", SOONER) for one in resting
    ]


def refused_late(step: StepInput, refused: Iterable[StuckExit]) -> tuple[LateRefusal, ...]:
    """What to remember once these were refused when about to be sent; in a row is what is less than a day apart."""
    now_s, known = step.snapshot.head.timestamp_s, {one.token: one for one in step.history.late}
    for one in refused:
        before = known.get(one.token)
        times = 1 if before is None or now_s - before.at_s > DAY_S else before.times + 1
        known[one.token] = LateRefusal(one.token, now_s, times, one.why)
    return tuple(known.values())


def still_late(step: StepInput, sold: Iterable[str]) -> tuple[LateRefusal, ...]:
    """What of it is still to be remembered once these were sold: exits that fired and are not done."""
    gone, fired = {*sold}, _being_sold(step)
    return tuple(one for one in step.history.late if one.token not in gone and {one.token, PORTFOLIO} & fired)


def tried_again(step: StepInput, told: Iterable[str]) -> list[str]:
    """What was refused late and is tried again at the next look, in words; not the tokens that are `told` already."""
    sold, known = _being_sold(step), {*told}
    again = [one for one in step.history.late if one.token not in known and {one.token, PORTFOLIO} & sold]
    return [
        f"{subject(step.portfolio, one.token)}: {one.why}; {_often(one)}, last at {words.moment(one.at_s)}; "
        f"it is tried at the next look; {SOONER}, or {disarmed(step, StuckExit(one.token, '', ''))}"
        for one in again
    ]


def by_orders(step: StepInput, tokens: Iterable[str]) -> bool:
    """Whether orders that fired sell all of these, and not their owner."""
    sold = _being_sold(step)
    return PORTFOLIO in sold or {*tokens} <= sold


def _being_sold(step: StepInput) -> set[str]:
    return {order.token for order in step.history.orders if order.is_exit and order.stage is OrderStage.FIRED}


def _often(one: LateRefusal) -> str:
    return "once" if one.times == 1 else f"{one.times} times in a row"


def left_alone(step: StepInput, found: Iterable[StuckExit]) -> StepInput:
    """The step in which these assets keep what they have; one that is stuck already changes nothing."""
    already = {one.token for one in step.stuck}
    new = {one.token: one for one in found if one.token not in already}
    if not new:
        return step
    targets = _targets(step, {*new})
    assets = tuple(
        replace(
            asset,
            target_bps=targets[asset.token.address],
            reserve_raw=coin.sealed_raw(step, asset) if asset.token.address in new else asset.reserve_raw,
        )
        for asset in step.portfolio.assets
    )
    return replace(step, portfolio=replace(step.portfolio, assets=assets), stuck=(*step.stuck, *new.values()))


def _targets(step: StepInput, shut: set[str]) -> dict[str, int]:
    """Targets in bps by token of what is left: where the weight of what is out waits in the numeraire, what is not sold yet has not
    got there. So the others keep the value that they should have, and the numeraire's part is smaller by what is stuck.
    """
    before = {asset.token.address: asset.target_bps for asset in step.portfolio.assets}
    if step.portfolio.orders.absent is not Absent.CASH or step.split is not None:
        return before  # shared by the others already, or each strategy's own matter
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    drifts = drift(step, prices)
    whole = total(drifts)
    left = whole - sum((one.investable_raw * one.price for one in drifts if one.token in shut), Fraction(0))
    if left <= 0:
        return before
    numeraire = step.portfolio.numeraire.address
    others = {token: bps * whole / left for token, bps in before.items() if token != numeraire}
    rest = max(Fraction(0), BPS - sum(others.values(), Fraction(0)))
    shares = largest_remainder([others.get(token, rest) for token in before])
    return dict(zip(before, shares, strict=True))


def kept(step: StepInput) -> set[str]:
    """Tokens that are left as they are, in quarantine or stuck."""
    return {one.token for one in step.quarantine} | {one.token for one in step.stuck}


def named(step: StepInput, only: Iterable[str] | None = None) -> str:
    """Every exit that is stuck, or of the tokens `only` some, with the reason and the remedies; empty when there is none."""
    told = step.stuck if only is None else [one for one in step.stuck if one.token in {*only}]
    return "; ".join(in_words(step, one) for one in told)


def in_words(step: StepInput, one: StuckExit) -> str:
    """One of them: what fired, why it is stuck, and what can be done."""
    label, back = subject(step.portfolio, one.token), disarmed(step, one)
    again = "stays as it is until then" if resting(step, (one.token,)) else "stays as it is and is tried at each look"
    return f"{label} is out and cannot be sold now: {one.why}; it {again}; {one.remedy}, or {back}"


def disarmed(step: StepInput, one: StuckExit) -> str:
    """The command that calls its exit off."""
    whole = out_of(step.history.orders, PORTFOLIO) is not None
    return f"call it off: trimtab orders disarm {PORTFOLIO if whole else subject(step.portfolio, one.token)}"
