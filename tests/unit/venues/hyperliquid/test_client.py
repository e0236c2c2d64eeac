"""The client of an account at Hyperliquid beside a venue of fixed answers: what it reads, keeps, does without, and asks again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent.errors import OperatorNeeded, Retryable, TrimtabError
from agent.layers.futures.planning.orders import plan_futures
from agent.layers.futures.policy.targets import FuturesTrigger, due_triggers, funding_notes
from agent.model import StaleReadKind, VenuePayment
from agent.model.futures import MarginAccount
from agent.signing.futures import STOP_TAG
from agent.units import HOUR_S
from agent.venues.hyperliquid.account import UNLISTED_NUMBER
from agent.venues.hyperliquid.client import (
    FILL_DELAY_MS,
    FIVE_MINUTES_S,
    HIGHEST_FEE_PPM,
    MINUTE_S,
    ROWS_PER_PAGE,
    TEN_MINUTES_S,
    HyperliquidAgent,
    HyperliquidClient,
)
from agent.venues.hyperliquid.orders import VenueOrderStage
from tests.support.builders import OWNER
from tests.support.perpetuals.plans import RICH, policy_of
from tests.support.perpetuals.venue_accounts import LIMIT, MARKS, NOW_S, account_state, open_order
from tests.support.text import raises_code

ORDERS = "frontendOpenOrders"
STATE = "clearinghouseState"
MARKETS = "metaAndAssetCtxs"
MODE = "userAbstraction"
FEES = "userFees"
LEVERAGE = "activeAssetData"
TRANSFERS = "userNonFundingLedgerUpdates"
FUNDING = "userFunding"
STOP = "0x" + STOP_TAG.hex() + "11" * 12


def markets(*coins: str, **changes: object) -> list[object]:
    context = {"funding": "0", "midPx": None}
    entry = {"szDecimals": 4, "maxLeverage": 40}
    return [
        {"universe": [{"name": coin, **entry, **cast(Any, changes.get(coin, {}))} for coin in coins], "marginTables": []},
        [context | {"markPx": str(MARKS[coin]), "oraclePx": str(MARKS[coin])} for coin in coins],
    ]


def transfer(time_ms: int, usdc: str = "1") -> dict[str, object]:
    return {"time": time_ms, "delta": {"type": "deposit", "usdc": usdc}}


def payment(time_ms: int) -> dict[str, object]:
    return {"time": time_ms, "delta": {"type": "funding", "coin": "ETH", "usdc": "-2"}}


class FakeConnection:
    """A connection with an answer for each type of read; `down` types are not answered, `calls` are all of them."""

    is_mainnet = False
    has_left_out_reads = False

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            STATE: account_state(),
            ORDERS: [],
            MARKETS: markets("ETH", "BTC", "DOGE"),
            MODE: "default",
            FEES: {"userCrossRate": "0.00035"},
            LEVERAGE: {"leverage": {"type": "cross", "value": 10}},
            TRANSFERS: [],
            FUNDING: [],
        }
        self.after: dict[str, dict[str, Any]] = {}
        """Answers that change with the read of a type."""
        self.down: set[str] = set()
        self.calls: list[tuple[str, str]] = []
        self.fields: list[Mapping[str, Any]] = []
        self.begun_count = 0
        self.is_prompt = False

    def _answer(self, kind: str, fields: Mapping[str, Any]) -> Any:
        name = fields["type"]
        self.calls.append((name, kind))
        self.fields.append(fields)
        if name in self.down:
            raise Retryable(f"no {name}")
        answer = self.answers[name]
        self.answers |= self.after.pop(name, {})
        return answer.pop(0) if isinstance(answer, ScriptedAnswers) else answer

    def info(self, **fields: Any) -> Any:
        return self._answer("prompt" if self.is_prompt else "info", fields)

    def side_info(self, **fields: Any) -> Any:
        return self._answer("side", fields)

    def exchange(self, _body: object) -> Any:
        return self.answers["exchange"]

    def begin_side_reads(self) -> None:
        self.begun_count += 1

    @contextmanager
    def prompt_reads(self) -> Iterator[None]:
        self.is_prompt = True
        yield
        self.is_prompt = False

    def count(self, name: str) -> int:
        return sum(called == name for called, _ in self.calls)


class ScriptedAnswers(list[Any]):
    """Answers in turn."""


class FakeModeStore:
    """A record of the account's mode."""

    def __init__(self, mode: str = "", at_s: int = 0) -> None:
        self.recorded = (mode, at_s)
        self.records: list[tuple[str, int]] = []

    def account_mode(self, _account: str) -> tuple[str, int]:
        return self.recorded

    def record_account_mode(self, _account: str, mode: str, at_s: int) -> None:
        self.records.append((mode, at_s))


