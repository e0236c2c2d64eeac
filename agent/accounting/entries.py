"""Ledger entries of transactions and external transfers. In each entry the postings of a token sum
to zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.model import (
    Entry,
    EntryKind,
    ExternalTransfer,
    ExternalTransferKind,
    LedgerOpening,
    Posting,
)
from agent.units import NATIVE, Price, Value, floor_int

QUANTA_PER_UNIT = 10**12
"""Quanta (grid steps) per numeraire base unit."""


def quantize(value: Fraction) -> Value:
    """Return a value rounded to the grid, half to even."""
    return Fraction(round(value * QUANTA_PER_UNIT), QUANTA_PER_UNIT)


def to_quanta(value: Value) -> int:
    """Return a value in whole quanta, rounded half to even, for fast sums over thousands of
    entries.
    """
    quotient, remainder = divmod(value.numerator * QUANTA_PER_UNIT, value.denominator)
    return quotient if remainder == 0 else round(value * QUANTA_PER_UNIT)


def from_quanta(quanta: int) -> Value:
    """Return the value of a number of quanta."""
    return Fraction(quanta, QUANTA_PER_UNIT)


def exact_sum(values: Iterable[Value]) -> Value:
    """Return the exact sum, much faster than by adding fractions if the values are on the grid."""
    quanta = 0
    off_grid_sum = Fraction(0)
    for value in values:
        factor, remainder = divmod(QUANTA_PER_UNIT, value.denominator)
        if remainder:
            off_grid_sum += value
        else:
            quanta += value.numerator * factor
    return from_quanta(quanta) + off_grid_sum


def prorated_value(value: Value, part_raw: int, whole_raw: int) -> Value:
    """Return value · part_raw / whole_raw, rounded down to the grid. The remainder, `value` minus
    the result, is exact.
    """
    return Fraction(floor_int(value * part_raw / whole_raw * QUANTA_PER_UNIT), QUANTA_PER_UNIT)


def split_quanta(quanta: int, weights: list[int]) -> list[int]:
    """Split quanta by non-negative weights into parts rounded down; equal parts if all weights are
    zero. The last part with a positive weight takes the remainder.
    """
    if len(weights) == 1:
        return [quanta]
    weight_sum = sum(weights)
    if weight_sum == 0:
        weights = [1] * len(weights)
        weight_sum = len(weights)
    quanta_parts = [quanta * weight // weight_sum for weight in weights]
    last_weight_index = max(
        weight_index for weight_index, weight in enumerate(weights) if weight > 0
    )
    quanta_parts[last_weight_index] += quanta - sum(quanta_parts)
    return quanta_parts


WALLET = "assets:wallet"
LP = "assets:lp"
TRADING = "trading"
MARGIN = "assets:margin"
OPENING = "equity:opening"
DEPOSITS = "equity:deposits"
WITHDRAWALS = "equity:withdrawals"
UNEXPLAINED = "equity:unexplained"
UNDONE = "equity:undone"
"""Account of decreases that were fully restored: no loss, no deposit, lots unchanged."""
GIFTS = "income:gifts"
REBASES = "income:rebases"
LP_INCOME = "income:lp"
GAS = "expenses:gas"
FEES = "expenses:fees"
LOSSES = "expenses:losses"
LP_LOSSES = "expenses:lp"
RawAmounts = Mapping[str, int]

_TRANSFER_ACCOUNTS: dict[ExternalTransferKind | None, tuple[EntryKind, str]] = {
    None: (EntryKind.UNEXPLAINED, UNEXPLAINED),
    ExternalTransferKind.DEPOSIT: (EntryKind.DEPOSIT, DEPOSITS),
    ExternalTransferKind.ACCEPTED: (EntryKind.DEPOSIT, DEPOSITS),
    ExternalTransferKind.AUTOMATIC: (EntryKind.DEPOSIT, DEPOSITS),
    ExternalTransferKind.GAS_MONEY: (EntryKind.GAS_MONEY, DEPOSITS),
    ExternalTransferKind.WITHDRAWAL: (EntryKind.WITHDRAWAL, WITHDRAWALS),
    ExternalTransferKind.GIFT: (EntryKind.GIFT, GIFTS),
    ExternalTransferKind.LOSS: (EntryKind.LOSS, LOSSES),
    ExternalTransferKind.REBASE: (EntryKind.REBASE, REBASES),
    ExternalTransferKind.UNDONE: (EntryKind.UNDONE, UNDONE),
}


@dataclass(frozen=True, slots=True)
class EntryPrices:
    """Reference prices of an entry's step by token; native coin has the price of its wrapped token
    `wrapped_native`.
    """

    by_token: Mapping[str, Price]
    wrapped_native: str

    def of(self, token: str) -> Price | None:
        """Return numeraire base units per base unit of a token; None without a price."""
        return self.by_token.get(self.wrapped_native if token == NATIVE else token)


@dataclass(frozen=True, slots=True)
class SettledTransaction:
    """Effect of a final transaction on the wallet: change by token in base units, excluding gas,
    and the gas paid.
    """

    id: str
    block: int
    chain_s: int
    tx_hash: str
    note: str
    change_raw_by_token: RawAmounts
    gas_wei: int
    by_hand: bool = False


def trade_entry(
    transaction: SettledTransaction,
    prices: EntryPrices,
    ledger_tokens: Collection[str],
    fees_raw: RawAmounts,
    kind: EntryKind = EntryKind.TRADE,
) -> Entry:
    """Return the entry of a trade, an unwrapping, or a transaction that only paid gas.

    Amounts paid include the pool fees, in the input token of each leg; fees are posted separately.
    """
    builder = EntryBuilder(prices)
    for token, raw in ledger_changes(transaction.change_raw_by_token, ledger_tokens).items():
        builder.move(WALLET, TRADING, token, raw)
    for token, raw in sorted(fees_raw.items()):
        builder.move(FEES, TRADING, token, raw)
    has_exchange = any(account != WALLET for account, _ in builder.raw_by_account_and_token)
    return builder.entry(transaction, kind if has_exchange else EntryKind.GAS, ledger_tokens)


def payout_entry(
    transaction: SettledTransaction, prices: EntryPrices, ledger_tokens: Collection[str]
) -> Entry:
    """Return the entry of a payout to an address of the owner."""
    builder = EntryBuilder(prices)
    for token, raw in ledger_changes(transaction.change_raw_by_token, ledger_tokens).items():
        builder.move(WALLET, WITHDRAWALS, token, raw)
    return builder.entry(transaction, EntryKind.PAYOUT, ledger_tokens)


def provision_entry(
    transaction: SettledTransaction,
    prices: EntryPrices,
    ledger_tokens: Collection[str],
    position: str,
) -> Entry:
    """Return the entry of tokens moved into a liquidity position."""
    builder = EntryBuilder(prices)
    for token, raw in ledger_changes(transaction.change_raw_by_token, ledger_tokens).items():
        builder.move(WALLET, f"{LP}:{position}", token, raw)
    return builder.entry(transaction, EntryKind.PROVIDE, ledger_tokens)


def withdrawal_entry(
    transaction: SettledTransaction,
    prices: EntryPrices,
    ledger_tokens: Collection[str],
    position: str,
    principal_raw: RawAmounts,
    withdrawn_share: Fraction,
    fees_raw: RawAmounts,
) -> Entry:
    """Return the entry of tokens withdrawn from a liquidity position with this `principal_raw`.

    `withdrawn_share` is the fraction of the principal returned (0 for a collect). `fees_raw` are
    income. The difference to the principal is an exchange by the pool, or income or a loss if it
    has the same sign in both tokens.
    """
    builder = EntryBuilder(prices)
    changes_raw = ledger_changes(transaction.change_raw_by_token, ledger_tokens)
    position_tokens = sorted(
        {*changes_raw, *(token for token in principal_raw if token in ledger_tokens)}
    )
    remainders_raw = {}
    for token in position_tokens:
        earned_raw = min(max(0, changes_raw.get(token, 0)), fees_raw.get(token, 0))
        returned_raw = floor_int(principal_raw.get(token, 0) * withdrawn_share)
        builder.move(WALLET, LP_INCOME, token, earned_raw)
        builder.move(WALLET, f"{LP}:{position}", token, returned_raw)
        remainders_raw[token] = changes_raw.get(token, 0) - earned_raw - returned_raw
    is_exchange = (
        min(remainders_raw.values(), default=0) < 0 < max(remainders_raw.values(), default=0)
    )
    for token, raw in remainders_raw.items():
        account = LP_INCOME if raw > 0 else LP_LOSSES
        builder.move(WALLET, TRADING if is_exchange else account, token, raw)
    return builder.entry(
        transaction, EntryKind.WITHDRAW if withdrawn_share else EntryKind.COLLECT, ledger_tokens
    )


def external_entry(
    tx_hash: str,
    block: int,
    chain_s: int,
    moved_raw: RawAmounts,
    gas_wei: int,
    prices: EntryPrices,
    ledger_tokens: Collection[str],
) -> Entry:
    """Return the entry of a wallet transaction that is not in the journal; `moved_raw` includes its
    gas. Tokens both sent and received make it a manual exchange.
    """
    change_without_gas = {**moved_raw, NATIVE: moved_raw.get(NATIVE, 0) + gas_wei}
    changes_raw = ledger_changes(change_without_gas, ledger_tokens)
    is_exchange = min(changes_raw.values(), default=0) < 0 < max(changes_raw.values(), default=0)
    builder = EntryBuilder(prices)
    for token, raw in changes_raw.items():
        account = DEPOSITS if raw > 0 else WITHDRAWALS
        builder.move(WALLET, TRADING if is_exchange else account, token, raw)
    transaction = SettledTransaction(
        tx_hash, block, chain_s, tx_hash, "sent without this store", {}, gas_wei, True
    )
    return builder.entry(transaction, EntryKind.EXTERNAL, ledger_tokens)


def transfer_entry(transfer: ExternalTransfer) -> Entry:
    """Return the entry of an external transfer, posted by kind and valued when it was found."""
    kind, account = _TRANSFER_ACCOUNTS[transfer.kind]
    value = None if transfer.value is None else quantize(transfer.value)
    postings = (
        Posting(WALLET, transfer.token, transfer.delta_raw, value),
        Posting(account, transfer.token, -transfer.delta_raw, _negated(value)),
    )
    return Entry(f"flow {transfer.id}", kind, transfer.block, transfer.chain_s, "", "", postings)


def opening_entry(opening: LedgerOpening) -> Entry:
    """Return the entry of an opening balance."""
    account = f"{LP}:{opening.place}" if opening.place else WALLET
    postings = (
        Posting(account, opening.token, opening.raw, opening.value),
        Posting(OPENING, opening.token, -opening.raw, _negated(opening.value)),
    )
    entry_id = f"opening {opening.place or 'wallet'} {opening.token}"
    return Entry(entry_id, EntryKind.OPENING, opening.block, opening.chain_s, "", "", postings)


def unbalanced_tokens(entry: Entry) -> tuple[str, ...]:
    """Return the tokens whose postings do not sum to zero."""
    raw_sums: dict[str, int] = {}
    for posting in entry.postings:
        raw_sums[posting.token] = raw_sums.get(posting.token, 0) + posting.raw
    return tuple(sorted(token for token, raw in raw_sums.items() if raw))


def account_balances(entries: Sequence[Entry]) -> dict[tuple[str, str], int]:
    """Return base units by (account, token)."""
    raw_by_account_and_token: dict[tuple[str, str], int] = {}
    for entry in entries:
        for posting in entry.postings:
            account_and_token = (posting.account, posting.token)
            raw_by_account_and_token[account_and_token] = (
                raw_by_account_and_token.get(account_and_token, 0) + posting.raw
            )
    return raw_by_account_and_token


class EntryBuilder:
    """Builder of an entry with one posting per account and token."""

    def __init__(self, prices: EntryPrices) -> None:
        self.prices = prices
        self.raw_by_account_and_token: dict[tuple[str, str], int] = {}

    def move(self, to_account: str, from_account: str, token: str, raw: int) -> None:
        """Add `raw` base units to one account and subtract them from a second."""
        if raw:
            for account, sign in ((to_account, 1), (from_account, -1)):
                self.raw_by_account_and_token[account, token] = (
                    self.raw_by_account_and_token.get((account, token), 0) + sign * raw
                )

    def entry(
        self, transaction: SettledTransaction, kind: EntryKind, ledger_tokens: Collection[str]
    ) -> Entry:
        """Return the entry, gas included."""
        if NATIVE in ledger_tokens:
            self.move(GAS, WALLET, NATIVE, transaction.gas_wei)
        postings = []
        for (account, token), raw in self.raw_by_account_and_token.items():
            price = self.prices.of(token)
            if raw:
                value = None if price is None else quantize(raw * price)
                postings.append(Posting(account, token, raw, value))
        return Entry(
            transaction.id,
            kind,
            transaction.block,
            transaction.chain_s,
            transaction.tx_hash,
            transaction.note,
            tuple(postings),
            transaction.by_hand,
        )


def ledger_changes(moved_raw: RawAmounts, ledger_tokens: Collection[str]) -> dict[str, int]:
    """Return the changes of tokens that are in the ledger, base units, in a canonical order."""
    return {
        token: raw for token, raw in sorted(moved_raw.items()) if token in ledger_tokens and raw
    }


def _negated(value: Fraction | None) -> Fraction | None:
    return None if value is None else -value
