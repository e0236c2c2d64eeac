"""The ledger, its disposals, open lots and values over time as tables of text: exact decimals, one header each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.books.taxes import TaxRun
from agent.model import Entry, Valuation
from agent.units import BPS, NATIVE, Token, decimal_text, largest_remainder, value_text

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_STARTS_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "|", "%")


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table: its columns, and rows of as many cells."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Names:
    """What tokens are called and how many decimals they have; of unknown ones the address, and base units."""

    tokens: dict[str, Token]
    numeraire: Token

    def label(self, token: str) -> str:
        """Symbol, or the address."""
        return "native" if token == NATIVE else self.tokens[token].label if token in self.tokens else token

    def decimals(self, token: str) -> int:
        """18 for the native coin."""
        return 18 if token == NATIVE else self.tokens[token].decimals if token in self.tokens else 0


def sheets(entries: Sequence[Entry], found: TaxRun, valuations: Sequence[Valuation], names: Names, currency: str) -> tuple[Sheet, ...]:
    """All of them. Disposals and lots are in the reporting `currency`, ledger and values over time in the numeraire."""
    return _ledger(entries, names), _disposals(found, names, currency), _lots(found, names, currency), _values(valuations, names)


def neutral(text: str) -> str:
    """A cell that no spreadsheet takes for a formula (T17): control codes out, an apostrophe before what would begin one."""
    plain = "".join(" " if ord(char) < 32 or 127 <= ord(char) < 160 else char for char in text)
    return f"'{plain}" if text.startswith(_STARTS_FORMULA) and not _NUMBER.fullmatch(text) else plain


def utc(at_s: int) -> str:
    """ISO time in UTC."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ledger(entries: Iterable[Entry], names: Names) -> Sheet:
    columns = (
        "time",
        "block",
        "entry",
        "kind",
        "by_hand",
        "transaction",
        "account",
        "token",
        "address",
        "amount",
        "raw",
        "value",
        "currency",
        "note",
    )
    rows = [
        (
            utc(entry.chain_s), str(entry.block), entry.id, entry.kind.value, str(entry.by_hand).lower(), entry.tx_hash, one.account,
            names.label(one.token), one.token, decimal_text(one.raw, names.decimals(one.token)), str(one.raw),
            "" if one.value is None else value_text(one.value, names.numeraire.decimals), names.numeraire.label,
            entry.note,
        )
        for entry in entries
        for one in entry.postings
    ]  # fmt: skip
    return Sheet("ledger", columns, tuple(rows))


def _disposals(found: TaxRun, names: Names, currency: str) -> Sheet:
    columns = ("time", "entry", "by_hand", "token", "address", "amount", "proceeds", "cost", "gain", "currency", "acquired", "held_days")
    places = names.numeraire.decimals
    rows = [
        (
            utc(one.disposed_s), one.entry, str(one.by_hand).lower(), names.label(one.token), one.token,
            decimal_text(one.raw, names.decimals(one.token)), value_text(one.proceeds, places), value_text(one.cost, places),
            value_text(one.gain, places), currency, "" if one.acquired_s is None else utc(one.acquired_s), str(one.held_s // 86_400),
        )
        for one in found.disposals
    ]  # fmt: skip
    return Sheet("disposals", columns, tuple(rows))


def _lots(found: TaxRun, names: Names, currency: str) -> Sheet:
    columns = ("acquired", "token", "address", "amount", "cost", "currency")
    rows = [
        (
            utc(lot.acquired_s), names.label(lot.token), lot.token, decimal_text(lot.raw, names.decimals(lot.token)),
            value_text(lot.cost, names.numeraire.decimals), currency,
        )
        for lot in found.open()
    ]  # fmt: skip
    return Sheet("lots", columns, tuple(rows))


def _values(valuations: Iterable[Valuation], names: Names) -> Sheet:
    columns = ("time", "block", "total", "token", "address", "in_wallet", "in_positions", "reserved", "value", "currency", "weight_bps")
    places, rows = names.numeraire.decimals, []
    for found in valuations:
        weights = weights_bps(found)
        for one in found.held:
            decimals = names.decimals(one.token)
            rows.append(
                (
                    utc(found.chain_s), str(found.block), value_text(found.managed, places), names.label(one.token), one.token,
                    decimal_text(one.wallet_raw, decimals), decimal_text(one.lp_raw, decimals),
                    decimal_text(one.reserved_raw, decimals),
                    value_text((one.wallet_raw + one.lp_raw) * one.price, places), names.numeraire.label,
                    str(weights.get(one.token, 0)),
                )
            )  # fmt: skip
    return Sheet("values", columns, tuple(rows))


def weights_bps(found: Valuation) -> dict[str, int]:
    """Share of each token in the managed portfolio, basis points; empty where nothing is managed. Gas money and reserves are no part."""
    managed = [one for one in found.held if not one.is_gas_money]
    values = [one.managed_raw * one.price for one in managed]
    if not any(values):
        return {}
    return dict(zip((one.token for one in managed), largest_remainder(values, BPS), strict=True))