class World:
    """A client that keeps what changes rarely, its connection and its clock."""

    def __init__(self, mode_store: FakeModeStore | None = None) -> None:
        self.connection = FakeConnection()
        self.now_s = NOW_S
        self.since_s: int | None = NOW_S - 7_200
        self.mode_store = mode_store or FakeModeStore()
        client = HyperliquidClient(
            cast(Any, self.connection), OWNER, {"ETH": "0xweth"}, lambda: self.now_s * 1000, None, lambda: self.since_s
        )
        self.client = client.keeping(self.mode_store)

    def read(self, after_s: int = 0, **answers: Any) -> MarginAccount:
        """Read the account after some seconds, and after changes of answers; `calls` are those of this read."""
        self.now_s += after_s
        self.connection.answers |= answers
        self.connection.calls.clear()
        self.connection.fields.clear()
        return self.client.read()

    def stale(self) -> list[StaleReadKind]:
        return [stale.kind for stale in self.client.read_account().stale_reads]


@pytest.fixture
def world() -> World:
    return World()


# What a look reads


def test_read__only_account_markets_and_a_first_mode_delay_it(world: World) -> None:
    world.read()
    kinds = dict(world.connection.calls)
    assert {name for name, kind in kinds.items() if kind == "info"} == {STATE, MARKETS, MODE}
    assert {name for name, kind in kinds.items() if kind == "side"} == {ORDERS, FEES, LEVERAGE, TRANSFERS, FUNDING}
    world.read(FIVE_MINUTES_S)
    assert (MODE, "side") in world.connection.calls
    assert world.connection.begun_count == 2, "the time of a look's side reads begins with it"


def test_read__prompt_one_waits_for_nothing(world: World) -> None:
    world.client.read_account_promptly()
    assert (STATE, "prompt") in world.connection.calls
    assert not world.connection.is_prompt


KEPT = {ORDERS: MINUTE_S, MODE: FIVE_MINUTES_S, FEES: TEN_MINUTES_S, LEVERAGE: FIVE_MINUTES_S, FUNDING: FIVE_MINUTES_S}


@pytest.mark.parametrize("name", KEPT)
def test_read__what_changes_rarely_is_read_again_at_its_age(world: World, name: str) -> None:
    world.read()
    world.read()
    world.read(KEPT[name] - 1)
    assert world.connection.count(name) == 0
    world.read(1)
    assert world.connection.count(name) == 1


CASH = {
    "cash": account_state(9_999),
    "a position": account_state(12_000, ETH=1),
    "isolated margin": account_state() | {"marginSummary": {**account_state()["marginSummary"], "totalRawUsd": "10000.000001"}},
}


@pytest.mark.parametrize("change", CASH)
@pytest.mark.parametrize("name", [ORDERS, MODE, TRANSFERS, FUNDING])
def test_read__what_moves_with_cash_is_read_again_on_change(world: World, name: str, change: str) -> None:
    world.read()
    world.read()
    world.read(**{STATE: CASH[change]})
    assert world.connection.count(name) == 1
    assert world.connection.count(FEES) == 0


