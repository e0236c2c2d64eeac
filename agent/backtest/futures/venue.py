"""A futures venue for a simulated spot portfolio: the calls of Perpetual Protocol v2 on a simulated
book. The live step trades on it with its own plans, guards, journal and signer rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from agent.backtest.data import PriceTable
from agent.backtest.funding import FundingRateSeries
from agent.backtest.futures.book import (
    FuturesBook,
    FuturesPath,
    HedgeRecord,
    SentPlan,
    futures_path,
    hedge_records,
)
from agent.backtest.futures.simulate import (
    FIGURE_COUNT,
    QUOTE,
    BookResult,
    FuturesSettings,
    book_figures,
    book_result,
    initial_book,
    markets_at,
    settle_bar,
)
from agent.backtest.router import APPROVE_GAS, TransactionReverted
from agent.backtest.settings import WALLET, BacktestSpec, simulated_address
from agent.errors import kind_words
from agent.floats import FloatArray
from agent.layers.futures.planning.plans import DEPOSIT_GAS
from agent.layers.futures.policy.needs import ORDER_GAS
from agent.margin.account import account_value_raw
from agent.model import (
    AllocatorConfig,
    FuturesAction,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    Intent,
    MarginAccount,
    PerpFill,
    PerpOrder,
    PerpOrderKind,
    PerpQuote,
    Receipt,
    Snapshot,
    Transfer,
    with_part,
)
from agent.ports.perpetuals import PerpActionDraft
from agent.signing.calldata import Approve
from agent.signing.futures import FuturesCall, MarginTransfer, OpenPosition
from agent.signing.terms import FuturesRules
from agent.units import Token, Value
from agent.venues.perpetual_protocol import PerpetualProtocolAddresses, futures_call

CLEARING_HOUSE = simulated_address("clearing house")
VAULT = simulated_address("vault")
CONTRACTS = PerpetualProtocolAddresses(
    CLEARING_HOUSE, VAULT, simulated_address("delegate approval"), WALLET
)


@dataclass(frozen=True, slots=True)
class FuturesSetup:
    """The futures of a simulated portfolio. `settings` names markets by the price table's symbols
    and has the policy with which the held book opens. `policy` is the live policy with simulated
    markets and contracts. `symbols_and_tokens` are (symbol, token with the same price).
    `recorded_path` are the markets over all bars, in place of the table's prices and `rate_series`.
    `notes` are on the data.
    """

    settings: FuturesSettings
    policy: FuturesPolicy
    collateral: Token
    symbols_and_tokens: tuple[tuple[str, str], ...]
    rate_series: tuple[FundingRateSeries, ...] = ()
    recorded_path: FuturesPath | None = None
    notes: tuple[str, ...] = ()

    @property
    def margin_raw(self) -> int:
        """Initial collateral in its own base units."""
        return self.settings.collateral_raw * self.collateral.unit // QUOTE.unit

    def path(self, table: PriceTable) -> FuturesPath:
        """Return the markets over the bars of a table."""
        if self.recorded_path is not None:
            return self.recorded_path
        return futures_path(
            table.select([symbol for symbol, _ in self.symbols_and_tokens]), self.rate_series
        )


def market_address(symbol: str) -> str:
    """Return the simulated base token of a market."""
    return simulated_address(f"market {symbol}")


def simulated_policy(policy: FuturesPolicy) -> FuturesPolicy:
    """Return the policy of a live step on the simulated venue. `policy` names markets by symbol."""
    return replace(
        policy,
        targets=tuple(
            replace(target, market=market_address(target.market)) for target in policy.targets
        ),
        trader=WALLET,
        vault=VAULT,
        delegate="",
    )


def with_simulated_markets(spec: BacktestSpec, symbol_by_market: Mapping[str, str]) -> BacktestSpec:
    """Return the spec with the strategies' and signals' markets replaced by those of the simulated
    venue; `symbol_by_market` has the symbol of each market.
    """

    def with_renamed_markets(allocator: AllocatorConfig | None) -> AllocatorConfig | None:
        if allocator is None:
            return None
        if (futures_risk := allocator.futures) is not None:
            sides = tuple(
                replace(side, market=market_address(symbol_by_market[side.market]))
                for side in futures_risk.sides
            )
            allocator = replace(allocator, futures=replace(futures_risk, sides=sides))
        if allocator.signal is None:
            return allocator
        markets = tuple(
            replace(signal_market, market=market_address(symbol_by_market[signal_market.market]))
            for signal_market in allocator.signal.markets
        )
        return replace(allocator, signal=replace(allocator.signal, markets=markets))

    portfolio = replace(spec.portfolio, allocator=with_renamed_markets(spec.portfolio.allocator))
    layers = spec.layers
    if (split := spec.split) is not None:
        strategies = tuple(
            replace(
                strategy,
                allocator=with_renamed_markets(strategy.allocator),
                market_bps=tuple(
                    (market_address(symbol_by_market[market]), bps)
                    for market, bps in strategy.market_bps
                ),
            )
            for strategy in split.strategies
        )
        layers = with_part(layers, replace(split, strategies=strategies))
    return replace(spec, portfolio=portfolio, layers=layers)


@dataclass(frozen=True, slots=True)
class VenueEffects:
    """Pending effects of a transaction to the venue. `allowance_raw` is the vault's allowance."""

    balances: dict[str, int]
    allowance_raw: int
    book: FuturesBook
    gas_units: int
    transfers: tuple[Transfer, ...] = ()
    fills: tuple[PerpFill, ...] = ()


