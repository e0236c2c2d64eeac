"""Paper futures at Hyperliquid: orders fill on the venue's order book as it is when they would be
posted, and positions pay the venue's hourly funding. Nothing is signed or posted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from agent.errors import ConfigError, OperatorNeeded, TrimtabError
from agent.margin import account as margin
from agent.model import (
    FuturesAction,
    FuturesReading,
    Intent,
    MarginAccount,
    PaperMargin,
    PaperPosition,
    PaperWallet,
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
from agent.paper.chain import RECEIPTS
from agent.ports import Clock, Grant
from agent.ports.perpetuals import PerpOrderDraft
from agent.signing.base import FuturesRules
from agent.signing.futures import require_signable_order
from agent.store.store import PaperStore
from agent.units import ceil_int, floor_int
from agent.venues.hyperliquid.client import HyperliquidVenue
from agent.venues.hyperliquid.orders import QUOTE_DECIMALS, price_of
from agent.venues.hyperliquid.venue import HyperliquidPerps, dated, unknown_reason

UNMATCHED = "Order could not immediately match against any resting orders."
NO_MARGIN = "Insufficient margin to place order."
NOT_REDUCING = "Reduce only order would increase position."


class PaperOrderVenue:
    """ports.futures.OrderVenue with a paper account beside the real venue's markets and books."""

    def __init__(
        self,
        venue: HyperliquidPerps,
        client: HyperliquidVenue,
        book: PaperStore,
        since_s: Callable[[], int | None],
    ) -> None:
        """Set the sources: `venue` quotes and drafts, `client` reads, and `since_s` is the time
        after which the ledger may lack funding payments (see LedgerStore.funding_since_s).
        """
        self._venue = venue
        self._client = client
        self._book = book
        self._since_s = since_s

    def begin(self, snapshot: Snapshot, deposit_raw: int | None) -> PaperMargin:
        """Return the first margin account: `deposit_raw` of collateral without positions, or a copy
        of the real account. Raises ConfigError if the venue cannot be read.
        """
        try:
            real = self._client.read()
            dated(real, snapshot)
        except TrimtabError as error:
            raise ConfigError(
                f"the margin account cannot be read now: {error.message}", "try again"
            ) from None
        if deposit_raw is not None:
            return PaperMargin(deposit_raw * real.settlement_raw, 0, ())
        return PaperMargin(
            real.collateral_raw, real.realised_raw, _positions(real.positions, {}, _time_s(real))
        )

    def read(self, snapshot: Snapshot) -> Snapshot:
        """See PerpVenue."""
        paper_margin = self._state().margin
        try:
            real = self._client.read()
            at = dated(real, snapshot)
            account = (
                None if paper_margin is None else self._account(at, self._paid(paper_margin, real))
            )
        except TrimtabError as error:
            return snapshot.with_layer(FuturesReading(unknown=unknown_reason(error)))
        unknown = "" if account is not None else "paper trading began without a margin account"
        return snapshot.with_layer(FuturesReading(account, unknown))

    def quote(self, account: MarginAccount, order: PerpOrder) -> PerpQuote:
        """See PerpVenue."""
        return self._venue.quote(account, order)

    def draft(self, account: MarginAccount, action: FuturesAction, now_s: int) -> PerpOrderDraft:
        """See PerpVenue."""
        return self._venue.draft(account, action, now_s)

    def outcome(self, intent: Intent) -> Receipt | None:
        """See PerpVenue. An order without a receipt was never filled: only `post` fills one."""
        for receipt in self._state().receipts:
            if receipt.tx_hash == intent.tx_hash:
                return receipt
        return Receipt(str(intent.tx_hash), 0, 0, "", 0, 0, ())

    def require_agent(self, until_s: int) -> None:
        """See OrderVenue. Paper trading needs no agent."""

    def post(self, signed: SignedTx) -> str:
        """See OrderVenue. Fills the order on the book of this moment."""
        state = self._state()
        if state.margin is None or any(
            earlier.tx_hash == signed.hash for earlier in state.receipts
        ):
            return ""
        wire = json.loads(signed.raw)["orders"][0]
        real = self._client.read()
        paper_margin = self._paid(state.margin, real)
        account = self._account(real, paper_margin)
        coin = next(
            market.market
            for market in real.markets
            if self._client.asset_of(market.market) == wire["a"]
        )
        size = Fraction(wire["s"])
        if wire["r"]:
            size_raw = account.size_raw(coin)
            if size_raw and (size_raw < 0) is wire["b"]:
                size = min(size, Fraction(abs(size_raw), account.market(coin).unit))
            else:
                return NOT_REDUCING
        fill = self._matched(account, coin, wire, size)
        if fill is None:
            return UNMATCHED
        after = margin.with_trade(account, coin, fill.size_raw, fill.quote_raw)
        after = replace(after, realised_raw=after.realised_raw - fill.fee_raw)
        if not wire["r"] and margin.free_raw(after) < 0:
            return NO_MARGIN
        realised = after.realised_raw - account.realised_raw
        receipt = Receipt(
            signed.hash, 1, 0, "", 0, 0, (), fills=(replace(fill, realised_raw=realised),)
        )
        settled = {position.market: position.settled_s for position in paper_margin.positions}
        positions = _positions(after.positions, settled, _time_s(real))
        kept = replace(paper_margin, realised_raw=after.realised_raw, positions=positions)
        self._book.save(
            replace(state, margin=kept, receipts=(*state.receipts, receipt)[-RECEIPTS:])
        )
        return ""

    def settle(self) -> None:
        """Book the funding paid until now, so that a reading has few payments to compute. Without
        an answer of the venue nothing changes.
        """
        state = self._state()
        if state.margin is None:
            return
        try:
            paper_margin = self._paid(state.margin, self._client.read())
        except TrimtabError:
            return
        if paper_margin != state.margin:
            self._book.save(replace(state, margin=paper_margin))

    def _state(self) -> PaperWallet:
        wallet = self._book.wallet()
        if wallet is None:
            raise OperatorNeeded("there is no paper wallet yet", "run trimtab paper to create one")
        return wallet

    def _account(self, real: MarginAccount, margin: PaperMargin) -> MarginAccount:
        """Return the paper account with the markets of the real one."""
        return replace(
            real,
            collateral_raw=margin.collateral_raw,
            realised_raw=margin.realised_raw,
            positions=tuple(
                Position(position.market, position.size_raw, position.open_notional_raw)
                for position in margin.positions
            ),
            payments=margin.payments,
            stops=(),
            resting=(),
        )

    def _paid(self, margin: PaperMargin, real: MarginAccount) -> PaperMargin:
        """Return the account after the hourly funding until the time of a reading: size times the
        close of the hour before it times the venue's rate. Raises Retryable, OperatorNeeded for a
        position in a market that the config does not have.
        """
        until_ms = _time_s(real) * 1000
        paid, positions = list[VenuePayment](), []
        for position in margin.positions:
            market = next(
                (
                    perp_market
                    for perp_market in real.markets
                    if perp_market.market == position.market
                ),
                None,
            )
            if market is None:
                raise OperatorNeeded(
                    f"the paper account has a position in {position.market}, which is not in [futures]",
                    f"add the market {position.market} with the weight 0% until it is closed",
                )
            rates = self._client.funding_rates(
                position.market, _last_ms(position.settled_s), until_ms
            )
            for time_ms, rate in rates:
                quoted = self._client.price_before(position.market, time_ms)
                raw = ceil_int(position.size_raw * price_of(quoted, market.size_decimals) * rate)
                paid.append(VenuePayment(position.market, time_ms // 1000, raw))
            last_s = max((time_ms // 1000 for time_ms, _ in rates), default=position.settled_s)
            positions.append(replace(position, settled_s=last_s))
        since_s = self._since_s() or 0
        kept = [*(payment for payment in margin.payments if payment.at_s > since_s), *paid]
        return replace(
            margin,
            realised_raw=margin.realised_raw
            - sum(venue_payment.paid_raw for venue_payment in paid),
            positions=tuple(positions),
            payments=tuple(sorted(kept, key=lambda position: (position.at_s, position.market))),
        )

    def _matched(
        self, account: MarginAccount, coin: str, wire: dict[str, object], amount: Fraction
    ) -> PerpFill | None:
        """Return the fill of a size on the book within the limit price; None if nothing fills."""
        market, limit, buys = account.market(coin), Fraction(str(wire["p"])), wire["b"] is True
        left, quote = amount, Fraction(0)
        for price, size in () if market.is_paused else self._client.book(coin, asks=buys):
            if left <= 0 or (price > limit if buys else price < limit):
                break
            part = min(left, size)
            left, quote = left - part, quote + part * price
        size_raw = floor_int((amount - left) * market.unit)
        if not size_raw:
            return None
        quote_raw = floor_int((-quote if buys else quote) * 10**QUOTE_DECIMALS)
        fee_raw = ceil_int(Fraction(abs(quote_raw) * market.fee_ppm, margin.PPM))
        return PerpFill(
            "", self._client.account, coin, size_raw if buys else -size_raw, quote_raw, fee_raw, 0
        )


class PaperAgentSigner:
    """ports.Signer for paper orders: checks the rules of live orders, and has no key."""

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


def _positions(
    positions: tuple[Position, ...], settled: dict[str, int], now_s: int
) -> tuple[PaperPosition, ...]:
    """Return paper positions. They pay funding from `settled` on, Unix seconds by market, or from
    `now_s` on if new.
    """
    return tuple(
        PaperPosition(
            position.market,
            position.size_raw,
            position.open_notional_raw,
            0,
            settled.get(position.market, now_s),
        )
        for position in positions
    )


def _last_ms(at_s: int) -> int:
    """Return the last millisecond of a second, as Unix ms; the venue's later rows are new."""
    return at_s * 1000 + 999


def _time_s(account: MarginAccount) -> int:
    """Return the venue's time of an account as its client read it."""
    return account.markets[0].index_s