@pytest.mark.parametrize(("name", "counts"), [(TRANSFERS, [1, 1, 1, 1, 0]), (FUNDING, [1, 0, 1, 0, 0])], ids=["transfers", "funding"])
def test_read__after_a_cash_change(world: World, name: str, counts: list[int]) -> None:
    """Transfers twice, since they may be listed late; funding once, since its reads cost the budget of orders."""
    for usd, count in zip((10_000, 10_000, 9_000, 9_000, 9_000), counts, strict=True):
        world.read(**{STATE: account_state(usd)})
        assert world.connection.count(name) == count


@pytest.mark.parametrize(
    ("down", "counts"), [(TRANSFERS, [1, 1, 0]), (MARKETS, [1, 1, 0]), (FUNDING, [1, 0, 0])], ids=["transfers", "markets", "funding"]
)
def test_read__of_transfers_that_failed_is_no_first_one(world: World, down: str, counts: list[int]) -> None:
    world.read()
    world.read()
    world.connection.down = {down}
    with suppress(Retryable):
        world.read(**{STATE: account_state(9_000)})
    world.connection.down = set()
    for count in counts:
        world.read()
        assert world.connection.count(TRANSFERS) == count


def test_read__funding_is_read_again_once_the_ledger_has_more(world: World) -> None:
    world.read()
    world.since_s = NOW_S - 3_600
    world.read()
    assert world.connection.count(FUNDING) == 1
    world.since_s = None
    assert (world.read().unbooked_payments, world.connection.count(FUNDING)) == ((), 0)


def test_read__order_filled_meanwhile_is_in_the_account(world: World) -> None:
    world.connection.after = {ORDERS: {STATE: account_state(10_000, ETH=1)}}
    assert world.read().size_raw("ETH") == 10_000
    assert world.connection.count(STATE) == 2
    world.read()
    world.read()
    assert world.connection.count(STATE) == 1


def test_read__orders_are_known_by_id_in_any_market(world: World) -> None:
    rows = [open_order(STOP), open_order(LIMIT, "DOGE"), open_order("0x" + "ff" * 16), open_order("0xff" + LIMIT[2:])]
    account = world.read(**{ORDERS: rows})
    assert [(stop.market, stop.size_raw) for stop in account.resting_stops] == [("ETH", 10_000)]
    assert [(order.market, order.size_raw, order.original_size_raw) for order in account.resting_orders] == [("DOGE", 10_000, 20_000)]
    assert world.stale() == []


@pytest.mark.parametrize(
    "change",
    [{"reduceOnly": True}, {"sz": "0"}, {"sz": "2.0001"}, {"limitPx": "0"}, {"side": "C"}, {"coin": "NEW"}, {"timestamp": "1"}],
    ids=lambda change: str(*change),
)
def test_read__order_in_another_form_makes_the_orders_old(world: World, change: dict[str, object]) -> None:
    account = world.read(**{ORDERS: [open_order(LIMIT, **change)]})
    assert account.resting_orders == ()
    assert world.stale() == [StaleReadKind.ORDERS]


def test_read__order_that_has_not_filled_rests_whole(world: World) -> None:
    [order] = world.read(**{ORDERS: [open_order(LIMIT, sz="2", side="A")]}).resting_orders
    assert (order.size_raw, order.original_size_raw) == (-20_000, -20_000)


@pytest.mark.parametrize("rows", [5, True, 1.5, None, {"a": 1}, "x", [5], [{"position": 5}]], ids=repr)
def test_read__positions_in_another_form_are_a_passing_fault(world: World, rows: object) -> None:
    with pytest.raises(Retryable, match="unexpected format"):
        world.read(**{STATE: account_state() | {"assetPositions": rows}})


# What it does without

STALE = {
    ORDERS: StaleReadKind.ORDERS,
    MODE: StaleReadKind.MODE,
    FEES: StaleReadKind.FEES,
    LEVERAGE: StaleReadKind.LEVERAGE,
    TRANSFERS: StaleReadKind.TRANSFERS,
    FUNDING: StaleReadKind.FUNDING,
}


