"""Whether the wallet's balances are what the books explain; if not, what came or went, and whether it is too much to go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import Asset, Books, Flow, FlowKind, Snapshot, StepInput
from agent.policy import coin, liquidity
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, Price, Value, decimal_text, value_text

DAY_S = 86_400
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
    asset is gas money. What brings back an open fall ends it. Everything else waits for the owner, and halts where with all that
    is open since a day ago it is more than limits.balance_jump of the portfolio, before or after, whichever is smaller.
    """
    moved = differences(step.snapshot, books)
    assets = {asset.token.address: asset for asset in step.portfolio.assets}
    changes = {token: change for token, change in moved.items() if token in assets or token == NATIVE}
    if not changes:
        return ()
    prices = {token: found.price for token, found in reference_prices(step).prices.items()}
    chain_s = step.snapshot.head.timestamp_s  # no clock of ours: one set back would take a fall out of the last 24 h (T6)
    flows = []
    for token, (delta, since) in sorted(changes.items()):
        price = prices.get(step.portfolio.wrapped_native if token == NATIVE else token)
        value = None if price is None else delta * price
        undoes = _undone(token, delta, books.flows)
        kind = FlowKind.UNDONE if undoes else _by_itself(step, assets.get(token), token, delta, books.flows, chain_s)
        flows.append(Flow(0, token, delta, value, since, step.snapshot.head.number, chain_s, False, kind, undoes))
    return _judged(step, prices, tuple(flows), [flow for flow in books.flows if flow.id not in _ends(flows)], chain_s)


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


def _judged(step: StepInput, prices: dict[str, Price], fresh: tuple[Flow, ...], before: Iterable[Flow], now_s: int) -> tuple[Flow, ...]:
    """The flows with `halts` set where all that is open goes beyond the limit."""
    limit_bps = step.limits.balance_jump_bps
    opened = [flow for flow in fresh if flow.is_open]
    if limit_bps is None or not opened:
        return fresh
    values = [flow.value for flow in (*opened, *(f for f in before if f.is_open and not f.halts and f.chain_s > now_s - DAY_S))]
    worth = _worth(step, prices)
    if any(value is None for value in values):
        return _halting(fresh)
    jumped = sum((abs(value) for value in values if value is not None), Fraction(0))
    net = sum((flow.value for flow in fresh if flow.value is not None), Fraction(0))
    base = min(worth, worth - net)
    return _halting(fresh) if jumped * BPS > limit_bps * base else fresh


def _halting(flows: tuple[Flow, ...]) -> tuple[Flow, ...]:
    return tuple(replace(flow, halts=flow.is_open) for flow in flows)


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
    """The step with every open flow in its history, those that are not written down yet too, and their falls in the day's loss."""
    fresh = unexplained(step, books)
    if not fresh:
        return step
    lost = lost_ever = _lost(fresh)
    history, ended = step.history, _ends(fresh)
    back = [flow for flow in history.flows if flow.id in ended]
    day_s = step.snapshot.head.timestamp_s - DAY_S
    lost -= _lost(flow for flow in back if flow.chain_s > day_s)
    lost_ever -= _lost(back)
    left = tuple(flow for flow in history.flows if flow.id not in ended)
    opened = tuple(flow for flow in fresh if flow.is_open)
    unknown = history.unknown or "; ".join(f"{label(step, f.token)} fell and has no price" for f in fresh if f.is_loss and f.value is None)
    total = max(Fraction(0), history.loss_total + lost_ever)
    day = max(Fraction(0), history.loss_24h + lost)
    return replace(step, history=replace(history, flows=left + opened, loss_24h=day, loss_total=total, unknown=unknown))


def _lost(flows: Iterable[Flow]) -> Value:
    return sum((-flow.value for flow in flows if flow.is_loss and flow.value is not None), Fraction(0))


def halting(step: StepInput) -> str:
    """Why nothing may be traded until the owner has said what came or went; empty when nothing is in the way."""
    stopping = [flow for flow in step.history.flows if flow.halts]
    if not stopping:
        return ""
    told = "; ".join(words(step, flow) for flow in stopping[:SHOWN])
    more = f"; and {len(stopping) - SHOWN} more" if len(stopping) > SHOWN else ""
    limit = step.limits.balance_jump_bps
    beyond = "" if limit is None else f", more than limits.balance_jump of {limit / 100:g} % with all that is open"
    return f"balances changed and the books do not explain it{beyond}: {told}{more}; say what it was: trimtab flows, trimtab flows confirm"


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
