"""One account at Hyperliquid: reads, posts of signed orders, and agent wallets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import TypeVar

from eth_utils.address import is_address, to_checksum_address

from agent.codec import json_field
from agent.errors import (
    ErrorCode,
    OperatorNeeded,
    PassingFault,
    Refused,
    Retryable,
    TrimtabError,
)
from agent.model import MarginAccount, PerpMarket, StaleRead, StaleReadKind, VenuePayment
from agent.signing.futures import LIMIT_TAG, STOP_TAG
from agent.units import HOUR_S
from agent.venues.hyperliquid.account import (
    SEPARATE_MARGIN_MODES,
    STRICTEST_LEVERAGE,
    LeverageSetting,
    ListedMarket,
    MarketRow,
    ReportedAccount,
    build_account,
    build_market,
    market_rows,
    missing_market_error,
    parse_account,
    parse_fee_ppm,
    parse_leverage,
    parse_market,
    parse_market_numbers,
    parse_payments,
    parse_resting_orders,
    parse_stops,
    parse_transfers,
    position_marks,
    require_market,
    require_own_margin,
    require_pinned_numbers,
    row_time_ms,
    tagged_rows,
    unlisted_markets,
)
from agent.venues.hyperliquid.agent_key import AgentKey
from agent.venues.hyperliquid.connection import HyperliquidConnection, network_name
from agent.venues.hyperliquid.kept_reads import AccountModeStore, KeptReads, KeptValue
from agent.venues.hyperliquid.orders import (
    OrderState,
    VenueOrderStage,
    VenueRefusal,
    order_state,
    parse_decimal,
    parse_order_status,
    parse_positive,
    parse_refusals,
)

ROWS_PER_PAGE = 500
"""Maximum rows of a time-range answer; an answer with this many rows may have further pages."""
FILLS_PER_PAGE = 2_000
"""Maximum rows of an answer with fills."""
FILL_DELAY_MS = 10_000
"""Longest time after which the venue is taken to list a fill."""
DAY_MS = 86_400_000
ALWAYS_READ = 0
"""For what is read anew before each order."""
MINUTE_S = 60
"""Longest time for which open orders and approved agents are kept, seconds, since their owner may
change them.
"""
FIVE_MINUTES_S = 300
"""Longest time for which leverage settings are kept, and what depends on the account's cash:
account mode, transfers and funding payments. Those are read again once cash or positions change.
"""
TEN_MINUTES_S = 600
"""Longest time for which fees are kept, seconds."""
HIGHEST_FEE_PPM = 450
"""The venue's highest taker fee, parts per million, which is assumed while none is known."""


@dataclass(frozen=True, slots=True)
class HyperliquidAgent:
    """An approved agent wallet; `valid_until_ms` is the venue's time at which it expires."""

    name: str
    address: str
    valid_until_ms: int


@dataclass(frozen=True, slots=True)
class _TransferTotal:
    """Sum of transfers up to a time of the venue, and their kinds that are not known."""

    until_ms: int
    raw: int
    unknown_kinds: tuple[str, ...]


