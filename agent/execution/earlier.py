"""Makes the limits of a day whole when a store is new, or adopted: what the wallet did before is told by the chain (T6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fractions import Fraction
from typing import Protocol

from agent.chain.chronicle import CannotTell, Day, Sent, last_day
from agent.chain.panel import Panel
from agent.errors import TrimtabError
from agent.execution.settle import loss, turnover
from agent.model import Earlier, History, Intent, IntentKind, IntentState, StepInput, UnsignedTx
from agent.policy.flows import label
from agent.reference import reference_prices
from agent.units import NATIVE, Price

REMEDY = "an endpoint that keeps old states can tell; or wait a day; or vouch for it with trimtab db adopt --nothing-lost"


class Memory(Protocol):
    """The part of a store that remembers what was before it."""

    def day_is_known(self, chain_now_s: int) -> bool:
        """Whether all of the last 24 h is in the books."""
        ...

    def ask_day(self, chain_now_s: int) -> None:
        """Remembers since when the chain was asked in vain."""
        ...

    def tell_day(self, found: Iterable[Earlier], nonce: int) -> None:
        """Writes down what the chain told up to the wallet's next nonce."""
        ...

    def history(self, chain_now_s: int) -> History:
        """Sums over the last 24 h."""
        ...


def recall(step: StepInput, memory: Memory, panel: Panel, contract: bool = False) -> StepInput:
    """The step with a history that covers the last 24 h: asks the chain once. Where it cannot tell, the history says so, and the
    limits of a day refuse until the store itself has seen a whole day, or the owner vouches for it: no budget starts empty.

    An exchange is valued at the reference prices just before it, as far as price feeds tell them and the node remembers, else at
    those of now; what it gained counts nothing, and its loss is at least its gas. What only went out, unless to the router, was
    the owner's own act: it costs its gas, and counts as paid out (limits.payout_per_day), as what an exchange elsewhere lost does.
    What others had a wallet do that is a `contract`, no nonce of its tells.
    """
    snapshot = step.snapshot
    now_s = snapshot.head.timestamp_s
    if memory.day_is_known(now_s):
        return step
    try:
        if contract and snapshot.nonce_latest:
            raise CannotTell("what its owners had the Safe do before is not looked for")
        feeds = [feed.feed for feed in snapshot.feeds if feed.feed in step.portfolio.feeds()]
        found = last_day(panel, snapshot.owner, snapshot.head, snapshot.nonce_latest, feeds) if snapshot.nonce_latest else Day(0, ())
        told = entries(step, found)
    except TrimtabError as error:
        memory.ask_day(now_s)
        why = f"what the wallet did in the last 24 h is not known ({error.message}); {REMEDY}"
        return replace(step, history=replace(step.history, unknown=step.history.unknown or why))
    memory.tell_day(told, snapshot.nonce_latest)
    return replace(step, history=memory.history(now_s))


def entries(step: StepInput, day: Day) -> tuple[Earlier, ...]:
    """What each transaction used up, at the reference prices of then where they are known, else of now.

    Raises CannotTell where one moved an asset that has neither: counted without it, it would be written down as no loss for good.
    """
    assets = {asset.token.address for asset in step.portfolio.assets} | {step.portfolio.wrapped_native}
    now = _prices(step)
    found = []
    for one in day.sent:
        prices = {**now, **_prices(_as_of(step, one))} if one.answers else now
        moved = {token for token, raw in one.receipt.net(step.snapshot.owner).items() if raw} | {step.portfolio.wrapped_native}
        for token in sorted((moved & assets) - prices.keys()):
            raise CannotTell(f"{label(step, token)} has no reference price")
        found.append(_entry(step, one, {token: price for token, price in prices.items() if token in assets}))
    return tuple(found)


def _prices(step: StepInput) -> dict[str, Price]:
    return {token: found.price for token, found in reference_prices(step).prices.items()}


def _as_of(step: StepInput, sent: Sent) -> StepInput:
    """The step with what its feeds said then, as if they said it now."""
    then, now_s = dict(sent.answers), step.snapshot.head.timestamp_s
    feeds = tuple(
        replace(feed, answer=then[feed.feed], started_at_s=now_s, updated_at_s=now_s) if feed.feed in then else feed
        for feed in step.snapshot.feeds
    )
    return replace(step, snapshot=replace(step.snapshot, feeds=feeds))


def _entry(step: StepInput, sent: Sent, prices: dict[str, Price]) -> Earlier:
    coin, wallet, receipt = step.portfolio.wrapped_native, step.snapshot.owner, sent.receipt
    native = prices.get(coin, Fraction(0))
    intent = _as_intent(sent)
    deltas = {token: raw for token, raw in receipt.net(wallet).items() if token in prices and raw}
    if wei := intent.coins(wallet, coin):
        deltas[coin] = deltas.get(coin, 0) + wei
    gas_value = receipt.gas_cost_wei * native
    exchanged = any(raw > 0 for raw in deltas.values()) and any(raw < 0 for raw in deltas.values())
    traded = exchanged or sent.to == step.execution.router
    lost = max(gas_value, loss({}, deltas, prices, gas_value)) if traded else gas_value
    moved = turnover(deltas, prices) if traded else Fraction(0)
    if sent.to == step.execution.router:
        paid = Fraction(0)
    elif traded:  # a crumb in return does not make a payment an exchange
        paid = lost - gas_value
    else:
        paid = sum((-raw * prices[token] for token, raw in deltas.items() if raw < 0), Fraction(0))
    changes = tuple(sorted(intent.changes(wallet, coin).items()))
    return Earlier(receipt.tx_hash, receipt.block_number, sent.chain_s, moved, lost, receipt.gas_cost_wei, changes, paid)


def _as_intent(sent: Sent) -> Intent:
    """The transaction as if it were ours, to read its receipt by the same rules."""
    tx = UnsignedTx(0, sent.nonce, sent.to or NATIVE, sent.value_wei, "0x", 0, None, None, None)
    state = IntentState.FINAL if sent.receipt.status == 1 else IntentState.REVERTED
    return Intent("", "", IntentKind.SWAP, state, tx, "", sent.chain_s, None, sent.receipt.tx_hash, sent.receipt)
