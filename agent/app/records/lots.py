"""Open tax lots by asset, with their gains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from agent.accounting.export import format_utc, rate_lookup
from agent.accounting.tax_lots import Disposal, TaxLotRun, net_gain
from agent.app.records.ledger import (
    LedgerData,
    money_text,
    open_ledger_data,
    split_gas_money,
    unbooked_receipts,
)
from agent.config.loaded import ConfigSource
from agent.errors import ConfigError
from agent.layers.tax.settings import read_rates
from agent.model import LotMethod, OpenLot
from agent.units import NATIVE, Price, Value, decimal_text, price_text

if TYPE_CHECKING:
    from agent.app.documents.records import AssetLotsDocument, LotDocument, LotsDocument


def tax_lots(config: ConfigSource, method: str | None = None) -> LotsDocument:
    """Return the open lots of each asset, with their value at the newest valuation and the gains
    realised in the year of the newest entry or valuation; `method` overrides that of [tax]. Raises
    ConfigError for an unknown method and an empty ledger.
    """
    methods = [lot_method.value for lot_method in LotMethod]
    if method is not None and method not in methods:
        raise ConfigError(f"--method: {method!r} is unknown", f"choose from {', '.join(methods)}")
    with open_ledger_data(config) as ledger:
        return lots_document(ledger, None if method is None else LotMethod(method))


def lots_document(ledger: LedgerData, method: LotMethod | None = None) -> LotsDocument:
    """Return the document of an open ledger."""
    lot_run = ledger.lot_run(method=method)
    newest_times_s = [
        dated_records[-1].chain_s
        for dated_records in (ledger.entries, ledger.valuations)
        if dated_records
    ]
    year = format_utc(max(newest_times_s))[:4] if newest_times_s else None
    disposals = [
        disposal for disposal in lot_run.disposals if format_utc(disposal.disposed_s)[:4] == year
    ]
    lot_documents = _LotDocuments(ledger, lot_run, disposals)
    tax_settings = ledger.loaded_config.config.tax
    tokens = {lot.token for lot in lot_documents.lots} | {disposal.token for disposal in disposals}
    if lot_documents.is_native_only_gas:
        tokens.discard(ledger.wrapped_native)
    return {
        "method": lot_run.lots.method.value,
        "currency": (tax_settings and tax_settings.currency) or ledger.numeraire.label,
        "valued": format_utc(ledger.valuations[-1].chain_s) if ledger.valuations else None,
        "year": year,
        "realised": lot_documents.money_text(net_gain(disposals)),
        "unpriced": sorted(lot_run.unpriced_entries),
        "assets": [
            lot_documents.asset_document(token) for token in sorted(tokens, key=lot_documents.place)
        ],
        "gas_money": lot_documents.gas_money_document(),
        "not_final": len(unbooked_receipts(ledger)),
    }


class _LotDocuments:
    """Rows of the lots, at the prices of the newest valuation in the reporting currency."""

    def __init__(
        self, ledger: LedgerData, lot_run: TaxLotRun, disposals: Sequence[Disposal]
    ) -> None:
        self._ledger = ledger
        self._disposals = disposals
        self.lots, self.gas_lots = split_gas_money(lot_run.open_lots(), ledger)
        self._unmatched_raw = lot_run.lots.unmatched_raw_by_token()
        newest_holdings = ledger.valuations[-1].holdings if ledger.valuations else ()
        self.held_tokens = [holding.token for holding in newest_holdings]
        self.is_native_only_gas = (
            bool(self.gas_lots)
            and ledger.wrapped_native not in self.held_tokens
            and not any(lot.token == ledger.wrapped_native for lot in self.lots)
        )
        self._prices: dict[str, Price] = {}
        if ledger.valuations:
            valuation = ledger.valuations[-1]
            rate = rate_lookup(read_rates(ledger.loaded_config))(valuation.chain_s)
            self._prices = {
                valued_holding.token: valued_holding.price * rate
                for valued_holding in valuation.holdings
                if valued_holding.price
            }
            if NATIVE in self._prices:  # native coin and its wrapped token share lots
                self._prices.setdefault(ledger.wrapped_native, self._prices[NATIVE])

    def place(self, token: str) -> tuple[int, str]:
        """Return what sorts assets as the portfolio does, those that it has no longer by symbol."""
        is_held = token in self.held_tokens
        position = self.held_tokens.index(token) if is_held else len(self.held_tokens)
        return position, self._ledger.token_names.label(token)

    def asset_document(self, token: str) -> AssetLotsDocument:
        """Return the row of an asset, without gas money."""
        return self._asset_lots(token, [lot for lot in self.lots if lot.token == token])

    def gas_money_document(self) -> AssetLotsDocument | None:
        """Return the row of the native coin for gas, which no sum includes; None without one."""
        if not self.gas_lots:
            return None
        gas_document = self._asset_lots(NATIVE, self.gas_lots)
        if self.is_native_only_gas:
            disposals = (
                disposal
                for disposal in self._disposals
                if disposal.token == self._ledger.wrapped_native
            )
            gas_document["realised"] = self.money_text(net_gain(disposals))
        return gas_document

    def _asset_lots(self, token: str, lots: Sequence[OpenLot]) -> AssetLotsDocument:
        token_names = self._ledger.token_names
        price = self._prices.get(token)
        cost = sum((lot.cost for lot in lots), Value(0))
        total_raw = sum(lot.raw for lot in lots)
        holding_value_text, unrealised_text = self._value_and_gain(total_raw, cost, price)
        decimals = token_names.decimals(token)
        return {
            "symbol": token_names.label(token),
            "address": token,
            "amount": decimal_text(total_raw, decimals),
            "cost": self.money_text(cost),
            "entry_price": self._price_text(cost / total_raw, token) if total_raw else None,
            "price": None if price is None else self._price_text(price, token),
            "value": holding_value_text,
            "unrealised": unrealised_text,
            "realised": self.money_text(
                net_gain(disposal for disposal in self._disposals if disposal.token == token)
            ),
            "unmatched": decimal_text(self._unmatched_raw.get(token, 0), decimals),
            "lots": [self._lot_document(lot, price) for lot in lots],
        }

    def _value_and_gain(
        self, amount_raw: int, cost: Value, price: Price | None
    ) -> tuple[str | None, str | None]:
        """Return value and unrealised gain of an amount; None without a price."""
        if price is None:
            return None, None
        return self.money_text(amount_raw * price), self.money_text(amount_raw * price - cost)

    def _lot_document(self, lot: OpenLot, price: Price | None) -> LotDocument:
        lot_value_text, unrealised_text = self._value_and_gain(lot.raw, lot.cost, price)
        return {
            "acquired": format_utc(lot.acquired_s),
            "amount": decimal_text(lot.raw, self._ledger.token_names.decimals(lot.token)),
            "cost": self.money_text(lot.cost),
            "entry_price": self._price_text(lot.cost / lot.raw, lot.token),
            "value": lot_value_text,
            "unrealised": unrealised_text,
        }

    def money_text(self, value: Value) -> str:
        return money_text(self._ledger, value)

    def _price_text(self, price: Price, token: str) -> str:
        return price_text(
            price, self._ledger.token_names.decimals(token), self._ledger.numeraire.decimals
        )