T = TypeVar("T")
OrderRows = Sequence[Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class AccountReading:
    """Account and markets, and the parts of them that may be old."""

    account: MarginAccount
    stale_reads: tuple[StaleRead, ...]


class HyperliquidClient:
    """One account at the venue. `now_ms` is the wall clock, for the ages of kept answers."""

    def __init__(
        self,
        connection: HyperliquidConnection,
        account_address: str,
        token_by_coin: Mapping[str, str],
        now_ms: Callable[[], int],
        key: AgentKey | None = None,
        funding_since_s: Callable[[], int | None] = lambda: None,
        read_pinned_numbers: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        """Set the account's own address, never the agent's, and the portfolio's token of each
        market ("" for none). Without `key` nothing can be sent. `funding_since_s` is the time after
        which the ledger may lack funding payments (None: none are read). `read_pinned_numbers`
        returns the pinned market numbers by name; nothing is read from a venue that lists a market
        under another.
        """
        self._connection = connection
        self._account_address = str(to_checksum_address(account_address))
        self._token_by_coin = dict(token_by_coin)
        self._now_ms = now_ms
        self._key = key
        self._funding_since_s = funding_since_s
        self._read_pinned_numbers = read_pinned_numbers
        self._market_by_coin: dict[str, ListedMarket] = {}
        self._transfer_total = _TransferTotal(-1, 0, ())
        self._kept = KeptReads(lambda: now_ms() // 1000, keeps_fresh=False)
        self._mode_store: AccountModeStore | None = None
        self._recorded_mode = ("", 0)
        self._transfers_basis: object = None
        """Cash and sizes at the newest read of the transfers."""

    @property
    def account_address(self) -> str:
        """Checksummed address of the account."""
        return self._account_address

    def with_key(self, key: AgentKey) -> HyperliquidClient:
        """Return this client with a key. Both share the connection and what is kept."""
        client = copy.copy(self)
        client._key = key
        return client

    def keeping(self, mode_store: AccountModeStore) -> HyperliquidClient:
        """Return this client so that it keeps what changes rarely, and records the account's mode
        for the next process.
        """
        client = copy.copy(self)
        client._kept = KeptReads(lambda: self._now_ms() // 1000, keeps_fresh=True)
        client._mode_store = mode_store
        client._recorded_mode = mode_store.account_mode(self._account_address)
        if client._recorded_mode[0]:
            client._kept.restore(StaleReadKind.MODE.value, *client._recorded_mode)
        return client

    def read(self) -> MarginAccount:
        """Return account and markets; see `read_account`."""
        return self.read_account().account

    def read_account(self) -> AccountReading:
        """Return account and markets, with the parts that may be old: only balances, positions and
        prices are needed. Raises Retryable for answers that contradict each other, OperatorNeeded
        for an account whose margin is in its spot balances, and for market numbers other than the
        pinned ones, Refused for a market that the venue does not have.
        """
        self._connection.begin_side_reads()
        state_answer = self._info("clearinghouseState")
        orders = self._side_read(
            StaleReadKind.ORDERS,
            self._open_order_rows,
            MINUTE_S,
            _cash_and_sizes(state_answer),
        )
        if orders.is_new:
            # Open orders first: an order that fills between the two reads is counted twice rather
            # than not at all.
            state_answer = self._info("clearinghouseState")
        basis = _cash_and_sizes(state_answer)
        stop_rows, limit_rows = orders.value or ((), ())
        open_coins = [
            *_held_coins(state_answer),
            *(str(row.get("coin")) for row in (*stop_rows, *limit_rows)),
        ]
        universe_answer = self._connection.info(type="metaAndAssetCtxs")
        require_pinned_numbers(parse_market_numbers(universe_answer), self._read_pinned_numbers())
        row_by_coin = market_rows(universe_answer, {*self._token_by_coin, *open_coins})
        listed_markets, stale_reads = self._listed_markets(
            row_by_coin, position_marks(state_answer)
        )
        self._market_by_coin.clear()
        self._market_by_coin.update(unlisted_markets(state_answer, listed_markets))
        self._market_by_coin.update(listed_markets)
        reported_account = parse_account(state_answer, self._market_by_coin)
        if orders.fault:
            stale_reads.append(StaleRead(StaleReadKind.ORDERS, orders.fault))
        stale_reads += self._mode_faults(reported_account, basis)
        markets, market_faults = self._markets(reported_account)
        deposits, deposit_faults = self._deposits(basis)
        payments, payment_faults = self._unbooked_payments(basis, reported_account.time_ms)
        account = replace(
            build_account(
                reported_account,
                markets,
                *deposits,
                is_listed=self._market_by_coin.keys() == listed_markets.keys(),
            ),
            unbooked_payments=payments,
        )
        stale_reads += [*market_faults, *deposit_faults, *payment_faults]
        try:
            account = replace(
                account,
                resting_stops=parse_stops(stop_rows, self._market_by_coin),
                resting_orders=parse_resting_orders(limit_rows, self._market_by_coin),
            )
        except Retryable as error:
            stale_reads.append(StaleRead(StaleReadKind.ORDERS, error.message))
        return AccountReading(account, tuple(stale_reads))

    def _listed_markets(
        self, row_by_coin: Mapping[str, MarketRow], mark_by_position: Mapping[str, Fraction]
    ) -> tuple[dict[str, ListedMarket], list[StaleRead]]:
        """Return the markets that can be read, and what is wrong with each other configured one.
        Raises Retryable for one with a position that cannot be read, and Refused or Retryable if
        no configured one is left.
        """
        market_by_coin: dict[str, ListedMarket] = {}
        faults: list[TrimtabError] = [
            missing_market_error(coin) for coin in self._token_by_coin if coin not in row_by_coin
        ]
        for coin, row in row_by_coin.items():
            try:
                market_by_coin[coin] = parse_market(
                    coin, row, mark_by_position.get(coin, Fraction(0))
                )
            except Retryable as error:
                if coin in mark_by_position:
                    raise
                faults.append(error)
        if faults and not market_by_coin.keys() & self._token_by_coin.keys():
            raise faults[0]
        return market_by_coin, [StaleRead(StaleReadKind.MARKETS, fault.message) for fault in faults]

    def _side_read(
        self,
        kind: StaleReadKind,
        read_value: Callable[[], T],
        fresh_s: int,
        basis: object = None,
        name: str = "",
    ) -> KeptValue[T]:
        return self._kept.read(kind.value + name, read_value, fresh_s, basis)

    def _open_order_rows(self) -> tuple[OrderRows, OrderRows]:
        """Return the rows of the agent's resting stops and of its limit orders."""
        orders_answer = self._side_info("frontendOpenOrders")
        return tagged_rows(orders_answer, STOP_TAG), tagged_rows(orders_answer, LIMIT_TAG)

    def _mode_faults(self, reported_account: ReportedAccount, basis: object) -> list[StaleRead]:
        """Require the account to have margin of its own, by its newest known mode. Raises
        Retryable if no mode is known, and if the figures may be those of a shared balance.
        """
        is_known = self._kept.has(StaleReadKind.MODE.value)
        read_info = self._side_info if is_known else self._info
        mode = self._side_read(
            StaleReadKind.MODE, lambda: read_info("userAbstraction"), FIVE_MINUTES_S, basis
        )
        if mode.value is None and mode.fault:
            raise Retryable(f"the account's mode is not known: {mode.fault}", code=ErrorCode.ANSWER)
        if mode.is_new:
            is_separate = mode.value in SEPARATE_MARGIN_MODES
            self._record_mode(str(mode.value) if is_separate else "")
            if not is_separate:
                self._kept.drop(StaleReadKind.MODE.value)
        require_own_margin(mode.value)
        if mode.fault and not mode.is_of_basis and reported_account.is_like_shared_balance:
            raise Retryable(
                "the account has exactly the margin of its positions, as with a shared balance, and"
                f" its mode could not be read: {mode.fault}",
                code=ErrorCode.ANSWER,
            )
        return [StaleRead(StaleReadKind.MODE, mode.fault)] if mode.fault else []

    def require_own_mode(self) -> None:
        """Read the account's mode anew. Raises Retryable without an answer, OperatorNeeded unless
        the account has margin of its own.
        """
        mode = self._info("userAbstraction")
        if mode not in SEPARATE_MARGIN_MODES:
            self._kept.drop(StaleReadKind.MODE.value)
        require_own_margin(mode)

    def _record_mode(self, mode: str) -> None:
        """Record the mode for the next process (empty: one of shared margin), if it has changed or
        the record is an hour old. A store that cannot be written now makes no account unknown.
        """
        now_s = self._now_ms() // 1000
        recorded_mode, recorded_s = self._recorded_mode
        is_recent = 0 <= now_s - recorded_s < HOUR_S  # the clock may have been set back
        if self._mode_store is None or (mode == recorded_mode and is_recent):
            return
        with suppress(PassingFault):
            self._mode_store.record_account_mode(self._account_address, mode, now_s)
            self._recorded_mode = (mode, now_s)

    def _markets(
        self, reported_account: ReportedAccount
    ) -> tuple[tuple[PerpMarket, ...], list[StaleRead]]:
        """Return the markets with fee and leverage settings."""
        fee = self._side_read(
            StaleReadKind.FEES, lambda: parse_fee_ppm(self._side_info("userFees")), TEN_MINUTES_S
        )
        stale_reads = [StaleRead(StaleReadKind.FEES, fee.fault)] if fee.fault else []
        setting_by_coin = dict(reported_account.settings)
        for coin in self._market_by_coin:
            if coin in setting_by_coin:
                continue
            setting = self._side_read(
                StaleReadKind.LEVERAGE,
                partial(self._leverage_setting, coin),
                FIVE_MINUTES_S,
                name=coin,
            )
            setting_by_coin[coin] = setting.value or STRICTEST_LEVERAGE
            if setting.fault:
                stale_reads.append(StaleRead(StaleReadKind.LEVERAGE, setting.fault))
        fee_ppm = HIGHEST_FEE_PPM if fee.value is None else fee.value
        markets = tuple(
            build_market(
                listed_market,
                setting_by_coin[coin],
                self._token_by_coin.get(coin, ""),
                fee_ppm,
                reported_account.time_ms // 1000,
                is_configured=coin in self._token_by_coin,
            )
            for coin, listed_market in self._market_by_coin.items()
        )
        return markets, stale_reads

    def _leverage_setting(self, coin: str) -> LeverageSetting:
        return parse_leverage(self._side_info("activeAssetData", coin=coin), coin)

    def _basis_read(
        self, kind: StaleReadKind, read_value: Callable[[], T], basis: object
    ) -> tuple[T | None, list[StaleRead]]:
        """Return what moves with the account's cash, and whether it is older than `basis`."""
        kept_value = self._side_read(kind, read_value, FIVE_MINUTES_S, basis)
        is_stale = kept_value.fault and not kept_value.is_of_basis
        return kept_value.value, [StaleRead(kind, kept_value.fault)] if is_stale else []

    def _deposits(self, basis: object) -> tuple[tuple[int, tuple[str, ...]], list[StaleRead]]:
        """Return the sum of all deposits less withdrawals, and the kinds of rows that are not
        known. A sum that is older than the account's cash may lack a transfer. It is read at the
        first look at a change of the cash and at the next, because the venue may list a transfer
        later than it moves the cash.
        """
        is_basis_new = basis != self._transfers_basis
        deposits, stale_reads = self._basis_read(
            StaleReadKind.TRANSFERS, self._net_deposits_and_unknown_kinds, (basis, is_basis_new)
        )
        if not stale_reads:
            self._transfers_basis = basis
        return deposits or (0, ()), stale_reads

    def _unbooked_payments(
        self, basis: object, until_ms: int
    ) -> tuple[tuple[VenuePayment, ...], list[StaleRead]]:
        """Return the funding payments that the ledger may lack. One that the venue lists late is
        booked within five minutes; until then a second read would take from the budget of orders.
        """
        since_s = self._funding_since_s()
        if since_s is None:
            return (), []
        payments, stale_reads = self._basis_read(
            StaleReadKind.FUNDING,
            lambda: self._payments(since_s * 1000, until_ms),
            (basis, since_s),
        )
        return payments or (), stale_reads

    def _net_deposits_and_unknown_kinds(self) -> tuple[int, tuple[str, ...]]:
        """Return the sum of all deposits less withdrawals, and the kinds of rows that are not
        known. Sums of rows before the last full page are kept.
        """
        request_type = "userNonFundingLedgerUpdates"
        user = self._account_address.lower()
        transfer_rows = self._read_all_rows(
            self._connection.side_info, request_type, self._transfer_total.until_ms, user=user
        )
        deposited_raw, unknown_kinds = parse_transfers(transfer_rows, self._account_address)
        deposited_raw += self._transfer_total.raw
        unknown_kinds = tuple(dict.fromkeys((*self._transfer_total.unknown_kinds, *unknown_kinds)))
        if len(transfer_rows) >= ROWS_PER_PAGE:
            last_ms = max(row_time_ms(row) for row in transfer_rows)
            last_time_net_raw, _ = parse_transfers(
                [row for row in transfer_rows if row_time_ms(row) == last_ms], self._account_address
            )
            self._transfer_total = _TransferTotal(
                last_ms - 1, deposited_raw - last_time_net_raw, unknown_kinds
            )
        return deposited_raw, unknown_kinds

    def _payments(self, since_ms: int, until_ms: int) -> tuple[VenuePayment, ...]:
        payment_rows = self._read_all_rows(
            self._connection.side_info,
            "userFunding",
            since_ms,
            user=self._account_address.lower(),
        )
        return parse_payments([row for row in payment_rows if row_time_ms(row) <= until_ms])

    def funding_rates(
        self, coin: str, since_ms: int, until_ms: int
    ) -> tuple[tuple[int, Fraction], ...]:
        """Return time in milliseconds and hourly rate of the market's payments after `since_ms` and
        up to `until_ms`, oldest first. Raises Retryable.
        """
        rate_rows = self._read_all_rows(
            self._connection.info, "fundingHistory", since_ms, coin=coin
        )
        return tuple(
            (row_time_ms(row), parse_decimal(row.get("fundingRate"), f"the funding of {coin}"))
            for row in rate_rows
            if row_time_ms(row) <= until_ms
        )

    def price_before(self, coin: str, time_ms: int) -> Fraction:
        """Return the close of the last hourly candle before a time, USDC per coin. Raises
        Retryable, also if the day before that time has no candle.
        """
        candle_range = {
            "coin": coin,
            "interval": "1h",
            "startTime": time_ms - DAY_MS,
            "endTime": time_ms,
        }
        answer = self._connection.info(type="candleSnapshot", req=candle_range)
        closed_candles = [
            candle
            for candle in _require_rows(answer, "candles")
            if row_time_ms(candle, "T") < time_ms
        ]
        if not closed_candles:
            raise Retryable(f"the venue has no price of {coin} in the day before its funding")
        return parse_positive(closed_candles[-1].get("c"), f"a price of {coin}")

    def _read_all_rows(
        self,
        read_info: Callable[..., object],
        request_type: str,
        since_ms: int,
        rows_per_page: int = ROWS_PER_PAGE,
        **request_fields: object,
    ) -> list[Mapping[str, object]]:
        """Return all rows of a time-range read after `since_ms`."""
        all_rows: list[Mapping[str, object]] = []
        while True:
            answer = read_info(type=request_type, startTime=since_ms + 1, **request_fields)
            page_rows = _require_rows(answer, request_type)
            if len(page_rows) < rows_per_page:
                return all_rows + page_rows
            last_ms = max(row_time_ms(row) for row in page_rows)
            # Rows of the last time may continue on the next page.
            complete_rows = [row for row in page_rows if row_time_ms(row) < last_ms]
            all_rows += complete_rows or page_rows
            since_ms = last_ms - 1 if complete_rows else last_ms

    def order_book_side(
        self, coin: str, *, asks: bool, may_wait: bool = True
    ) -> list[tuple[Fraction, Fraction]]:
        """Return price and size of the resting orders of one side, best first. Raises Retryable, at
        once unless it `may_wait` for the venue.
        """
        if may_wait:
            answer = self._connection.info(type="l2Book", coin=coin)
        else:
            self._connection.begin_side_reads()
            answer = self._connection.side_info(type="l2Book", coin=coin)
        levels = json_field(answer, "levels")
        if not isinstance(levels, list) or len(levels) != 2 or not isinstance(levels[asks], list):
            raise Retryable("the venue's answer for the book has an unexpected format")
        if not all(isinstance(level, Mapping) for level in levels[asks]):
            raise Retryable("the venue's answer for the book has an unexpected format")
        return [
            (
                parse_positive(level.get("px"), "a price of the book"),
                parse_positive(level.get("sz"), "a size of the book"),
            )
            for level in levels[asks]
        ]

    def unpinned_markets(self) -> tuple[str, ...]:
        """Return the configured markets without a pinned number."""
        pinned_numbers = self._read_pinned_numbers()
        return tuple(coin for coin in self._token_by_coin if coin not in pinned_numbers)

    def market_number(self, coin: str) -> int:
        """Return the market's number for orders. Raises Refused if the venue does not have the
        market.
        """
        return self._market(coin).number

    def agents(self) -> tuple[HyperliquidAgent, ...]:
        """Return the named agent wallets of the account; expired ones may be among them."""
        return self._parse_agents(self._info("extraAgents"))

    def _parse_agents(self, answer: object) -> tuple[HyperliquidAgent, ...]:
        if not isinstance(answer, list):
            raise Retryable("the venue's answer for agents is not a list", code=ErrorCode.ANSWER)
        named_agents = []
        for agent_row in answer:
            until_ms = json_field(agent_row, "validUntil")
            if not isinstance(agent_row, Mapping) or type(until_ms) is not int:
                raise Retryable("the venue's answer for an agent has an unexpected format")
            address = agent_row.get("address")
            if not isinstance(address, str) or not is_address(address):
                raise Retryable("the venue's answer for an agent has an unexpected format")
            named_agents.append(
                HyperliquidAgent(str(agent_row.get("name")), to_checksum_address(address), until_ms)
            )
        return tuple(named_agents)

    def known_agents(self, fresh_s: int = MINUTE_S) -> KeptValue[tuple[HyperliquidAgent, ...]]:
        """Return the named agent wallets, or the last known ones with the reason."""
        return self._side_read(
            StaleReadKind.AGENTS,
            lambda: self._parse_agents(self._side_info("extraAgents")),
            fresh_s,
        )

    def read_account_promptly(self) -> AccountReading:
        """Return what `read_account` returns, without a wait for the venue. Raises Retryable for
        what would have to wait.
        """
        with self._connection.prompt_reads():
            return self.read_account()

    @property
    def has_left_out_reads(self) -> bool:
        """True if the last look left out reads because the venue limits or fails them."""
        return self._connection.has_left_out_reads

    def wait_for_budget(self) -> None:
        """Wait until the venue's budget allows a whole look, for a minute at most."""
        self._connection.wait_for_look()

    def agents_for_reduction(self) -> KeptValue[tuple[HyperliquidAgent, ...]]:
        """Return the agents that are known when a reduction is sent."""
        self._connection.begin_side_reads()
        return self.known_agents(ALWAYS_READ)

    @property
    def agent_address(self) -> str:
        """Checksummed address of the key. Raises Refused without one."""
        return self._require_key().address

    def require_agent(
        self, until_ms: int, agents: Sequence[HyperliquidAgent] | None = None
    ) -> HyperliquidAgent:
        """Return the agent of the key, from `agents` or from a new answer. Raises OperatorNeeded
        unless it is approved for the account on this network until `until_ms`.
        """
        key = self._require_key()
        for agent in self.agents() if agents is None else agents:
            if agent.address.lower() == key.address.lower() and agent.valid_until_ms > until_ms:
                return agent
        raise OperatorNeeded(
            f"{key.address} is not an agent of {self._account_address} on the"
            f" {network_name(self._connection.is_mainnet)}, or its approval ends too soon",
            "approve a new key; a key that has been an agent is never approved again",
            code=ErrorCode.KEY,
        )

    def state_of(self, cloid: str) -> OrderState:
        """Return the venue's state of a client order id, with its fills. Raises Retryable while
        some of them may not be listed.
        """
        order_record = parse_order_status(self._info("orderStatus", oid=cloid), cloid)
        if order_record is None:
            return OrderState(cloid, VenueOrderStage.UNKNOWN)
        if order_record.may_hide_fills and not self.is_past(
            order_record.changed_ms + FILL_DELAY_MS
        ):
            raise Retryable(
                "the fills of a cancelled order may not be listed yet", code=ErrorCode.ANSWER
            )
        fill_rows = self._read_all_rows(
            self._connection.info,
            "userFillsByTime",
            order_record.accepted_ms - 1,
            FILLS_PER_PAGE,
            user=self._account_address.lower(),
        )
        return order_state(order_record, fill_rows, self._market(order_record.coin).size_decimals)

    def is_order_dead(self, cloid: str, expires_ms: int) -> bool:
        """True if an order that expires at `expires_ms` is unknown at a later time of the venue."""
        return self.is_past(expires_ms) and self.state_of(cloid).stage is VenueOrderStage.UNKNOWN

    def is_past(self, time_ms: int) -> bool:
        """True if the venue's time is after `time_ms`."""
        now_ms = json_field(self._info("clearinghouseState"), "time")
        return type(now_ms) is int and now_ms > time_ms

    def post_orders(self, request_body: Mapping[str, object], count: int) -> list[str]:
        """Post a signed action of `count` orders once, without querying them first. Return for each
        the reason if the venue rejected it or does not know the signer, else an empty text. Raises
        Retryable if an order may have been executed.
        """
        self._kept.forget(StaleReadKind.ORDERS.value)
        refusals = parse_refusals(self._connection.exchange(request_body), count)
        for refusal in refusals:
            if refusal is not None and not (refusal.is_judged or _is_signer_unknown(refusal)):
                raise Retryable(
                    f"the venue did not judge the order: {refusal.reason}",
                    code=ErrorCode.UNKNOWN_IF_SENT,
                )
        return ["" if refusal is None else refusal.reason for refusal in refusals]

    def _info(self, request_type: str, **request_fields: object) -> object:
        return self._connection.info(
            type=request_type, user=self._account_address.lower(), **request_fields
        )

    def _side_info(self, request_type: str, **request_fields: object) -> object:
        return self._connection.side_info(
            type=request_type, user=self._account_address.lower(), **request_fields
        )

    def _market(self, coin: str) -> ListedMarket:
        if coin not in self._market_by_coin:
            answer = self._connection.info(type="metaAndAssetCtxs")
            for listed_coin, row in market_rows(answer, {coin}).items():
                self._market_by_coin[listed_coin] = parse_market(listed_coin, row)
        return require_market(self._market_by_coin, coin)

    def _require_key(self) -> AgentKey:
        if self._key is None:
            raise Refused("no agent key: nothing can be sent", code=ErrorCode.KEY)
        return self._key


def _is_signer_unknown(refusal: VenueRefusal) -> bool:
    """True for the venue's answer to a signature for another network, by an expired agent, or by an
    unknown key.
    """
    return "does not exist" in refusal.reason


def _cash_and_sizes(state_answer: object) -> tuple[object, ...]:
    """Return cash and positions as the venue writes them: while they are the same, no order was
    filled, no funding paid and no margin moved.
    """
    return (
        json_field(json_field(state_answer, "marginSummary"), "totalRawUsd"),
        *(
            (json_field(position, "coin"), json_field(position, "szi"))
            for position in _positions(state_answer)
        ),
    )


def _held_coins(state_answer: object) -> Sequence[str]:
    """Return the coins of the readable positions."""
    positions = _positions(state_answer)
    return [str(position.get("coin")) for position in positions if isinstance(position, Mapping)]


def _positions(state_answer: object) -> list[object]:
    position_rows = json_field(state_answer, "assetPositions")
    if not isinstance(position_rows, list):
        raise Retryable(
            "the venue's answer for positions has an unexpected format", code=ErrorCode.ANSWER
        )
    return [json_field(row, "position") for row in position_rows]


def _require_rows(answer: object, answer_name: str) -> list[Mapping[str, object]]:
    if not isinstance(answer, list) or not all(isinstance(row, Mapping) for row in answer):
        raise Retryable(
            f"the venue's answer for {answer_name} is not a list", code=ErrorCode.ANSWER
        )
    return answer
