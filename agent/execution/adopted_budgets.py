"""Daily limits of a new or adopted store: the wallet's last 24 h are read from the chain (T6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
from agent.store.accounts.budgets import BudgetStore
from agent.units import NATIVE, Price

UNKNOWN_DAY_REMEDY = (
    "wait a day, or run trimtab adopt --nothing-lost to confirm that nothing was lost"
)
ARCHIVE_REMEDY = f"use an endpoint with archive state, {UNKNOWN_DAY_REMEDY}"

FIRST_PAUSE_S = 60
"""Chain time until the day is read again after a failure; each further failure doubles it."""
LONGEST_PAUSE_S = 3_600


@dataclass(slots=True)
class PriorDayPause:
    """Pause of one process after it failed to read the last 24 h from the chain: until that chain
    time it makes no request for them.
    """

    until_s: int = 0
    pause_s: int = 0
    failure_text: str = ""

    def begin(self, now_s: int, failure_text: str) -> None:
        """Begin the next pause, twice as long as the last one."""
        self.pause_s = min(max(2 * self.pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self.until_s = now_s + self.pause_s
        self.failure_text = failure_text


def with_recorded_day(
    step: StepInput,
    balance_store: BalanceStore,
    budget_store: BudgetStore,
    endpoint_pool: EndpointPool,
    is_contract: bool = False,
    pause: PriorDayPause | None = None,
) -> StepInput:
    """Return the step with a history of the last 24 h, read from the chain once; its snapshot
    counts the requests. After a failure nothing is requested during `pause`.

    If the chain cannot be read, daily limits refuse until the store covers a whole day or the owner
    confirms that day, so that no limit takes an unknown day for an unused one. A swap is valued at
    the reference prices just before it if feeds and the node still have them, else at current
    prices. Its gain counts as zero, and its loss is at least its gas. Tokens sent anywhere but to
    the router count as a payment by the owner: its loss is its gas, and its amount counts in
    limits.payout_per_day, as does the loss of a swap on another contract. `is_contract` means that
    the wallet is a contract, whose nonce does not count transactions sent by its owners.
    """
    snapshot = step.snapshot
    now_s = snapshot.head.timestamp_s
    if balance_store.is_prior_day_known(now_s):
        return step
    pause = pause or PriorDayPause()
    if now_s < pause.until_s:
        return _with_unknown_day(step, pause.failure_text, is_contract=is_contract)
    requests_before = endpoint_pool.request_count
    try:
        recent_txs = _recent_transactions(step, endpoint_pool, is_contract=is_contract)
        day_transactions = prior_day_usage(step, recent_txs)
    except TrimtabError as error:
        balance_store.mark_prior_day_failed(now_s)
        pause.begin(now_s, error.message)
        return _with_unknown_day(
            _with_requests(step, endpoint_pool, requests_before),
            error.message,
            is_contract=is_contract,
        )
    balance_store.record_prior_day(day_transactions, snapshot.nonce_latest)
    return replace(
        _with_requests(step, endpoint_pool, requests_before), history=budget_store.history(now_s)
    )


def _recent_transactions(
    step: StepInput, endpoint_pool: EndpointPool, *, is_contract: bool
) -> RecentTransactions:
    snapshot = step.snapshot
    if not snapshot.nonce_latest:
        return RecentTransactions(0, ())
    if is_contract:
        raise HistoryUnavailable(
            "calls that the Safe's owners execute elsewhere are not read, and an earlier confirmation"
            " does not cover a later one"
        )
    feed_addresses = [feed.feed for feed in snapshot.feeds if feed.feed in step.portfolio.feeds()]
    return recent_transactions(
        endpoint_pool, snapshot.owner, snapshot.head, snapshot.nonce_latest, feed_addresses
    )


def _with_unknown_day(step: StepInput, failure_text: str, *, is_contract: bool) -> StepInput:
    remedy = UNKNOWN_DAY_REMEDY if is_contract else ARCHIVE_REMEDY
    day_reason = f"the wallet's last 24 h are not known ({failure_text}); {remedy}"
    unknown_reason = "; ".join(filter(None, (step.history.budgets.unknown_reason, day_reason)))
    budgets = replace(step.history.budgets, unknown_reason=unknown_reason)
    return replace(step, history=replace(step.history, budgets=budgets))


def _with_requests(step: StepInput, endpoint_pool: EndpointPool, count_before: int) -> StepInput:
    """Return the step whose snapshot also counts the requests since `count_before`."""
    request_count = step.snapshot.http_request_count + endpoint_pool.request_count - count_before
    return replace(step, snapshot=replace(step.snapshot, http_request_count=request_count))


def prior_day_usage(
    step: StepInput, recent_txs: RecentTransactions
) -> tuple[ExternalTransaction, ...]:
    """Return each transaction's use of the daily limits, at the reference prices of its time if
    known, else at current ones. Raises HistoryUnavailable if a transferred asset has neither price,
    because its loss would go unrecorded.
    """
    wrapped_native = step.portfolio.wrapped_native
    asset_tokens = {asset.token.address for asset in step.portfolio.assets} | {wrapped_native}
    current_price_by_token = reference_prices(step).price_by_token
    day_transactions = []
    for transaction in recent_txs.transactions:
        price_by_token = current_price_by_token
        if transaction.feed_answers:
            price_by_token = {
                **current_price_by_token,
                **reference_prices(_with_feeds_as_of(step, transaction)).price_by_token,
            }
        moved_tokens = {
            token
            for token, raw in transaction.receipt.net_transfers(step.snapshot.owner).items()
            if raw
        }
        if unpriced := ((moved_tokens | {wrapped_native}) & asset_tokens) - price_by_token.keys():
            labels = [token_label(step.portfolio, token) for token in sorted(unpriced)]
            raise HistoryUnavailable(f"no reference price of {', '.join(labels)}")
        asset_price_by_token = {
            token: price for token, price in price_by_token.items() if token in asset_tokens
        }
        day_transactions.append(
            _prior_usage(
                step.portfolio,
                step.execution,
                step.snapshot.owner,
                transaction,
                asset_price_by_token,
            )
        )
    return tuple(day_transactions)


def _with_feeds_as_of(step: StepInput, transaction: MinedTx) -> StepInput:
    """Return the step with the feed answers at the time of a transaction."""
    answer_by_feed = dict(transaction.feed_answers)
    now_s = step.snapshot.head.timestamp_s
    past_feeds = tuple(
        replace(
            feed,
            answer=answer_by_feed[feed.feed],
            started_at_s=now_s,
            updated_at_s=now_s,
        )
        if feed.feed in answer_by_feed
        else feed
        for feed in step.snapshot.feeds
    )
    return replace(step, snapshot=replace(step.snapshot, feeds=past_feeds))


def _prior_usage(
    portfolio: Portfolio,
    execution: ExecutionConfig,
    wallet: str,
    transaction: MinedTx,
    prices: dict[str, Price],
) -> ExternalTransaction:
    wrapped_native = portfolio.wrapped_native
    receipt = transaction.receipt
    native_price = prices.get(wrapped_native, Fraction(0))
    intent = _as_intent(transaction)
    change_by_token = {
        token: raw
        for token, raw in receipt.net_transfers(wallet).items()
        if token in prices and raw
    }
    if native_change_wei := intent.native_change_wei(wallet, wrapped_native):
        change_by_token[wrapped_native] = change_by_token.get(wrapped_native, 0) + native_change_wei
    gas_value = receipt.gas_cost_wei * native_price
    is_exchange = any(raw > 0 for raw in change_by_token.values()) and any(
        raw < 0 for raw in change_by_token.values()
    )
    is_trade = is_exchange or transaction.to == execution.router
    loss = (
        max(gas_value, trade_loss({}, change_by_token, prices, gas_value))
        if is_trade
        else gas_value
    )
    turnover = trade_turnover(change_by_token, prices) if is_trade else Fraction(0)
    if transaction.to == execution.router:
        payout_value = Fraction(0)
    elif is_trade:  # a payment that returned only dust is still a payment
        payout_value = loss - gas_value
    else:
        payout_value = sum(
            (-raw * prices[token] for token, raw in change_by_token.items() if raw < 0), Fraction(0)
        )
    wallet_changes = tuple(sorted(intent.balance_changes(wallet, wrapped_native).items()))
    return ExternalTransaction(
        receipt.tx_hash,
        receipt.block_number,
        transaction.block_time_s,
        turnover,
        loss,
        receipt.gas_cost_wei,
        wallet_changes,
        transaction.nonce,
        payout_value,
    )


def _as_intent(transaction: MinedTx) -> Intent:
    """Return the transaction as an intent, whose methods read its receipt."""
    tx = UnsignedTx(
        0,
        transaction.nonce,
        transaction.to or NATIVE,
        transaction.value_wei,
        "0x",
        0,
        None,
        None,
        None,
    )
    state = IntentState.FINAL if transaction.receipt.status == 1 else IntentState.REVERTED
    return Intent(
        "",
        "",
        IntentKind.SWAP,
        state,
        tx,
        "",
        transaction.block_time_s,
        None,
        transaction.receipt.tx_hash,
        transaction.receipt,
    )
