"""Daily limits of a new or adopted store: the wallet's last 24 h are read from the chain (T6)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.chain.endpoints import EndpointPool
from agent.chain.history import HistoryUnavailable, MinedTx, RecentTransactions, recent_transactions
from agent.errors import TrimtabError
from agent.execution.settlement import (
    trade_loss,
    trade_turnover,
)
from agent.model import (
    ExecutionConfig,
    ExternalTransaction,
    Intent,
    IntentKind,
    IntentState,
    Portfolio,
    StepInput,
    UnsignedTx,
)
from agent.policy.cash_flows.balance_changes import token_label
from agent.reference import reference_prices
from agent.store.accounts.balances import BalanceStore
from agent.store.budgets import BudgetStore
from agent.units import NATIVE, Price

REMEDY = (
    "use an endpoint with archive state, wait a day, or run trimtab adopt --nothing-lost to"
    " confirm that nothing was lost"
)


def with_prior_day(
    step: StepInput,
    balances: BalanceStore,
    budgets: BudgetStore,
    endpoint_pool: EndpointPool,
    contract: bool = False,
) -> StepInput:
    """Return the step with a history of the last 24 h, read from the chain once.

    If the chain cannot be read, daily limits refuse until the store covers a whole day or the owner
    confirms that day, so that no limit takes an unknown day for an unused one. A swap is valued at
    the reference prices just before it if feeds and the node still have them, else at current
    prices. Its gain counts as zero, and its loss is at least its gas. A transfer out, except to the
    router, is the owner's: it costs its gas and counts as paid out (limits.payout_per_day), as does
    the loss of a swap elsewhere. `contract` means that the wallet is a contract, whose nonce does
    not count transactions sent by its owners.
    """
    snapshot = step.snapshot
    now_s = snapshot.head.timestamp_s
    if balances.prior_day_known(now_s):
        return step
    try:
        if contract and snapshot.nonce_latest:
            raise HistoryUnavailable("earlier transactions of the Safe's owners are not read")
        feeds = [feed.feed for feed in snapshot.feeds if feed.feed in step.portfolio.feeds()]
        day = RecentTransactions(0, ())
        if snapshot.nonce_latest:
            day = recent_transactions(
                endpoint_pool, snapshot.owner, snapshot.head, snapshot.nonce_latest, feeds
            )
        usage = prior_day_usage(step, day)
    except TrimtabError as error:
        balances.mark_day_asked(now_s)
        why = f"the wallet's last 24 h are not known ({error.message}); {REMEDY}"
        unknown = "; ".join(filter(None, (step.history.budgets.unknown, why)))
        return replace(
            step,
            history=replace(step.history, budgets=replace(step.history.budgets, unknown=unknown)),
        )
    balances.record_prior_day(usage, snapshot.nonce_latest)
    return replace(step, history=budgets.history(now_s))


def prior_day_usage(step: StepInput, day: RecentTransactions) -> tuple[ExternalTransaction, ...]:
    """Return each transaction's use of the daily limits, at the reference prices of its time if
    known, else at current ones. Raises HistoryUnavailable if a transferred asset has neither price,
    because its loss would go unrecorded.
    """
    coin = step.portfolio.wrapped_native
    assets = {asset.token.address for asset in step.portfolio.assets} | {coin}
    present = reference_prices(step).by_token
    usage = []
    for sent in day.sent:
        prices = present
        if sent.answers:
            prices = {**present, **reference_prices(_with_feeds_as_of(step, sent)).by_token}
        moved = {token for token, raw in sent.receipt.net(step.snapshot.owner).items() if raw}
        for token in sorted(((moved | {coin}) & assets) - prices.keys()):
            raise HistoryUnavailable(f"{token_label(step.portfolio, token)} has no reference price")
        asset_prices = {token: price for token, price in prices.items() if token in assets}
        usage.append(
            _prior_usage(step.portfolio, step.execution, step.snapshot.owner, sent, asset_prices)
        )
    return tuple(usage)


def _with_feeds_as_of(step: StepInput, sent: MinedTx) -> StepInput:
    """Return the step with the feed answers at the time of a transaction."""
    answers, now_s = dict(sent.answers), step.snapshot.head.timestamp_s
    feeds = tuple(
        replace(
            feed,
            answer=answers[feed.feed],
            started_at_s=now_s,
            updated_at_s=now_s,
        )
        if feed.feed in answers
        else feed
        for feed in step.snapshot.feeds
    )
    return replace(step, snapshot=replace(step.snapshot, feeds=feeds))


def _prior_usage(
    portfolio: Portfolio,
    execution: ExecutionConfig,
    owner: str,
    sent: MinedTx,
    prices: dict[str, Price],
) -> ExternalTransaction:
    coin, wallet, receipt = portfolio.wrapped_native, owner, sent.receipt
    native = prices.get(coin, Fraction(0))
    intent = _as_intent(sent)
    deltas = {token: raw for token, raw in receipt.net(wallet).items() if token in prices and raw}
    if wei := intent.coins(wallet, coin):
        deltas[coin] = deltas.get(coin, 0) + wei
    gas_value = receipt.gas_cost_wei * native
    exchanged = any(raw > 0 for raw in deltas.values()) and any(raw < 0 for raw in deltas.values())
    traded = exchanged or sent.to == execution.router
    lost = max(gas_value, trade_loss({}, deltas, prices, gas_value)) if traded else gas_value
    moved = trade_turnover(deltas, prices) if traded else Fraction(0)
    if sent.to == execution.router:
        paid = Fraction(0)
    elif traded:  # a payment that returned only dust is still a payment
        paid = lost - gas_value
    else:
        paid = sum((-raw * prices[token] for token, raw in deltas.items() if raw < 0), Fraction(0))
    changes = tuple(sorted(intent.changes(wallet, coin).items()))
    return ExternalTransaction(
        receipt.tx_hash,
        receipt.block_number,
        sent.chain_s,
        moved,
        lost,
        receipt.gas_cost_wei,
        changes,
        paid,
    )


def _as_intent(sent: MinedTx) -> Intent:
    """Return the transaction as an intent, whose methods read its receipt."""
    tx = UnsignedTx(0, sent.nonce, sent.to or NATIVE, sent.value_wei, "0x", 0, None, None, None)
    state = IntentState.FINAL if sent.receipt.status == 1 else IntentState.REVERTED
    return Intent(
        "",
        "",
        IntentKind.SWAP,
        state,
        tx,
        "",
        sent.chain_s,
        None,
        sent.receipt.tx_hash,
        sent.receipt,
    )
