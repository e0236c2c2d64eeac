"""Open tax lots with entry prices, value and gains, from the ledger alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.accounting.export import format_utc, rate_of
from agent.accounting.tax_lots import Disposal, TaxLotRun, net_gain
from agent.app.records.ledger import LedgerData, open_ledger_data
from agent.config.load import ConfigSource
from agent.config.schema import read_rates
from agent.errors import ConfigError
from agent.model import LotMethod, OpenLot
from agent.units import NATIVE, Price, Value, decimal_text, price_text, value_text

if TYPE_CHECKING:
    from agent.app.documents.records import AssetLotsDocument, LotDocument, LotsDocument


def tax_lots(config: ConfigSource, method: str | None = None) -> LotsDocument:
    """Return the open lots of each asset, with their value at the newest valuation and the gains
    realised in its year; `method` overrides that of [tax]. Raises ConfigError for an unknown method
    and an empty ledger.
    """
    methods = [one.value for one in LotMethod]
    if method is not None and method not in methods:
        raise ConfigError(f"--method: {method!r} is unknown", f"choose from {', '.join(methods)}")
    with open_ledger_data(config) as ledger:
        return lots_document(ledger, None if method is None else LotMethod(method))


def lots_document(ledger: LedgerData, method: LotMethod | None = None) -> LotsDocument:
    """Return the document of an open ledger."""
    taxed = ledger.taxed(method=method)
    times = [found[-1].chain_s for found in (ledger.entries, ledger.valuations) if found]
    year = format_utc(max(times))[:4] if times else None
    sold = [one for one in taxed.disposals if format_utc(one.disposed_s)[:4] == year]
    rows, tax = _Rows(ledger, taxed, sold), ledger.loaded.config.tax
    tokens = {lot.token for lot in rows.lots} | {one.token for one in sold}
    return {
        "method": taxed.lots.method.value,
        "currency": (tax and tax.currency) or ledger.numeraire.label,
        "valued": format_utc(ledger.valuations[-1].chain_s) if ledger.valuations else None,
        "year": year,
        "realised": rows.money(net_gain(sold)),
        "unpriced": sorted(set(taxed.unpriced)),
        "assets": [rows.asset(token) for token in sorted(tokens, key=ledger.names.label)],
    }


class _Rows:
    """Rows of the lots, at the prices of the newest valuation in the reporting currency."""

    def __init__(self, ledger: LedgerData, taxed: TaxLotRun, sold: Sequence[Disposal]) -> None:
        self._ledger, self._sold = ledger, sold
        self.lots = taxed.open()
        self._owed = taxed.lots.owed()
        self._prices: dict[str, Price] = {}
        if ledger.valuations:
            newest = ledger.valuations[-1]
            rate = rate_of(read_rates(ledger.loaded))(newest.chain_s)
            self._prices = {held.token: held.price * rate for held in newest.held if held.price}
            if NATIVE in self._prices:  # native coin and its wrapped token share lots
                self._prices.setdefault(ledger.coin, self._prices[NATIVE])

    def asset(self, token: str) -> AssetLotsDocument:
        names, price = self._ledger.names, self._prices.get(token)
        lots = [lot for lot in self.lots if lot.token == token]
        cost, raw = sum((lot.cost for lot in lots), Value(0)), sum(lot.raw for lot in lots)
        value, unrealised = self._worth(raw, cost, price)
        decimals = names.decimals(token)
        return {
            "symbol": names.label(token),
            "address": token,
            "amount": decimal_text(raw, decimals),
            "cost": self.money(cost),
            "entry_price": self._price(cost / raw, token) if raw else None,
            "price": None if price is None else self._price(price, token),
            "value": value,
            "unrealised": unrealised,
            "realised": self.money(net_gain(one for one in self._sold if one.token == token)),
            "unmatched": decimal_text(self._owed.get(token, 0), decimals),
            "lots": [self._lot(lot, price) for lot in lots],
        }

    def _worth(self, raw: int, cost: Value, price: Price | None) -> tuple[str | None, str | None]:
        """Return value and unrealised gain of an amount; None without a price."""
        if price is None:
            return None, None
        return self.money(raw * price), self.money(raw * price - cost)

    def _lot(self, lot: OpenLot, price: Price | None) -> LotDocument:
        value, unrealised = self._worth(lot.raw, lot.cost, price)
        return {
            "acquired": format_utc(lot.acquired_s),
            "amount": decimal_text(lot.raw, self._ledger.names.decimals(lot.token)),
            "cost": self.money(lot.cost),
            "entry_price": self._price(lot.cost / lot.raw, lot.token),
            "value": value,
            "unrealised": unrealised,
        }

    def money(self, value: Value) -> str:
        return value_text(value, self._ledger.numeraire.decimals)

    def _price(self, price: Price, token: str) -> str:
        return price_text(
            price, self._ledger.names.decimals(token), self._ledger.numeraire.decimals
        )