@pytest.mark.parametrize("name", STALE)
def test_part_that_cannot_be_read__is_old_after_a_change(world: World, name: str) -> None:
    world.read(**{STATE: account_state(10_000, BTC=1)})
    world.connection.down = {name}
    world.read(TEN_MINUTES_S, **{STATE: account_state(9_000, BTC=1)})
    assert world.stale() == [STALE[name]]


@pytest.mark.parametrize("name", [name for name in STALE if name != MODE])
def test_part_that_cannot_be_read__is_old_at_first(name: str) -> None:
    world = World()
    world.connection.down = {name}
    world.read()
    assert world.stale() == [STALE[name]]


def test_mode_that_cannot_be_read__leaves_the_account_unknown() -> None:
    world = World()
    world.connection.down = {MODE}
    with pytest.raises(Retryable, match="mode is not known"):
        world.read()


@pytest.mark.parametrize("name", [TRANSFERS, FUNDING])
def test_part_of_the_cash__is_not_old_while_the_cash_is_the_same(world: World, name: str) -> None:
    world.read()
    world.read()
    world.connection.down = {name}
    world.read(FIVE_MINUTES_S)
    assert world.connection.count(name) == 1
    assert world.stale() == []


@pytest.mark.parametrize(("rate", "fee_ppm"), [("0.00035", 350), ("0.0000001", 1), ("0", 0), (None, HIGHEST_FEE_PPM)])
def test_fee__highest_is_assumed_only_while_none_is_known(world: World, rate: str | None, fee_ppm: int) -> None:
    account = world.read(**{FEES: {"userCrossRate": rate, "userAddRate": "0.0001"}})
    assert account.market("ETH").fee_ppm == fee_ppm


@pytest.mark.parametrize(("is_down", "initial_ppm"), [(False, 100_000), (True, 1_000_000)])
def test_leverage__that_is_not_known_requires_all_margin(world: World, is_down: bool, initial_ppm: int) -> None:
    world.connection.down = {LEVERAGE} if is_down else set()
    assert world.read().market("ETH").tiers[0].initial_ppm == initial_ppm


UNREADABLE: dict[str, object] = {"szDecimals": 9}


def beside_an_unreadable_market(position: dict[str, int]) -> tuple[World, dict[str, Any]]:
    """Return a world, and the answers of a venue whose market DOGE cannot be read, for an account with this position."""
    world = World()
    world.client._token_by_coin = {"ETH": "0xweth", "DOGE": ""}
    return world, {STATE: account_state(10_000, **position), MARKETS: markets("ETH", "BTC", "DOGE", DOGE=UNREADABLE)}


@pytest.mark.parametrize("position", [{}, {"BTC": 1}], ids=str)
def test_unreadable_market__without_a_position_is_left_out(position: dict[str, int]) -> None:
    world, answers = beside_an_unreadable_market(position)
    assert {market.market for market in world.read(**answers).markets} == {"ETH", *position}
    assert world.stale() == [StaleReadKind.MARKETS]


def test_unreadable_market__with_a_position_fails_the_read() -> None:
    world, answers = beside_an_unreadable_market({"DOGE": 1})
    with pytest.raises(Retryable, match="size decimals of DOGE"):
        world.read(**answers)


def with_context(coin: str, **changes: object) -> list[object]:
    """Return the markets of the venue with changed prices of one of them."""
    universe, contexts = cast(Any, markets("ETH", "BTC", "DOGE"))
    coins = [row["name"] for row in universe["universe"]]
    return [
        universe,
        [context | changes if name == coin else context for name, context in zip(coins, contexts, strict=True)],
    ]


