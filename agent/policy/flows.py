"""Whether the wallet's balances are what the books explain; if not, what came or went, and whether it is too much to go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import Asset, Books, Flow, FlowKind, Snapshot, StepInput
from agent.policy import coin, liquidity
from agent.policy import words as at_time
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, Price, Value, decimal_text, value_text

DAY_S = 86_400
SPELL_S = 30 * DAY_S
"""In so much chain time all rises together hold something back for limits.balance_jump_wait, which is no longer than this."""
SHOWN = 5
FRESH_S, LOST_BLOCKS = 60, 1_000
"""No chain makes so many blocks in so many seconds, and none takes so many back."""


def comparable(snapshot: Snapshot, books: Books) -> bool:
    """Whether the two can be compared: not a snapshot from before the books, nor one that may hold a transaction of ours whose
    receipt the journal lacks.

    A block of just now that is far below the books shows that these were taken at a height that never was: one lie of an only
    endpoint must not keep every later look from being compared.
    """
    if books.unsettled_nonce is not None and books.unsettled_nonce < snapshot.nonce_latest:
        return False
    number, fresh = snapshot.head.number, abs(snapshot.now_s - snapshot.head.timestamp_s) <= FRESH_S
    return all(opening.block <= number or (fresh and opening.block > number + LOST_BLOCKS) for opening in books.openings)


def differences(snapshot: Snapshot, books: Books) -> dict[str, tuple[int, int]]:
    """By token what a balance differs by from what the books explain, base units, and the block since when."""
    if not comparable(snapshot, books):
        return {}
    balances = balances_of(snapshot)
    own: dict[str, int] = {}
    for change in books.own:
        if change.block <= snapshot.head.number:
            own[change.token] = own.get(change.token, 0) + change.delta_raw
    found = {}
    for opening in books.openings:
        if opening.token in balances:
            delta = balances[opening.token] - own.get(opening.token, 0) - opening.raw
            if delta:
                found[opening.token] = (delta, opening.block)
    return found


def balances_of(snapshot: Snapshot) -> dict[str, int]:
    """Every balance that was read and does not contradict itself, base units by token; units.NATIVE is the native coin."""
    unsure = {item.address for item in snapshot.quarantined}
    read: dict[str, set[int]] = {}
    for holding in snapshot.holdings:
        read.setdefault(holding.token, set()).add(holding.raw)
    sure = {token: next(iter(raws)) for token, raws in read.items() if len(raws) == 1 and token not in unsure}
    return {**sure, NATIVE: snapshot.native_wei}


def unexplained(step: StepInput, books: Books) -> tuple[Flow, ...]:
    """The changes of assets and native coin that the books do not explain, as flows that are not written down yet.

    A token that changes by itself is told by what its owner allowed for it (`rebasing`). Native coin that comes while it is no
    asset is gas money. What brings back an open fall ends it. Everything else waits for the owner.
    """
    return tuple(flow for flow in changed(step, books) if flow.id == 0)


def changed(step: StepInput, books: Books) -> tuple[Flow, ...]:
    """Every flow to write down at this look: new ones, and open ones as they are now (by their id). One that had no price gets its
    value once there is one; a rise that held something back for limits.balance_jump_wait is accepted as a deposit, or stays unexplained
    and holds nothing back any more where portfolio.max_live_value is exceeded (agent/policy/aside.py).
    """
    moved = differences(step.snapshot, books)
    assets = {asset.token.address: asset for asset in step.portfolio.assets}
    changes = {token: change for token, change in moved.items() if token in assets or token == NATIVE}
    if not changes and not (may_change(books) and comparable(step.snapshot, books)):
        return ()
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    chain_s = step.snapshot.head.timestamp_s  # no clock of ours: one set back would take a fall out of the last 24 h (T6)
    flows = []
    for token, (delta, since) in sorted(changes.items()):
        undoes = _undone(token, delta, books.flows)
        kind = FlowKind.UNDONE if undoes else _by_itself(step, assets.get(token), token, delta, books.flows, chain_s)
        flow = Flow(0, token, delta, None, since, step.snapshot.head.number, chain_s, False, kind, undoes)
        flows.append(_valued(step, prices, flow))
    before = [flow for flow in books.flows if flow.id not in _ends(flows)]
    late = [made for flow in before if flow.is_open and flow.value is None and (made := _valued(step, prices, flow)) != flow]
    judged = {flow.id: flow for flow in late}
    fresh = _judged(step, prices, (*flows, *late), [flow for flow in before if flow.id not in judged], chain_s)
    judged = {flow.id: flow for flow in fresh if flow.id}
    limit = step.limits.max_live_value
    capped = limit is not None and _worth(step, prices) > limit
    now = [(flow, _aged(step, judged.get(flow.id, flow), capped)) for flow in before if flow.is_open]
    return (*(flow for flow in fresh if flow.id == 0), *(is_now for was, is_now in now if is_now != was))


def may_change(books: Books) -> bool:
    """Whether an open flow may change though no balance does: it has no value yet, or is a rise that holds something back."""
    return any(flow.is_open and (flow.value is None or (flow.halts and flow.delta_raw > 0)) for flow in books.flows)


def _valued(step: StepInput, prices: dict[str, Price], flow: Flow) -> Flow:
    price = prices.get(step.portfolio.wrapped_native if flow.token == NATIVE else flow.token)
    return flow if price is None else replace(flow, value=flow.delta_raw * price)


def _aged(step: StepInput, flow: Flow, capped: bool) -> Flow:
    """A rise that holds something back, once it has done so for long enough; a header from the future makes it wait no longer."""
    if not flow.holds or flow.delta_raw < 0:
        return flow
    now_s = min(step.snapshot.head.timestamp_s, step.snapshot.now_s + FRESH_S)
    if now_s >= accepted_s(step, flow):
        return replace(flow, halts=False) if capped else replace(flow, kind=FlowKind.ACCEPTED)
    return replace(flow, chain_s=min(flow.chain_s, step.snapshot.head.timestamp_s))


def accepted_s(step: StepInput, flow: Flow) -> int:
    """Chain time from which a rise that holds something back counts as a deposit: that of the first of all that came in SPELL_S, so
    that gifts one after another prolong nothing.
    """
    first_s = step.history.rose_s
    began_s = first_s if first_s is not None and first_s <= flow.chain_s < first_s + SPELL_S else flow.chain_s
    return began_s + (step.limits.balance_jump_wait_s or 0)


def _undone(token: str, delta: int, before: Iterable[Flow]) -> tuple[int, ...]:
    """Ids of the newest open falls of `token` that a rise by `delta` brings back to the base unit; none where it is another amount.

    The endpoint that told of them was wrong, or the money came back: either way nothing is missing. A rise that falls again is
    not taken for undone: the owner may have sent it, and a thief taken it.
    """
    rest, ids = delta, []
    for flow in reversed([one for one in before if one.token == token]):
        if flow.is_open and flow.delta_raw < 0 < rest:
            ids.append(flow.id)
        elif flow.kind is not FlowKind.GAS_MONEY:  # a part of it may have come as gas money, while an endpoint was still wrong
            break
        rest += flow.delta_raw
        if ids and rest == 0:
            return tuple(ids)
    return ()


def _ends(flows: Iterable[Flow]) -> set[int]:
    return {one for flow in flows for one in flow.undoes}


def _by_itself(step: StepInput, asset: Asset | None, token: str, delta: int, before: Iterable[Flow], now_s: int) -> FlowKind | None:
    if token == NATIVE:
        return FlowKind.GAS_MONEY if delta > 0 and not coin.is_native(step.portfolio) else None
    if asset is None or asset.rebasing_bps == 0:
        return None
    day = sum(abs(f.delta_raw) for f in before if f.token == token and f.kind is FlowKind.REBASE and f.chain_s > now_s - DAY_S)
    was = balances_of(step.snapshot).get(token, 0) - delta
    return FlowKind.REBASE if (day + abs(delta)) * BPS <= asset.rebasing_bps * was else None


def _judged(step: StepInput, prices: dict[str, Price], found: tuple[Flow, ...], before: Iterable[Flow], now_s: int) -> tuple[Flow, ...]:
    """The flows with `halts` set where they go beyond limits.balance_jump of the portfolio, before or after, whichever is smaller.

    A rise counts with all that is open since a day ago, a fall with all falls of that: no stranger makes a small fall a large one.
    A fall without a price is beyond any limit, a rise without one is judged when it has one.
    """
    limit_bps, worth = step.limits.balance_jump_bps, _worth(step, prices)
    base = min(worth, worth - sum((flow.value for flow in found if flow.value is not None), Fraction(0)))
    recent = [flow for flow in before if flow.is_open and not flow.halts and flow.chain_s > now_s - DAY_S]
    opened = [flow for flow in (*found, *recent) if flow.is_open and flow.value is not None]
    rose_or_fell, fell = (_sum(flows) for flows in (opened, [flow for flow in opened if flow.delta_raw < 0]))

    def halts(flow: Flow) -> bool:
        if not flow.is_open or limit_bps is None:
            return False
        if flow.value is None:
            return flow.delta_raw < 0
        return (fell if flow.delta_raw < 0 else rose_or_fell) * BPS > limit_bps * base

    return tuple(replace(flow, halts=halts(flow)) for flow in found)


def _sum(flows: Iterable[Flow]) -> Value:
    return sum((abs(flow.value) for flow in flows if flow.value is not None), Fraction(0))


def _worth(step: StepInput, prices: dict[str, Price]) -> Value:
    """What is known of the portfolio at reference prices, reserves included: never more than the whole. A price that lacks for one
    look must not let dust of another token halt the agent until its owner comes.
    """
    held, sure = coin.held(step), balances_of(step.snapshot)
    known = {asset.token.address for asset in step.portfolio.assets} & held.keys() & sure.keys() & prices.keys()
    free = sum((held[token] * prices[token] for token in known), Fraction(0))
    try:
        return free + liquidity.worth(step, prices)
    except Refused:
        return free


def seen(step: StepInput, books: Books) -> StepInput:
    """The step with every open flow in its history as it is now, those that are not written down yet too, and falls in the losses."""
    found = changed(step, books)
    if not found:
        return step
    history, ended, is_now = step.history, _ends(found), {flow.id: flow for flow in found if flow.id}
    day_s = step.snapshot.head.timestamp_s - DAY_S
    gone = [flow for flow in history.flows if flow.id in ended or flow.id in is_now]
    ever = _lost(found) - _lost(gone)
    day = _lost(flow for flow in found if flow.chain_s > day_s) - _lost(flow for flow in gone if flow.chain_s > day_s)
    left = tuple(is_now.get(flow.id, flow) for flow in history.flows if flow.id not in ended)
    fresh = [flow for flow in found if flow.id == 0]
    rises = dict(history.rises)
    for flow, sign in (*((flow, -1) for flow in books.flows if flow.id in ended or flow.id in is_now), *((flow, 1) for flow in found)):
        if flow.is_open and flow.delta_raw > 0:
            rises[flow.token] = rises.get(flow.token, 0) + sign * flow.delta_raw
    unpriced = [flow for flow in (*left, *fresh) if flow.is_loss and flow.value is None and flow.chain_s > day_s]
    unknown = "" if history.unknown in map(unpriced_fall, gone) else history.unknown
    return replace(
        step,
        history=replace(
            history,
            flows=tuple(flow for flow in (*left, *fresh) if flow.is_open),
            loss_24h=max(Fraction(0), history.loss_24h + day),
            loss_total=max(Fraction(0), history.loss_total + ever),
            fell_24h=max(Fraction(0), history.fell_24h + day),
            fell_total=max(Fraction(0), history.fell_total + ever),
            rises=tuple(sorted(rises.items())),
            unknown=unknown or "; ".join(f"{label(step, flow.token)} fell and has no price" for flow in unpriced),
            accepted=(*history.accepted, *(flow for flow in found if flow.kind is FlowKind.ACCEPTED)),
        ),
    )


def unpriced_fall(flow: Flow) -> str:
    """Why the losses of a day cannot be told while a fall has no price."""
    return f"flow {flow.id}, a fall of {flow.token}, has no price: say what it was (trimtab flows)"


def _lost(flows: Iterable[Flow]) -> Value:
    return sum((-flow.value for flow in flows if flow.is_loss and flow.value is not None), Fraction(0))


def halting(step: StepInput) -> str:
    """Why nothing is bought or rebalanced now, and until when; empty when nothing is in the way."""
    holding = [flow for flow in step.history.flows if flow.holds]
    if not holding:
        return ""
    told = "; ".join(words(step, flow) for flow in holding[:SHOWN])
    more = f"; and {len(holding) - SHOWN} more" if len(holding) > SHOWN else ""
    limit = step.limits.balance_jump_bps
    beyond = "" if limit is None else f" beyond limits.balance_jump of {limit / 100:g} %"
    until = "until they are explained"
    if all(flow.delta_raw > 0 for flow in holding):
        last_s = max(accepted_s(step, flow) for flow in holding)
        until += f", or accepted as deposits at {at_time.moment(last_s)}"
    return (
        f"unexplained balance changes{beyond}: {told}{more}; nothing is bought or rebalanced {until}: trimtab flows confirm; "
        "exits, withdrawals and stop go on"
    )


def accepted(step: StepInput) -> str:
    """Rises that were accepted as deposits in the last 24 h, in words; empty when there are none."""
    told = [words(step, flow) for flow in step.history.accepted]
    more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return f"accepted as a deposit, since nobody explained it: {'; '.join(told[:SHOWN])}{more}" if told else ""


def words(step: StepInput, flow: Flow) -> str:
    """One flow in words."""
    went = "rose" if flow.delta_raw > 0 else "fell"
    numeraire = step.portfolio.numeraire
    worth = "without a price" if flow.value is None else f"{value_text(abs(flow.value), numeraire.decimals, 2)} {numeraire.label}"
    return f"{label(step, flow.token)} {went} by {amount(step, flow)} ({worth}) between blocks {flow.since_block} and {flow.block}"


def amount(step: StepInput, flow: Flow) -> str:
    """How much came or went, in whole coins; of a token that is no longer in the portfolio in base units."""
    try:
        return decimal_text(abs(flow.delta_raw), step.portfolio.token(flow.token).decimals)
    except KeyError:
        return f"{abs(flow.delta_raw)} base units"


def label(step: StepInput, token: str) -> str:
    """What a token is called; a token that is no longer in the portfolio by its address."""
    if token == NATIVE:
        return "native coin"
    try:
        return step.portfolio.token(token).label
    except KeyError:
        return token
