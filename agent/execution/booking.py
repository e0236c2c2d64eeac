"""Books what was mined: at the prices before the trade where they are known, and in no case so that the agent stands still for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from agent import codec
from agent.errors import ConfigError, OperatorNeeded
from agent.execution import flows, liquidity
from agent.execution.settle import book, native_delta
from agent.model import Intent, IntentKind, Rebalance, Snapshot, StepInput
from agent.ports import Journal
from agent.reference import reference_prices

AHEAD_S = 30
"""How far a block's time may be ahead of the agent's clock, in seconds, before it is not believed."""


def settle(journal: Journal, snapshot: Snapshot, present: Callable[[], StepInput], before: Snapshot | None = None) -> None:
    """Books every mined transaction that no budget knows yet, at the reference prices of its own step.

    `present` is asked only where that step cannot be read any more (another version wrote it): then the prices of now
    count, and no gain. While a token that went has no price even now, the transaction waits unbooked: nothing is planned
    without that price either. With the snapshot `before` the last trade its loss is the worse of what balances and what
    events say, unless the books know every balance: then what events do not say is a flow, and counts there. Tokens that had
    no price, strangers' among them, count nothing: a plan cannot spend them, and events of a contract that nobody asked for
    prove nothing (T11). Then balances are compared with the books.
    """
    kept = {opening.token for opening in journal.books().openings}
    for intent in journal.unbooked():
        own = own_step(journal, intent)
        basis = own or present()
        prices = {token: found.price for token, found in reference_prices(basis).prices.items()}
        if own is None and _unpriced(intent, basis, prices):
            continue
        native = prices.get(basis.portfolio.wrapped_native, Fraction(0))
        if intent.kind is IntentKind.LIQUIDITY:
            after = None if before is None else snapshot
            liquidity.book(journal, intent, own, after, prices, native, _chain_s(snapshot, own))
            continue
        coin = basis.portfolio.wrapped_native
        trade = before is not None and intent.kind in (IntentKind.SWAP, IntentKind.UNWRAP)
        trade = trade and not kept >= {holding.token for holding in snapshot.holdings}
        balances = _balances(before, snapshot, prices) if trade and before is not None else None
        if balances is not None and before is not None and native_delta(intent, snapshot.owner, coin):
            balances = _with_native(balances, (before, snapshot), intent, coin)
        paid = journal.grant(intent.id).payout if intent.kind is IntentKind.PAYOUT else None
        at_s, apart = _chain_s(snapshot, own), _apart(journal, intent)
        book(journal, intent, snapshot.owner, prices, native, at_s, balances, own is not None, coin, paid, apart)
    flows.note(journal, snapshot, present)


def _apart(journal: Journal, intent: Intent) -> Fraction:
    """What of a swap limits of turnover do not count, by the plan that was granted."""
    plan = journal.grant(intent.id).plan if intent.kind is IntentKind.SWAP else None
    return plan.decision.apart if plan is not None and isinstance(plan.decision, Rebalance) else Fraction(0)


def reviewed_s(snapshot: Snapshot) -> int:
    """Chain time to remember a review by: a header from the future must not keep every later step waiting for that day."""
    return min(snapshot.head.timestamp_s, snapshot.now_s + AHEAD_S)


def poorer(step_input: StepInput, intent: Intent) -> StepInput:
    """The same input after the gas money of `intent`."""
    paid_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
    history, snapshot = step_input.history, step_input.snapshot
    return replace(
        step_input,
        history=replace(history, gas_24h_wei=history.gas_24h_wei + paid_wei),
        snapshot=replace(snapshot, native_wei=max(0, snapshot.native_wei - paid_wei)),
    )


def own_step(journal: Journal, intent: Intent) -> StepInput | None:
    """What the step decided from that an intent belongs to; None where that cannot be read any more."""
    try:
        text = journal.step_input(intent.step_id)
        return None if text is None else _read(text)
    except (ConfigError, OperatorNeeded):
        return None


@lru_cache(maxsize=2)
def _read(text: str) -> StepInput:
    """The step of a record. The transactions of a step are booked and entered one by one, and ask for the same one again."""
    return codec.loads(StepInput, text)


def _unpriced(intent: Intent, basis: StepInput, prices: dict[str, Fraction]) -> bool:
    """Whether a token of ours went that cannot be valued now."""
    if intent.receipt is None:
        return False
    ours = {asset.token.address for asset in basis.portfolio.assets}
    return any(raw < 0 and token in ours and token not in prices for token, raw in intent.receipt.net(basis.snapshot.owner).items())


def _balances(before: Snapshot, after: Snapshot, prices: dict[str, Fraction]) -> tuple[dict[str, int], dict[str, int]]:
    """Balances by token, of tokens with a price that were read both times: one that could not be read has not become zero."""
    had = {holding.token: holding.raw for holding in before.holdings}
    has = {holding.token: holding.raw for holding in after.holdings}
    both = had.keys() & has.keys() & prices.keys()
    return {token: had[token] for token in both}, {token: has[token] for token in both}


def _with_native(
    balances: tuple[dict[str, int], dict[str, int]], snapshots: tuple[Snapshot, Snapshot], intent: Intent, coin: str
) -> tuple[dict[str, int], dict[str, int]]:
    """The same with native coin counted as its wrapped token, before the gas of `intent`."""
    gas_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
    natives_wei = snapshots[0].native_wei, snapshots[1].native_wei + gas_wei
    had, has = (
        {token: raw + (wei if token == coin else 0) for token, raw in held.items()} for held, wei in zip(balances, natives_wei, strict=True)
    )
    return had, has


def _chain_s(snapshot: Snapshot, own: StepInput | None) -> int:
    """Time to book at. A header from the future is not believed beyond the clock, nor the clock before the trade's own step:
    neither halts the agent until that day, nor takes an entry out of the last 24 hours (T6).
    """
    believed_s = max(snapshot.now_s + AHEAD_S, 0 if own is None else own.snapshot.head.timestamp_s)
    return min(snapshot.head.timestamp_s, believed_s)