@pytest.mark.parametrize(
    ("position", "prices", "mark"),
    [
        pytest.param({}, {"markPx": None}, 31_000, id="index"),
        pytest.param({}, {"markPx": "0.0"}, 31_000, id="mark of zero"),
        pytest.param({"BTC": 1}, {"markPx": None}, 30_000, id="mark of the position"),
        pytest.param({"BTC": -2}, {"markPx": None, "oraclePx": "0.0"}, 30_000, id="without an index"),
        pytest.param({}, {"markPx": "30000", "oraclePx": "0"}, 30_000, id="mark without an index"),
    ],
)
def test_market_without_a_price__is_paused_at_another_price(position: dict[str, int], prices: dict[str, object], mark: int) -> None:
    """Nothing divides by zero: the other market is traded, and limits are judged."""
    world = World()
    world.client._token_by_coin = {"ETH": "0xweth", "BTC": ""}
    answers = {STATE: account_state(100_000, **position), MARKETS: with_context("BTC", **{"oraclePx": "31000", **prices})}
    account = world.read(**answers)
    policy = policy_of(5_000, 5_000, funding_horizon_s=HOUR_S)

    assert funding_notes(account, policy) == ()
    assert FuturesTrigger.DRIFT in due_triggers(account, policy, RICH)
    assert [order.market for order in plan_futures(account, policy, RICH, now_s=NOW_S).orders] == ["ETH"]
    assert account.market("BTC").is_paused
    assert account.market("BTC").mark == 100 * mark


@pytest.mark.parametrize("index", ["0", "0.0"])
def test_market_without_mark_and_index__is_not_read(index: str) -> None:
    world = World()
    world.client._token_by_coin = {"ETH": "0xweth", "BTC": ""}
    account = world.read(**{MARKETS: with_context("BTC", markPx=None, oraclePx=index)})
    assert [market.market for market in account.markets] == ["ETH"]
    assert world.stale() == [StaleReadKind.MARKETS]


def test_market_that_cannot_be_read__alone_is_a_fault(world: World) -> None:
    with pytest.raises(Retryable, match="size decimals of ETH"):
        world.read(**{STATE: account_state(10_000, BTC=1), MARKETS: markets("ETH", "BTC", ETH=UNREADABLE)})


def test_maintenance__is_not_checked_beside_an_unlisted_market(world: World) -> None:
    account = world.read(**{STATE: account_state(10_000, maintenance="9", GONE=1)})
    assert account.market("GONE").is_paused
    assert world.client.market_number("ETH") == 0
    assert world.client.market_number("GONE") == UNLISTED_NUMBER


def test_maintenance__is_checked_beside_listed_markets(world: World) -> None:
    with pytest.raises(Retryable, match="maintenance margin"):
        world.read(**{STATE: account_state(10_000, maintenance="9", BTC=1)})


# The account's mode


@pytest.mark.parametrize(
    ("after_s", "is_recorded"), [(HOUR_S - 1, False), (HOUR_S, True), (-1, True)], ids=["a second less", "an hour", "clock set back"]
)
def test_mode__is_recorded_again_after_an_hour(after_s: int, is_recorded: bool) -> None:
    world = World(FakeModeStore("default", NOW_S - after_s))
    world.read()
    world.read(FIVE_MINUTES_S)
    assert world.mode_store.records == ([("default", NOW_S)] if is_recorded else [("default", NOW_S + FIVE_MINUTES_S)])


def test_mode__another_is_recorded_at_once() -> None:
    world = World(FakeModeStore("disabled", NOW_S - 1))
    world.read()
    assert world.mode_store.records == [("default", NOW_S)]


def test_mode__record_stands_in_for_a_day() -> None:
    world = World(FakeModeStore("default", NOW_S - 60))
    world.connection.down = {MODE}
    world.read()
    assert world.stale() == [StaleReadKind.MODE]


def test_mode__of_shared_margin_is_recorded_as_none(world: World) -> None:
    world.read()
    with raises_code(OperatorNeeded, "position", "unifiedAccount"):
        world.read(FIVE_MINUTES_S, **{MODE: "unifiedAccount"})
    assert world.mode_store.records == [("default", NOW_S), ("", NOW_S + FIVE_MINUTES_S)]