class SimulatedVenue:
    """ports.perpetuals.PerpVenue on a simulated book, at the current bar of its world."""

    def __init__(self, setup: FuturesSetup, table: PriceTable, validity_s: int) -> None:
        self.setup = setup
        self.path = setup.path(table)
        self._validity_s = validity_s
        self._market_and_token_by_symbol = {
            symbol: (market_address(symbol), token) for symbol, token in setup.symbols_and_tokens
        }
        collateral_unit_raw = 10 ** (QUOTE.decimals - setup.collateral.decimals)
        self.book: FuturesBook = initial_book(
            self.path, setup.settings, collateral_unit_raw, self._market_and_token_by_symbol
        )
        self.allowance_raw = 0
        self.bar = -1
        self.sent_plans: list[SentPlan] = []
        self._noted_plan = SentPlan()
        self._figures = np.empty((FIGURE_COUNT, self.path.bar_count))
        self._realised_raw: list[int] = []

    def advance_to(self, bar: int) -> None:
        """Move to a later bar. Every bar in between is marked, pays funding, and may cause
        liquidations.
        """
        while self.bar < bar:
            self.record_figures()
            self.bar += 1
            markets = markets_at(
                self.path, self.setup.settings, self.bar, self._market_and_token_by_symbol
            )
            settle_bar(self.book, self.path, self.bar, markets)

    def record_figures(self) -> None:
        """Record the figures at the end of this bar."""
        if self.bar >= 0:
            self._figures[:, self.bar] = book_figures(self.book)
            del self._realised_raw[self.bar :]
            self._realised_raw.append(self.book.account.realised_raw)

    @property
    def has_open_hedge(self) -> bool:
        """Return whether a hedge is open after the newest plan."""
        return bool(self.sent_plans) and any(hedge.size_raw for hedge in self.sent_plans[-1].hedges)

    @property
    def symbol_by_market(self) -> dict[str, str]:
        """Symbols by market."""
        return {market: symbol for symbol, (market, _) in self._market_and_token_by_symbol.items()}

    def account_value(self, numeraire: Token) -> Value:
        """Return the account value in base units of the numeraire, at one quote coin per numeraire
        coin.
        """
        return account_value_raw(self.book.account) * Fraction(numeraire.unit, QUOTE.unit)

    def account_values(self) -> FloatArray:
        """Return the account value at the end of each bar, in whole coins."""
        account_value_by_bar: FloatArray = self._figures[0]
        return account_value_by_bar

    def realised_profit_until(self, numeraire: Token, bar: int) -> Value:
        """Return realised profit less funding and penalties up to the end of a bar, numeraire base
        units; zero before the first.
        """
        realised_raw = self._realised_raw[bar] if bar >= 0 else 0
        return realised_raw * Fraction(numeraire.unit, QUOTE.unit)

    def result(self, refusal_counts: Sequence[tuple[str, int]]) -> BookResult:
        """Return the book over all bars. `refusal_counts` has the orders that were cut or
        left out, by reason.
        """
        return book_result(self.book, self.setup.settings, self._figures, refusal_counts)

    def hedges(self) -> tuple[HedgeRecord, ...]:
        """Return the hedges of the simulation."""
        return hedge_records(self.sent_plans, self.book.account)

    def note_plan(self, plan: FuturesPlan, reason: str) -> None:
        """Record a plan before its first action is sent."""
        self._noted_plan = SentPlan(plan.trigger, reason, plan.hedges)

    # ports.perpetuals.PerpVenue
    def read(self, snapshot: Snapshot) -> Snapshot:
        """See PerpVenue."""
        return snapshot.with_layer(FuturesReading(self.book.account))

    def quote(self, account: MarginAccount, order: PerpOrder) -> PerpQuote:
        """See PerpVenue. Quotes the book's fill price."""
        quote_raw, _ = self.book.quote_and_fee_raw(account.market(order.market), order.size_raw)
        return PerpQuote(abs(order.size_raw), abs(quote_raw))

    def draft(self, account: MarginAccount, action: FuturesAction, now_s: int) -> PerpActionDraft:
        """See PerpVenue. A call to the clearing house or the vault."""
        expires_s = now_s + self._validity_s
        collateral = self.setup.collateral.address
        to, call_data = futures_call(action, CONTRACTS, WALLET, collateral, expires_s)
        return PerpActionDraft(to, call_data, expires_s)

    def outcome(self, intent: Intent) -> Receipt | None:
        """See PerpVenue. Orders are transactions on the chain."""
        return intent.receipt

    def signing_rules(self) -> FuturesRules:
        """Return the signer's rules for the venue."""
        policy = self.setup.policy
        return FuturesRules(
            CLEARING_HOUSE,
            VAULT,
            CONTRACTS.delegate_approval,
            policy.collateral,
            WALLET,
            None,
            tuple(address for address, _ in self._market_and_token_by_symbol.values()),
            policy.limits.max_leverage_bps,
            policy.limits.slippage_bps,
            policy.limits.emergency_slippage_bps,
            policy.limits.index_age_s,
        )

    def effects_of_call(
        self, call: FuturesCall | Approve, balances: Mapping[str, int], now_s: int
    ) -> VenueEffects:
        """Return the effects of a call at this bar. Raises TransactionReverted."""
        book = self.book.copy()
        new_balances = dict(balances)
        match call:
            case Approve(raw=amount_raw):
                return VenueEffects(new_balances, amount_raw, book, APPROVE_GAS)
            case MarginTransfer(token=token, raw=amount_raw, is_deposit=True):
                if min(new_balances.get(token, 0), self.allowance_raw) < amount_raw:
                    raise TransactionReverted("STF")
                new_balances[token] -= amount_raw
                book.deposit(amount_raw, from_wallet=True)
                transfers = (Transfer(token, WALLET, VAULT, amount_raw),)
                return VenueEffects(
                    new_balances, self.allowance_raw - amount_raw, book, DEPOSIT_GAS, transfers
                )
            case OpenPosition():
                if now_s > call.deadline_s:
                    raise TransactionReverted("Transaction too old")
                fill = self._fill_order(book, call, now_s)
                return VenueEffects(
                    new_balances, self.allowance_raw, book, ORDER_GAS, fills=(fill,)
                )
            case unsupported_call:
                raise TransactionReverted(f"{kind_words(type(unsupported_call))} is not simulated")

    def apply(self, effects: VenueEffects) -> None:
        """Apply the effects of a transaction."""
        self.book = effects.book
        self.allowance_raw = effects.allowance_raw
        fill = self.book.fills[-1] if effects.fills else None
        self.sent_plans.append(replace(self._noted_plan, fill=fill))

    def _fill_order(self, book: FuturesBook, call: OpenPosition, now_s: int) -> PerpFill:
        position_raw = book.account.size_raw(call.market)
        is_reduction = position_raw * call.size_raw < 0 and abs(call.size_raw) <= abs(position_raw)
        order = PerpOrder(
            call.market, call.size_raw, PerpOrderKind.MARKET, call.bound_raw, is_reduction
        )
        is_paused = self.bar in self.path.paused_bars
        if reason := "the market is paused" if is_paused else book.revert_reason(order, now_s):
            raise TransactionReverted(reason)
        realised_before_raw = book.account.realised_raw
        book.fill_order(order, self.bar, now_s, self._noted_plan.trigger)
        fill = book.fills[-1]
        return PerpFill(
            CLEARING_HOUSE,
            WALLET,
            call.market,
            fill.size_raw,
            fill.quote_raw,
            fill.fee_raw,
            book.account.realised_raw - realised_before_raw,
        )
