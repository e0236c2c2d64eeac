"""Unexplained balance changes: their detection, classification, and the part excluded above
portfolio.max_live_value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers.questions import outside_value
from agent.model import (
    Asset,
    CashFlows,
    ExpectedBalances,
    ExternalTransfer,
    ExternalTransferKind,
    Limits,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.policy import native_coin
from agent.reference import reference_prices
from agent.units import BPS, NATIVE, Price, Value, decimal_text, format_time, value_text

DAY_S = 86_400
ACCEPTANCE_WINDOW_S = 30 * DAY_S
"""Window of chain time in which all increases together block purchases for at most
limits.balance_jump_wait, which is at most as long as the window.
"""
SHOWN = 5
FRESH_S, LOST_BLOCKS = 60, 1_000
"""Maximum age of a fresh head in seconds; also a number of blocks above what any chain produces in
that time or loses in a reorg.
"""


def is_comparable(snapshot: Snapshot, books: ExpectedBalances) -> bool:
    """True if balances and expected balances can be compared.

    False for a snapshot older than the openings, and for one that may contain a transaction of the
    agent whose receipt is not in the journal. A recorded height far above a fresh head is ignored,
    so that one bad answer of a single endpoint does not block every later cycle.
    """
    if books.unsettled_nonce is not None and books.unsettled_nonce < snapshot.nonce_latest:
        return False
    number, fresh = snapshot.head.number, abs(snapshot.now_s - snapshot.head.timestamp_s) <= FRESH_S
    return all(
        opening.block <= number or (fresh and opening.block > number + LOST_BLOCKS)
        for opening in books.openings
    )


def differences(snapshot: Snapshot, books: ExpectedBalances) -> dict[str, tuple[int, int]]:
    """Return the difference of balance and expected balance by token, base units, with the block of
    the opening.
    """
    if not is_comparable(snapshot, books):
        return {}
    balances = balances_of(snapshot)
    own: dict[str, int] = {}
    for change in books.own:
        if change.block <= snapshot.head.number:
            own[change.token] = own.get(change.token, 0) + change.delta_raw
    changes = {}
    for opening in books.openings:
        if opening.token in balances:
            delta = balances[opening.token] - own.get(opening.token, 0) - opening.raw
            if delta:
                changes[opening.token] = (delta, opening.block)
    return changes


def balances_of(snapshot: Snapshot) -> dict[str, int]:
    """Return every balance whose reads agree, in base units by token; units.NATIVE is the native
    coin.
    """
    unsure = {item.address for item in snapshot.quarantined}
    read: dict[str, set[int]] = {}
    for holding in snapshot.holdings:
        read.setdefault(holding.token, set()).add(holding.raw)
    sure = {
        token: next(iter(raws))
        for token, raws in read.items()
        if len(raws) == 1 and token not in unsure
    }
    return {**sure, NATIVE: snapshot.native_wei}


def unexplained(step: StepInput, books: ExpectedBalances) -> tuple[ExternalTransfer, ...]:
    """Return the unexplained changes of assets and native coin, as transfers that are not stored
    yet.

    Changes of a `rebasing` token are explained by the token itself. Native coin that arrives while
    it is not an asset is gas money. An increase that restores an open decrease closes it. Every
    other change waits for the owner.
    """
    return tuple(flow for flow in changes_to_record(step, books) if flow.id == 0)


def changes_to_record(step: StepInput, books: ExpectedBalances) -> tuple[ExternalTransfer, ...]:
    """Return every transfer to store in this cycle: new ones, and changed open ones by id.

    A transfer without a price is valued once there is one. An increase that blocked purchases for
    limits.balance_jump_wait is accepted as a deposit; while portfolio.max_live_value is exceeded it
    stays unexplained but does not block.
    """
    moved = differences(step.snapshot, books)
    assets = {asset.token.address: asset for asset in step.portfolio.assets}
    changes = {
        token: change for token, change in moved.items() if token in assets or token == NATIVE
    }
    if not changes and not (may_change(books) and is_comparable(step.snapshot, books)):
        return ()
    prices = reference_prices(step).by_token
    # Use chain time: a machine clock set back would move a decrease out of the last 24 h (T6).
    chain_s = step.snapshot.head.timestamp_s
    flows = []
    for token, (delta, since) in sorted(changes.items()):
        undoes = _undone(token, delta, books.flows)
        kind = _by_itself(
            step.snapshot, step.portfolio, assets.get(token), token, delta, books.flows, chain_s
        )
        if undoes:
            kind = ExternalTransferKind.UNDONE
        flow = ExternalTransfer(
            0, token, delta, None, since, step.snapshot.head.number, chain_s, False, kind, undoes
        )
        flows.append(_valued(step.portfolio, prices, flow))
    before = [flow for flow in books.flows if flow.id not in _ends(flows)]
    revalued = [
        transfer
        for flow in before
        if flow.is_open
        and flow.value is None
        and (transfer := _valued(step.portfolio, prices, flow)) != flow
    ]
    judged = {flow.id: flow for flow in revalued}
    fresh = _judged(
        step,
        prices,
        (*flows, *revalued),
        [flow for flow in before if flow.id not in judged],
        chain_s,
    )
    judged = {flow.id: flow for flow in fresh if flow.id}
    limit = step.limits.max_live_value
    capped = limit is not None and _worth(step, prices) > limit
    now = [
        (
            flow,
            _aged(
                step.snapshot,
                step.limits,
                step.history.cash_flows,
                judged.get(flow.id, flow),
                capped,
            ),
        )
        for flow in before
        if flow.is_open
    ]
    return (
        *(flow for flow in fresh if flow.id == 0),
        *(is_now for was, is_now in now if is_now != was),
    )


def may_change(books: ExpectedBalances) -> bool:
    """True if an open transfer may change without a balance change: it has no value yet, or blocks
    purchases as an increase.
    """
    return any(
        flow.is_open and (flow.value is None or (flow.halts and flow.delta_raw > 0))
        for flow in books.flows
    )


def _valued(
    portfolio: Portfolio, prices: dict[str, Price], flow: ExternalTransfer
) -> ExternalTransfer:
    price = prices.get(portfolio.held_as(flow.token))
    if price is None:
        return flow
    return replace(flow, value=flow.delta_raw * price)


def _aged(
    snapshot: Snapshot, limits: Limits, cash_flows: CashFlows, flow: ExternalTransfer, capped: bool
) -> ExternalTransfer:
    """Return the increase as accepted after blocking for long enough; a header from the future
    cannot extend the wait.
    """
    if not flow.holds or flow.delta_raw < 0:
        return flow
    now_s = min(snapshot.head.timestamp_s, snapshot.now_s + FRESH_S)
    if now_s >= accepted_s(limits, cash_flows, flow):
        if capped:
            return replace(flow, halts=False)
        return replace(flow, kind=ExternalTransferKind.ACCEPTED)
    return replace(flow, chain_s=min(flow.chain_s, snapshot.head.timestamp_s))


def accepted_s(limits: Limits, cash_flows: CashFlows, flow: ExternalTransfer) -> int:
    """Return the chain time from which an increase that blocks purchases counts as a deposit. It
    depends on the first increase in ACCEPTANCE_WINDOW_S, so that a series of gifts does not prolong
    the block.
    """
    first_s = cash_flows.rose_s
    if first_s is not None and first_s <= flow.chain_s < first_s + ACCEPTANCE_WINDOW_S:
        began_s = first_s
    else:
        began_s = flow.chain_s
    return began_s + (limits.balance_jump_wait_s or 0)


def _undone(token: str, delta: int, before: Iterable[ExternalTransfer]) -> tuple[int, ...]:
    """Return the ids of the newest open decreases of `token` that an increase by `delta` restores
    exactly; none for another amount.

    Either an endpoint was wrong or the money came back, so nothing is missing. A decrease after an
    increase is never treated as undone: the owner may have sent the increase and a thief taken it.
    """
    rest, ids = delta, []
    for flow in reversed([transfer for transfer in before if transfer.token == token]):
        if flow.is_open and flow.delta_raw < 0 < rest:
            ids.append(flow.id)
        elif flow.kind is not ExternalTransferKind.GAS_MONEY:
            break  # a part may have been recorded as gas money while an endpoint was still wrong
        rest += flow.delta_raw
        if ids and rest == 0:
            return tuple(ids)
    return ()


def _ends(flows: Iterable[ExternalTransfer]) -> set[int]:
    return {undoe for flow in flows for undoe in flow.undoes}


def _by_itself(
    snapshot: Snapshot,
    portfolio: Portfolio,
    asset: Asset | None,
    token: str,
    delta: int,
    before: Iterable[ExternalTransfer],
    now_s: int,
) -> ExternalTransferKind | None:
    if token == NATIVE:
        if delta > 0 and not native_coin.has_native_asset(portfolio):
            return ExternalTransferKind.GAS_MONEY
        return None
    if asset is None or asset.rebasing_bps == 0:
        return None
    day = sum(
        abs(f.delta_raw)
        for f in before
        if f.token == token and f.kind is ExternalTransferKind.REBASE and f.chain_s > now_s - DAY_S
    )
    was = balances_of(snapshot).get(token, 0) - delta
    if (day + abs(delta)) * BPS <= asset.rebasing_bps * was:
        return ExternalTransferKind.REBASE
    return None


def _judged(
    step: StepInput,
    prices: dict[str, Price],
    found: tuple[ExternalTransfer, ...],
    before: Iterable[ExternalTransfer],
    now_s: int,
) -> tuple[ExternalTransfer, ...]:
    """Return flows with `halts` set if they exceed limits.balance_jump of the portfolio's value
    before or after them, whichever is smaller. An increase counts with all flows open within a day,
    a decrease only with that day's decreases, so that deposits by others never make a small
    decrease count as a large one. A decrease without a price exceeds any limit; an increase without
    a price is judged once it has one.
    """
    limit_bps, worth = step.limits.balance_jump_bps, _worth(step, prices)
    base = min(
        worth, worth - sum((flow.value for flow in found if flow.value is not None), Fraction(0))
    )
    recent = [
        flow for flow in before if flow.is_open and not flow.halts and flow.chain_s > now_s - DAY_S
    ]
    opened = [flow for flow in (*found, *recent) if flow.is_open and flow.value is not None]
    rose_or_fell, fell = (
        _sum(flows) for flows in (opened, [flow for flow in opened if flow.delta_raw < 0])
    )

    def halts(flow: ExternalTransfer) -> bool:
        if not flow.is_open or limit_bps is None:
            return False
        if flow.value is None:
            return flow.delta_raw < 0
        return (fell if flow.delta_raw < 0 else rose_or_fell) * BPS > limit_bps * base

    return tuple(replace(flow, halts=halts(flow)) for flow in found)


def _sum(flows: Iterable[ExternalTransfer]) -> Value:
    return sum((abs(flow.value) for flow in flows if flow.value is not None), Fraction(0))


def _worth(step: StepInput, prices: dict[str, Price]) -> Value:
    """Return the known value of the portfolio at reference prices, reserves included; a lower
    bound. Dust of one token must not halt the agent because the price of another is missing for one
    cycle.
    """
    balances, sure = native_coin.held_balances(step), balances_of(step.snapshot)
    known = (
        {asset.token.address for asset in step.portfolio.assets}
        & balances.keys()
        & sure.keys()
        & prices.keys()
    )
    free = sum((balances[token] * prices[token] for token in known), Fraction(0))
    try:
        return free + outside_value(step, prices)
    except Refused:
        return free


def apply_balance_changes(step: StepInput, books: ExpectedBalances) -> StepInput:
    """Return the step with the current state of every open flow, including unrecorded ones, and
    with decreases counted as losses.
    """
    transfers = changes_to_record(step, books)
    if not transfers:
        return step
    history = step.history
    ended = _ends(transfers)
    is_now = {flow.id: flow for flow in transfers if flow.id}
    day_s = step.snapshot.head.timestamp_s - DAY_S
    gone = [
        flow for flow in history.cash_flows.unexplained if flow.id in ended or flow.id in is_now
    ]
    ever = _lost(transfers) - _lost(gone)
    day = _lost(flow for flow in transfers if flow.chain_s > day_s) - _lost(
        flow for flow in gone if flow.chain_s > day_s
    )
    left = tuple(
        is_now.get(flow.id, flow) for flow in history.cash_flows.unexplained if flow.id not in ended
    )
    fresh = [flow for flow in transfers if flow.id == 0]
    rises = dict(history.cash_flows.rises)
    for flow, sign in (
        *((flow, -1) for flow in books.flows if flow.id in ended or flow.id in is_now),
        *((flow, 1) for flow in transfers),
    ):
        if flow.is_open and flow.delta_raw > 0:
            rises[flow.token] = rises.get(flow.token, 0) + sign * flow.delta_raw
    unpriced = [
        flow
        for flow in (*left, *fresh)
        if flow.is_loss and flow.value is None and flow.chain_s > day_s
    ]
    falls, beside = (
        history.budgets.unpriced_falls,
        history.budgets.unknown.removeprefix(history.budgets.unpriced_falls),
    )
    if falls in map(unpriced_loss_reason, gone):
        falls = ""
    falls = falls or "; ".join(
        f"{token_label(step.portfolio, flow.token)} fell and has no price" for flow in unpriced
    )
    return replace(
        step,
        history=replace(
            history,
            cash_flows=replace(
                history.cash_flows,
                unexplained=tuple(flow for flow in (*left, *fresh) if flow.is_open),
                rises=tuple(sorted(rises.items())),
                accepted=(
                    *history.cash_flows.accepted,
                    *(flow for flow in transfers if flow.kind is ExternalTransferKind.ACCEPTED),
                ),
            ),
            budgets=replace(
                history.budgets,
                loss_24h=max(Fraction(0), history.budgets.loss_24h + day),
                loss_total=max(Fraction(0), history.budgets.loss_total + ever),
                fell_24h=max(Fraction(0), history.budgets.fell_24h + day),
                fell_total=max(Fraction(0), history.budgets.fell_total + ever),
                unknown="; ".join(filter(None, (falls, beside.removeprefix("; ")))),
                unpriced_falls=falls,
            ),
        ),
    )


def unpriced_loss_reason(flow: ExternalTransfer) -> str:
    """Return why the losses of a day are unknown while a decrease has no price."""
    return (
        f"flow {flow.id}, a decrease of {flow.token}, has no price: "
        "confirm its cause (trimtab flows)"
    )


def _lost(flows: Iterable[ExternalTransfer]) -> Value:
    return sum(
        (-flow.value for flow in flows if flow.is_loss and flow.value is not None), Fraction(0)
    )


def halt_reason(portfolio: Portfolio, limits: Limits, cash_flows: CashFlows) -> str:
    """Return why purchases and rebalances are blocked, and until when; empty if they are not."""
    holding = [flow for flow in cash_flows.unexplained if flow.holds]
    if not holding:
        return ""
    message = "; ".join(format_change(portfolio, flow) for flow in holding[:SHOWN])
    more = f"; and {len(holding) - SHOWN} more" if len(holding) > SHOWN else ""
    limit = limits.balance_jump_bps
    if limit is None:
        beyond = ""
    else:
        beyond = f" beyond limits.balance_jump of {limit / 100:g} %"
    until = "until they are explained"
    if all(flow.delta_raw > 0 for flow in holding):
        last_s = max(accepted_s(limits, cash_flows, flow) for flow in holding)
        until += f", or accepted as deposits at {format_time(last_s)}"
    return (
        f"unexplained balance changes{beyond}: {message}{more}; no purchases or rebalances "
        f"{until}: trimtab flows confirm; exits, withdrawals and stop continue"
    )


def format_accepted_deposits(portfolio: Portfolio, accepted: Sequence[ExternalTransfer]) -> str:
    """Format the increases accepted as deposits in the last 24 h; empty if there are none."""
    texts = [format_change(portfolio, flow) for flow in accepted]
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    if texts:
        return (
            f"accepted as a deposit, because it was not explained: {'; '.join(texts[:SHOWN])}{more}"
        )
    return ""


def format_change(portfolio: Portfolio, flow: ExternalTransfer) -> str:
    """Format one transfer: token, amount, value and blocks."""
    went = "rose" if flow.delta_raw > 0 else "fell"
    numeraire = portfolio.numeraire
    if flow.value is None:
        worth = "without a price"
    else:
        worth = f"{value_text(abs(flow.value), numeraire.decimals, 2)} {numeraire.label}"
    return (
        f"{token_label(portfolio, flow.token)} {went} by {format_change_amount(portfolio, flow)} ({worth})"
        f" between blocks {flow.since_block} and {flow.block}"
    )


def format_change_amount(portfolio: Portfolio, flow: ExternalTransfer) -> str:
    """Format the amount in whole coins; in base units for a token that is no longer in the
    portfolio.
    """
    try:
        return decimal_text(abs(flow.delta_raw), portfolio.token(flow.token).decimals)
    except KeyError:
        return f"{abs(flow.delta_raw)} base units"


def token_label(portfolio: Portfolio, token: str) -> str:
    """Return a token's display name; its address if it is no longer in the portfolio."""
    if token == NATIVE:
        return "native coin"
    try:
        return portfolio.token(token).label
    except KeyError:
        return token