@pytest.mark.parametrize("reads_again", [lambda client: client.read(), lambda client: client.require_own_mode()], ids=["look", "order"])
def test_mode__of_shared_margin_is_not_kept_beside_a_fault(world: World, reads_again: Any) -> None:
    world.read()
    world.connection.answers[MODE] = "unifiedAccount"
    world.now_s += FIVE_MINUTES_S
    with raises_code(OperatorNeeded, "position", "unifiedAccount"):
        reads_again(world.client)
    world.connection.down = {MODE}
    with pytest.raises(Retryable, match="mode is not known"):
        world.read()


@pytest.mark.parametrize(("off_raw", "is_believed"), [(3, True), (2, False), (0, False), (-2, False), (-3, True)])
def test_mode__unread_is_doubted_beside_figures_of_shared_margin(world: World, off_raw: int, is_believed: bool) -> None:
    """200 are the margin of one coin at 10x; a base unit of each position and one more may be rounded."""
    figures = account_state(10_000, ETH=1)
    world.read(**{STATE: figures})
    world.connection.down = {MODE}
    value = Decimal(200) + Decimal(off_raw) / 10**6
    summary = {**figures["marginSummary"], "accountValue": f"{value:f}", "totalRawUsd": f"{value - 2_000:f}"}
    world.connection.answers[STATE] = figures | {"marginSummary": summary, "crossMarginSummary": summary}
    with nullcontext() if is_believed else pytest.raises(Retryable, match="as with a shared balance"):
        world.read()


def test_mode__unread_is_not_doubted_while_the_cash_is_the_same(world: World) -> None:
    world.read(**{STATE: account_state(200, ETH=1)})
    world.connection.down = {MODE}
    world.read(FIVE_MINUTES_S)
    assert world.connection.count(MODE) == 1


# Rows of time ranges


def test_transfers__sum_of_full_pages_counts_no_row_twice(world: World) -> None:
    """The last millisecond of a full page is read again, because its rows may continue."""
    first_rows = [transfer(time_ms) for time_ms in (*range(1, ROWS_PER_PAGE), ROWS_PER_PAGE - 1)]
    last_rows = [transfer(ROWS_PER_PAGE - 1)] * 3
    assert world.read(**{TRANSFERS: ScriptedAnswers([first_rows, last_rows])}).collateral_raw == (ROWS_PER_PAGE + 1) * 10**6
    starts_ms = [fields["startTime"] for fields in world.connection.fields if fields["type"] == TRANSFERS]
    assert starts_ms == [0, ROWS_PER_PAGE - 1]
    later_rows = [*last_rows, transfer(ROWS_PER_PAGE)]
    world.connection.answers[TRANSFERS] = later_rows
    assert world.read(FIVE_MINUTES_S).collateral_raw == (ROWS_PER_PAGE + 2) * 10**6
    assert next(fields["startTime"] for fields in world.connection.fields if fields["type"] == TRANSFERS) == ROWS_PER_PAGE - 1


def test_transfers__full_page_of_one_millisecond_is_read_past(world: World) -> None:
    rows = ScriptedAnswers([[transfer(7)] * ROWS_PER_PAGE, [transfer(8)]])
    assert world.read(**{TRANSFERS: rows}).collateral_raw == (ROWS_PER_PAGE + 1) * 10**6


def test_payments__are_those_up_to_the_time_of_the_account(world: World) -> None:
    world.connection.answers[FUNDING] = [payment(NOW_S * 1000 + late_ms) for late_ms in (-1_000, 0, 1)]
    payments = world.read().unbooked_payments
    assert payments == (VenuePayment("ETH", NOW_S - 1, 2_000_000), VenuePayment("ETH", NOW_S, 2_000_000))
    assert world.connection.fields[-1]["startTime"] == (NOW_S - 7_200) * 1000 + 1


