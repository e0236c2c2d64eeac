"""Ledger entries of futures: orders, margin moves, funding payments, and readings of the margin
account.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from agent.accounting.entries import (
    MARGIN,
    WALLET,
    EntryBuilder,
    EntryPrices,
    SettledTransaction,
    ledger_changes,
    trade_entry,
)
from agent.layers.futures.state import futures_policy, margin_account, unknown_books_reason
from agent.margin import account as margin
from agent.model import (
    Entry,
    EntryKind,
    FuturesEntry,
    FuturesFill,
    FuturesPolicy,
    MarginDeposit,
    MarginReading,
    MarginWithdrawal,
    MarketReading,
    PerpFunding,
    PerpOrder,
    Receipt,
    SettledFunding,
    Snapshot,
    StepInput,
    VenuePayment,
)
from agent.ports import Grant
from agent.ports.perpetuals import granted_action


def settled_entry(
    grant: Grant,
    transaction: SettledTransaction,
    prices: EntryPrices,
    ledger_tokens: Collection[str],
    step: StepInput,
    receipt: Receipt,
) -> Entry:
    """Return the entry of a successful futures action; that of a delegate's approval is gas."""
    account_effect = futures_effect(step.snapshot, futures_policy(step), receipt, prices)
    match granted_action(grant):
        case PerpOrder():
            return futures_entry(transaction, prices, ledger_tokens, account_effect)
        case MarginDeposit() | MarginWithdrawal():
            return margin_entry(transaction, prices, ledger_tokens, account_effect)
        case _:
            return trade_entry(transaction, prices, ledger_tokens, {})


def margin_entry(
    transaction: SettledTransaction,
    prices: EntryPrices,
    ledger_tokens: Collection[str],
    account_effect: FuturesEntry | None,
) -> Entry:
    """Return the entry of an internal transfer of collateral between wallet and margin account."""
    builder = EntryBuilder(prices)
    for token, moved_raw in ledger_changes(transaction.change_raw_by_token, ledger_tokens).items():
        builder.move(WALLET, MARGIN, token, moved_raw)
    return replace(
        builder.entry(transaction, EntryKind.MARGIN, ledger_tokens), futures=account_effect
    )


def futures_entry(
    transaction: SettledTransaction,
    prices: EntryPrices,
    ledger_tokens: Collection[str],
    account_effect: FuturesEntry | None,
) -> Entry:
    """Return the entry of a futures order: gas in the wallet, and effect on the margin account."""
    gas_entry = EntryBuilder(prices).entry(transaction, EntryKind.FUTURES, ledger_tokens)
    return replace(gas_entry, futures=account_effect)


def futures_effect(
    snapshot: Snapshot, policy: FuturesPolicy | None, receipt: Receipt, prices: EntryPrices
) -> FuturesEntry | None:
    """Return the effect of a receipt's events on the margin account of the step; None without an
    account. The size of a fill in a market that the account does not have is unknown.
    """
    account = margin_account(snapshot)
    if account is None or policy is None:
        return None
    symbol_by_market = {market.market: market.symbol for market in account.markets}
    size_decimals_by_market = {market.market: market.size_decimals for market in account.markets}
    account_key = (account.quote.address, policy.trader)
    return FuturesEntry(
        policy.collateral,
        account.collateral_unit_raw,
        prices.of(policy.collateral),
        tuple(
            FuturesFill(
                fill.market,
                symbol_by_market.get(fill.market, fill.market),
                fill.size_raw,
                abs(fill.quote_raw),
                fill.fee_raw,
                fill.realised_raw,
                size_decimals_by_market.get(fill.market),
            )
            for fill in receipt.fills
            if (fill.clearing_house, fill.trader) == account_key
        ),
        tuple(
            _settled_funding(payment, symbol_by_market)
            for payment in receipt.funding
            if (payment.clearing_house, payment.trader) == account_key
        ),
    )


def funding_entries(step: StepInput, prices: EntryPrices) -> tuple[Entry, ...]:
    """Return one entry per funding payment of the step's account that the venue made by itself, at
    the time of the payment.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None:
        return ()
    symbol_by_market = {market.market: market.symbol for market in account.markets}
    collateral_price = prices.of(policy.collateral)
    return tuple(
        Entry(
            f"funding-{payment.market}-{payment.at_s}",
            EntryKind.FUTURES,
            step.snapshot.head.number,
            payment.at_s,
            "",
            "funding",
            (),
            futures=FuturesEntry(
                policy.collateral,
                account.collateral_unit_raw,
                collateral_price,
                (),
                (_settled_funding(payment, symbol_by_market),),
            ),
        )
        for payment in account.unbooked_payments
    )


def _settled_funding(
    payment: PerpFunding | VenuePayment, symbol_by_market: Mapping[str, str]
) -> SettledFunding:
    return SettledFunding(
        market=payment.market,
        symbol=symbol_by_market.get(payment.market, payment.market),
        paid_raw=payment.paid_raw,
    )


def margin_reading(snapshot: Snapshot, policy: FuturesPolicy | None) -> MarginReading | None:
    """Read the margin account at the step's block; None if it is unknown or there is none, and
    while its transfers or funding payments may be missing.
    """
    account = margin_account(snapshot)
    if account is None or unknown_books_reason(snapshot):
        return None
    pending_funding_raw_by_market = {
        position.market: position.funding_pending_raw for position in account.positions
    }
    return MarginReading(
        account.collateral_unit_raw,
        account.collateral_raw,
        account.realised_raw,
        margin.unrealised_profit_raw(account),
        tuple(
            MarketReading(
                market.market,
                market.symbol,
                account.size_raw(market.market),
                margin.position_value_raw(market, account.size_raw(market.market)),
                pending_funding_raw_by_market.get(market.market, 0),
                market.funding_daily,
            )
            for market in account.markets
        ),
        counts_in_weights=policy is None or policy.margin_in_weights,
    )
