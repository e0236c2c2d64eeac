"""Paper futures at Hyperliquid: orders fill on the venue's order book as it is when they would be
posted, and positions pay the venue's hourly funding. Nothing is signed or posted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from agent.errors import ConfigError, OperatorNeeded, TrimtabError
from agent.margin import account as margin
from agent.model import (
    FuturesAction,
    FuturesReading,
    Intent,
    MarginAccount,
    PaperMargin,
    PaperPosition,
    PerpFill,
    PerpOrder,
    PerpQuote,
    Position,
    Receipt,
    SignedTx,
    Snapshot,
    UnsignedTx,
    VenuePayment,
)
from agent.paper.chain import MAX_RECEIPTS, NO_ACCOUNT_ANSWER
from agent.ports import Clock, Grant
from agent.ports.perpetuals import PerpActionDraft
from agent.signing.futures import require_signable_order, require_signable_orders
from agent.signing.terms import FuturesRules
from agent.store.store import PaperStore
from agent.units import ceil_int, floor_int
from agent.venues.hyperliquid.client import AccountReading, HyperliquidClient
from agent.venues.hyperliquid.orders import QUOTE_DECIMALS, fill_on_book, model_price
from agent.venues.hyperliquid.venue import HyperliquidPerps, unknown_reading, with_chain_times

UNMATCHED_ANSWER = "Order could not immediately match against any resting orders."
NO_MARGIN_ANSWER = "Insufficient margin to place order."
NOT_REDUCING_ANSWER = "Reduce only order would increase position."


@dataclass(frozen=True, slots=True)
class PostedOrder:
    """An order as the venue receives it; size and limit price are in coins and dollars a coin."""

    market_number: int
    is_buy: bool
    limit_price: Fraction
    size: Fraction
    is_reduce_only: bool
    client_order_id: str


def posted_order(order_wire: Mapping[str, Any]) -> PostedOrder:
    """Return an order of the action that is posted."""
    return PostedOrder(
        market_number=order_wire["a"],
        is_buy=order_wire["b"],
        limit_price=Fraction(order_wire["p"]),
        size=Fraction(order_wire["s"]),
        is_reduce_only=order_wire["r"],
        client_order_id=order_wire["c"],
    )


class PaperHyperliquid:
    """ports.perpetuals.OrderVenue with a paper account beside the real venue's markets and books."""

    def __init__(
        self,
        venue: HyperliquidPerps,
        client: HyperliquidClient,
        store: PaperStore,
        funding_since_s: Callable[[], int | None],
    ) -> None:
        """Set the sources: `venue` quotes and drafts, `client` reads, and `funding_since_s` is the
        time after which the ledger may lack funding payments (see LedgerStore.funding_since_s).
        """
        self._venue = venue
        self._client = client
        self._store = store
        self._funding_since_s = funding_since_s

    def opening_margin(self, snapshot: Snapshot, deposit_raw: int | None) -> PaperMargin:
        """Return the first margin account: `deposit_raw` of collateral without positions, or a copy
        of the real account. Raises ConfigError if the venue cannot be read.
        """
        try:
            real_account = self._client.read()
            with_chain_times(real_account, snapshot)
        except TrimtabError as error:
            raise ConfigError(
                f"the margin account cannot be read now: {error.message}", "try again"
            ) from None
        if deposit_raw is not None:
            return PaperMargin(deposit_raw * real_account.collateral_unit_raw, 0, ())
        return PaperMargin(
            real_account.collateral_raw,
            real_account.realised_raw,
            _paper_positions(real_account.positions, {}, _venue_time_s(real_account)),
        )

    def read(self, snapshot: Snapshot) -> Snapshot:
        """See PerpVenue."""
        return self._with_account(snapshot, self._client.read_account)

    def read_promptly(self, snapshot: Snapshot) -> Snapshot:
        """See OrderVenue."""
        return self._with_account(snapshot, self._client.read_account_promptly)

    @property
    def has_left_out_reads(self) -> bool:
        """See OrderVenue."""
        return self._client.has_left_out_reads

    def _with_account(
        self, snapshot: Snapshot, read_account: Callable[[], AccountReading]
    ) -> Snapshot:
        paper_margin = self._store.begun_wallet().margin
        try:
            reading = read_account()
            real_account = reading.account
            dated_account = with_chain_times(real_account, snapshot)
            account = (
                None
                if paper_margin is None
                else self._account(dated_account, self._with_funding(paper_margin, real_account))
            )
        except TrimtabError as error:
            return snapshot.with_layer(unknown_reading(error))
        no_account_reason = "" if account is not None else NO_ACCOUNT_ANSWER
        return snapshot.with_layer(
            FuturesReading(account, no_account_reason, stale_reads=reading.stale_reads)
        )

    def wait_for_budget(self) -> None:
        """See OrderVenue."""
        self._client.wait_for_budget()

    def quote(self, account: MarginAccount, order: PerpOrder) -> PerpQuote:
        """See PerpVenue."""
        return self._venue.quote(account, order)

    def draft(self, account: MarginAccount, action: FuturesAction, now_s: int) -> PerpActionDraft:
        """See PerpVenue."""
        return self._venue.draft(account, action, now_s)

    def draft_companion(
        self, account: MarginAccount, order: PerpOrder, first_draft: PerpActionDraft, number: int
    ) -> PerpActionDraft:
        """See OrderVenue."""
        return self._venue.draft_companion(account, order, first_draft, number)

    def outcome(self, intent: Intent) -> Receipt | None:
        """See PerpVenue. An order without a receipt was never filled: only `post` fills one."""
        for receipt in self._store.begun_wallet().receipts:
            if receipt.tx_hash == intent.tx_hash:
                return receipt
        return _receipt(str(intent.tx_hash))

    def require_approved_key(self, until_s: int, *, is_reduction: bool = False) -> None:
        """See OrderVenue. Paper trading needs no agent."""

    def post_orders(self, signed: SignedTx, count: int) -> list[str]:
        """See OrderVenue. Fills the orders in turn on the book of this moment, and records all
        fills at once.
        """
        wallet = self._store.begun_wallet()
        if wallet.margin is None:
            return [NO_ACCOUNT_ANSWER] * count
        real_account = self._client.read()
        paper_margin = self._with_funding(wallet.margin, real_account)
        receipts = list(wallet.receipts)
        reasons = []
        for order_wire in json.loads(signed.signed_bytes)["orders"]:
            order = posted_order(order_wire)
            if any(receipt.tx_hash == order.client_order_id for receipt in receipts):
                reasons.append("")
                continue
            result = self._fill(self._account(real_account, paper_margin), order)
            if isinstance(result, str):
                reasons.append(result)
                continue
            fill, account_after = result
            paper_margin = _margin_after(paper_margin, account_after, _venue_time_s(real_account))
            receipts.append(_receipt(order.client_order_id, fill))
            reasons.append("")
        self._store.save(
            replace(wallet, margin=paper_margin, receipts=tuple(receipts[-MAX_RECEIPTS:]))
        )
        return reasons

    def _fill(
        self, account: MarginAccount, order: PostedOrder
    ) -> tuple[PerpFill, MarginAccount] | str:
        """Return the fill of an order on the book of this moment, and the account after it; or the
        venue's reason for a rejection.
        """
        market_name = next(
            market.market
            for market in account.markets
            if self._client.market_number(market.market) == order.market_number
        )
        order_size = order.size
        if order.is_reduce_only:
            size_raw = account.size_raw(market_name)
            if not size_raw or (size_raw < 0) is not order.is_buy:
                return NOT_REDUCING_ANSWER
            order_size = min(order_size, Fraction(abs(size_raw), account.market(market_name).unit))
        fill = self._match(account, market_name, replace(order, size=order_size))
        if fill is None:
            return UNMATCHED_ANSWER
        account_after = margin.with_trade(account, market_name, fill.size_raw, fill.quote_raw)
        realised_raw = account_after.realised_raw - fill.fee_raw
        account_after = replace(account_after, realised_raw=realised_raw)
        if not order.is_reduce_only and not margin.is_opening_accepted(account_after):
            return NO_MARGIN_ANSWER
        return replace(fill, realised_raw=realised_raw - account.realised_raw), account_after

    def settle(self) -> None:
        """Book the funding paid until now, so that a reading has few payments to compute. Without
        an answer of the venue nothing changes.
        """
        wallet = self._store.begun_wallet()
        if wallet.margin is None:
            return
        try:
            paper_margin = self._with_funding(wallet.margin, self._client.read())
        except TrimtabError:
            return
        if paper_margin != wallet.margin:
            self._store.save(replace(wallet, margin=paper_margin))

    def _account(self, real_account: MarginAccount, paper_margin: PaperMargin) -> MarginAccount:
        """Return the paper account with the markets of the real one."""
        return replace(
            real_account,
            collateral_raw=paper_margin.collateral_raw,
            realised_raw=paper_margin.realised_raw,
            positions=tuple(
                Position(position.market, position.size_raw, position.open_notional_raw)
                for position in paper_margin.positions
            ),
            unbooked_payments=paper_margin.payments,
            resting_stops=(),
            resting_orders=(),
            isolated_markets=(),
            unknown_row_kinds=(),
        )

    def _with_funding(self, paper_margin: PaperMargin, real_account: MarginAccount) -> PaperMargin:
        """Return the account after the hourly funding until the time of a reading: size times the
        close of the hour before it times the venue's rate. Raises Retryable, OperatorNeeded for a
        position in a market that the config does not have.
        """
        until_ms = _venue_time_s(real_account) * 1000
        new_payments = list[VenuePayment]()
        settled_positions = []
        for position in paper_margin.positions:
            market = next(
                (
                    perp_market
                    for perp_market in real_account.markets
                    if perp_market.market == position.market
                ),
                None,
            )
            if market is None:
                raise OperatorNeeded(
                    f"the paper account has a position in {position.market}, which is not in [futures]",
                    f"add the market {position.market} with the weight 0% until it is closed",
                )
            funding_rates = self._client.funding_rates(
                position.market, _last_ms(position.settled_s), until_ms
            )
            for time_ms, rate in funding_rates:
                close_price = self._client.price_before(position.market, time_ms)
                paid_raw = ceil_int(
                    position.size_raw * model_price(close_price, market.size_decimals) * rate
                )
                new_payments.append(VenuePayment(position.market, time_ms // 1000, paid_raw))
            settled_s = max(
                (time_ms // 1000 for time_ms, _ in funding_rates), default=position.settled_s
            )
            settled_positions.append(replace(position, settled_s=settled_s))
        unbooked_since_s = self._funding_since_s() or 0
        payments = [
            *(payment for payment in paper_margin.payments if payment.at_s > unbooked_since_s),
            *new_payments,
        ]
        return replace(
            paper_margin,
            realised_raw=paper_margin.realised_raw
            - sum(venue_payment.paid_raw for venue_payment in new_payments),
            positions=tuple(settled_positions),
            payments=tuple(sorted(payments, key=lambda payment: (payment.at_s, payment.market))),
        )

    def _match(
        self, account: MarginAccount, market_name: str, order: PostedOrder
    ) -> PerpFill | None:
        """Return the order's fill on the book within its limit price; None if nothing fills."""
        market = account.market(market_name)
        if market.is_paused:
            return None
        is_buy = order.is_buy
        book_side = self._client.order_book_side(market_name, asks=is_buy)
        unfilled_size, filled_quote = fill_on_book(
            book_side, order.size, order.limit_price, is_buy=is_buy
        )
        size_raw = floor_int((order.size - unfilled_size) * market.unit)
        if not size_raw:
            return None
        quote_raw = floor_int((-filled_quote if is_buy else filled_quote) * 10**QUOTE_DECIMALS)
        fee_raw = ceil_int(Fraction(abs(quote_raw) * market.fee_ppm, margin.PPM))
        return PerpFill(
            clearing_house="",
            trader=self._client.account_address,
            market=market_name,
            size_raw=size_raw if is_buy else -size_raw,
            quote_raw=quote_raw,
            fee_raw=fee_raw,
        )


class PaperAgentSigner:
    """ports.OrderSigner for paper orders: checks the rules of live orders, and has no key."""

    def __init__(self, rules: FuturesRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock

    @property
    def address(self) -> str:
        """Address of the trader of the signing rules."""
        return self._rules.trader

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Return the action without a signature, and its client order id. Raises Refused."""
        action = require_signable_order(tx, grant, self._rules, self._clock.now_s())
        return SignedTx(json.dumps(action).encode(), action["orders"][0]["c"])

    def require_signable(self, tx: UnsignedTx, grant: Grant) -> str:
        """See OrderSigner."""
        return self.sign(tx, grant).hash

    def sign_orders(self, orders: Sequence[tuple[UnsignedTx, Grant]]) -> SignedTx:
        """See OrderSigner. Returns the action without a signature."""
        action = require_signable_orders(orders, self._rules, self._clock.now_s())
        return SignedTx(json.dumps(action).encode(), action["orders"][0]["c"])


def _receipt(client_order_id: str, *fills: PerpFill) -> Receipt:
    """Return the receipt of an order, which pays no gas and is in no block."""
    return Receipt(
        tx_hash=client_order_id,
        status=1 if fills else 0,
        block_number=0,
        block_hash="",
        gas_used=0,
        effective_gas_price_wei=0,
        transfers=(),
        fills=fills,
    )


def _margin_after(paper_margin: PaperMargin, account: MarginAccount, now_s: int) -> PaperMargin:
    """Return the paper margin of an account after a fill at a time of the venue."""
    settled_s_by_market = {
        position.market: position.settled_s for position in paper_margin.positions
    }
    return replace(
        paper_margin,
        realised_raw=account.realised_raw,
        positions=_paper_positions(account.positions, settled_s_by_market, now_s),
    )


def _paper_positions(
    positions: tuple[Position, ...], settled_s_by_market: dict[str, int], now_s: int
) -> tuple[PaperPosition, ...]:
    """Return paper positions. They pay funding from `settled_s_by_market` on, Unix seconds by
    market, or from `now_s` on if new.
    """
    return tuple(
        PaperPosition(
            position.market,
            position.size_raw,
            position.open_notional_raw,
            0,
            settled_s_by_market.get(position.market, now_s),
        )
        for position in positions
    )


def _last_ms(at_s: int) -> int:
    """Return the last millisecond of a second, as Unix ms; the venue's later rows are new."""
    return at_s * 1000 + 999


def _venue_time_s(account: MarginAccount) -> int:
    """Return the venue's time of an account as its client read it."""
    return account.markets[0].index_s