def test_funding_rates__are_those_up_to_their_time(world: World) -> None:
    world.connection.answers["fundingHistory"] = [{"time": time_ms, "fundingRate": "0.001"} for time_ms in (1, 2, 3)]
    assert [time_ms for time_ms, _ in world.client.funding_rates("ETH", 0, 2)] == [1, 2]


def test_price_before__is_the_last_ended_candle_s_close(world: World) -> None:
    world.connection.answers["candleSnapshot"] = [{"T": end_ms, "c": str(end_ms)} for end_ms in (8, 9, 10)]
    assert world.client.price_before("ETH", 10) == 9


# Orders


def test_fills__are_read_from_the_millisecond_of_acceptance(world: World) -> None:
    order = {"cloid": "0x1", "oid": 4, "timestamp": 77, "side": "A", "origSz": "2", "sz": "0", "coin": "ETH"}
    fill = {"tid": 1, "oid": 4, "sz": "2", "px": "2000", "fee": "1", "time": 77}
    status_row = {"status": "filled", "statusTimestamp": 77, "order": order}
    world.connection.answers |= {"orderStatus": {"order": status_row}, "userFillsByTime": [fill]}
    filled = world.client.state_of("0x1")
    assert (filled.stage, filled.filled_raw, filled.quote_change_raw) == (VenueOrderStage.FILLED, -20_000, 4_000 * 10**6)
    assert next(fields["startTime"] for fields in world.connection.fields if fields["type"] == "userFillsByTime") == 77


def cancel_order(world: World, order: dict[str, object], filled_raw: int, now_ms: int) -> None:
    """Let the venue say at this time that order 0x1 of 2 ETH was canceled at 77 ms, and list a fill if it has any."""
    usual = {"cloid": "0x1", "oid": 4, "timestamp": 70, "side": "B", "origSz": "2", "coin": "ETH"}
    fill = {"tid": 1, "oid": 4, "sz": "0.5", "px": "2000", "fee": "1", "time": 77}
    world.connection.answers |= {
        "orderStatus": {"order": {"status": "canceled", "statusTimestamp": 77, "order": usual | order}},
        "userFillsByTime": [fill] if filled_raw else [],
        STATE: {"time": now_ms},
    }


UNCERTAIN_REST = pytest.mark.parametrize(
    ("order", "filled_raw"),
    [
        pytest.param({"tif": "Ioc", "sz": "0"}, 0, id="rest as nothing"),
        pytest.param({"tif": "Ioc", "sz": "2"}, 0, id="rest as everything"),
        pytest.param({"sz": "2"}, 5_000, id="a fill is listed"),
        pytest.param({"tif": "Gtc", "sz": "0"}, 0, id="rested, rest as nothing"),
    ],
)


@UNCERTAIN_REST
def test_canceled_order__fills_are_believed_once_all_are_listed(world: World, order: dict[str, object], filled_raw: int) -> None:
    cancel_order(world, order, filled_raw, 78 + FILL_DELAY_MS)
    assert world.client.state_of("0x1").filled_raw == filled_raw


@UNCERTAIN_REST
def test_canceled_order__fills_that_may_be_missing_are_awaited(world: World, order: dict[str, object], filled_raw: int) -> None:
    cancel_order(world, order, filled_raw, 77 + FILL_DELAY_MS)
    with pytest.raises(Retryable, match="may not be listed yet"):
        world.client.state_of("0x1")


@pytest.mark.parametrize("now_ms", [77 + FILL_DELAY_MS, 78 + FILL_DELAY_MS])
@pytest.mark.parametrize(
    ("order", "filled_raw"),
    [
        pytest.param({"tif": "Ioc", "sz": "1.5"}, 5_000, id="rest in part"),
        pytest.param({"tif": "Gtc", "sz": "2"}, 0, id="rested unfilled"),
        pytest.param({"isTrigger": True, "sz": "2"}, 0, id="stop that never fired"),
    ],
)
def test_canceled_order__fills_that_its_rest_proves_are_believed(
    world: World, order: dict[str, object], filled_raw: int, now_ms: int
) -> None:
    cancel_order(world, order, filled_raw, now_ms)
    assert world.client.state_of("0x1").filled_raw == filled_raw


@pytest.mark.parametrize(("now_ms", "is_dead"), [(NOW_S * 1000, False), (NOW_S * 1000 + 1, True)])
def test_order__is_dead_only_past_its_last_millisecond(world: World, now_ms: int, is_dead: bool) -> None:
    world.connection.answers |= {"orderStatus": {"status": "unknownOid"}, STATE: {"time": now_ms}}
    assert world.client.is_order_dead("0x1", NOW_S * 1000) is is_dead


def test_order__open_ones_are_read_again_after_a_post(world: World) -> None:
    world.read()
    world.connection.answers["exchange"] = {"status": "ok", "response": {"data": {"statuses": [{"filled": {}}]}}}
    assert world.client.post_orders({}, 1) == [""]
    world.read()
    assert world.connection.count(ORDERS) == 1


def test_order__of_an_unknown_signer_is_judged(world: World) -> None:
    answer = "User or API Wallet 0x1 does not exist."
    world.connection.answers["exchange"] = {"status": "err", "response": answer}
    assert world.client.post_orders({}, 1) == [answer]


def test_order__unjudged_action_may_have_been_carried_out(world: World) -> None:
    world.connection.answers["exchange"] = {"status": "err", "response": "Invalid nonce: duplicate nonce"}
    with pytest.raises(TrimtabError, match="did not judge the order"):
        world.client.post_orders({}, 1)


@pytest.mark.parametrize(
    ("may_wait", "kind", "begun_count"), [pytest.param(True, "info", 0, id="account read"), pytest.param(False, "side", 1, id="side read")]
)
def test_book__is_waited_for_only_if_it_may_be(world: World, may_wait: bool, kind: str, begun_count: int) -> None:
    bids: Sequence[object] = [{"px": "1999", "sz": "1"}]
    world.connection.answers["l2Book"] = {"levels": [bids, [{"px": "2001", "sz": "2"}]]}
    assert world.client.order_book_side("ETH", asks=True, may_wait=may_wait) == [(2_001, 2)]
    assert world.client.order_book_side("ETH", asks=False, may_wait=may_wait) == [(1_999, 1)]
    assert world.connection.calls == [("l2Book", kind)] * 2
    assert world.connection.begun_count == 2 * begun_count


@pytest.mark.parametrize("level", [{"px": "0", "sz": "1"}, {"px": "1999", "sz": "-1"}], ids=str)
def test_book__with_impossible_numbers_is_read_again(world: World, level: dict[str, str]) -> None:
    world.connection.answers["l2Book"] = {"levels": [[level], []]}
    with raises_code(Retryable, "answer"):
        world.client.order_book_side("ETH", asks=False)


def test_agents__are_read_anew_before_a_reduction(world: World) -> None:
    world.connection.answers["extraAgents"] = []
    for _ in range(2):
        assert world.client.agents_for_reduction().value == ()
    assert world.connection.calls == [("extraAgents", "side")] * 2
    assert world.connection.begun_count == 2


@pytest.mark.parametrize(("until_ms", "is_approved"), [(99, True), (100, False)])
def test_agent__must_be_approved_past_the_time_of_its_order(world: World, until_ms: int, is_approved: bool) -> None:
    key = SimpleNamespace(address=OWNER)
    agent = HyperliquidAgent("trimtab", OWNER.lower(), 100)
    client = world.client.with_key(cast(Any, key))
    with nullcontext() if is_approved else pytest.raises(OperatorNeeded, match="not an agent"):
        assert client.require_agent(until_ms, [agent]) == agent
