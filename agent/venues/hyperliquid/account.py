"""The account and markets of Hyperliquid as model types, checked against each other. Sizes are in
units of the venue's smallest size and amounts in USDC of 6 decimals, so that every figure is a
whole number. Sources: "Margin tiers", "Margining", "Funding" of the venue's documentation and its
Info endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from agent.codec import json_field
from agent.errors import ErrorCode, OperatorNeeded, Refused, Retryable
from agent.margin import account as margin
from agent.model import (
    MarginAccount,
    MarginTier,
    PerpMarket,
    Position,
    RestingOrder,
    RestingStop,
    VenuePayment,
)
from agent.units import BPS, Token, ceil_int, safe_label, sign_of
from agent.venues.hyperliquid.orders import (
    MIN_NOTIONAL_RAW,
    QUOTE_DECIMALS,
    model_price,
    parse_amount,
    parse_decimal,
    parse_positive,
    parse_raw,
)

USDC = Token("", "USDC", QUOTE_DECIMALS)
"""Collateral at the venue, which has no address there."""
FIRST_TIERED_TABLE_ID = 50
"""Margin tables with a smaller id have one tier, whose maximum leverage is the id."""
HOURS_PER_DAY = 24
MIN_PLANNED_NOTIONAL_RAW = MIN_NOTIONAL_RAW * 1_001 // 1_000
"""Smallest order of a plan, chosen so that a bound rounded to a tick still meets the venue's
minimum.
"""
_WORD_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_MARK_MOVE_BPS = 100
"""Largest difference of a mark between account and markets, which are read one after the other."""


@dataclass(frozen=True, slots=True)
class ListedMarket:
    """A market of the universe: its number in orders, and its margin requirements."""

    coin: str
    number: int
    size_decimals: int
    leverage_tiers: tuple[tuple[int, int], ...]
    """Maximum leverage of the part of the notional above each threshold in base units."""
    is_paused: bool
    mark: Fraction
    index: Fraction
    funding_hourly: Fraction
    mid: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class MarketRow:
    """What a `metaAndAssetCtxs` answer says of a market: its number in orders, its entry and context,
    and the margin tables of all markets by id.
    """

    number: int
    entry: Mapping[str, object]
    context: object
    tables: Mapping[int, object]


def market_rows(answer: object, coins: Collection[str]) -> dict[str, MarketRow]:
    """Return the rows of `coins` in a `metaAndAssetCtxs` answer; other markets are ignored. Raises
    Retryable for an answer that does not list markets.
    """
    if not isinstance(answer, list) or len(answer) != 2:
        raise _malformed_error("the markets")
    meta, market_contexts = answer
    universe = _list_of(meta, "universe")
    if not isinstance(market_contexts, list) or len(market_contexts) != len(universe):
        raise _malformed_error("the markets")
    tables = {
        row[0]: row[1]
        for row in _list_of(meta, "marginTables")
        if isinstance(row, list) and len(row) == 2 and type(row[0]) is int
    }
    row_by_coin = {}
    for market_number, (market_entry, market_context) in enumerate(
        zip(universe, market_contexts, strict=True)
    ):
        if not isinstance(market_entry, Mapping):
            raise _malformed_error("the markets")
        coin = market_entry.get("name")
        if not isinstance(coin, str):
            raise _malformed_error("the markets")
        if coin in coins:
            row_by_coin[coin] = MarketRow(market_number, market_entry, market_context, tables)
    return row_by_coin


def parse_market(coin: str, row: MarketRow, position_mark: Fraction = Fraction(0)) -> ListedMarket:
    """Parse the row of a market. A delisted market, one without a mark or an index, and one with
    isolated margin only are paused, because the account is cross-margined. Without a mark it has
    `position_mark`, the mark of the account's position there (zero: none), or its index. Raises
    Retryable for an unexpected format and for a market without any price.
    """
    market_name = safe_label(coin, "a market")
    market_context = row.context
    if not isinstance(market_context, Mapping):
        raise _malformed_error(f"the market {market_name}")
    size_decimals = row.entry.get("szDecimals")
    if type(size_decimals) is not int or not 0 <= size_decimals <= QUOTE_DECIMALS:
        raise _malformed_error(f"the size decimals of {market_name}")
    mid = market_context.get("midPx")
    funding = market_context.get("funding")
    venue_mark = _price(market_context.get("markPx"), f"the mark of {market_name}")
    index = parse_decimal(market_context.get("oraclePx"), f"the index of {market_name}")
    mark = venue_mark or position_mark or index
    if mark <= 0:
        raise _malformed_error(f"the price of {market_name}")
    return ListedMarket(
        coin=coin,
        number=row.number,
        size_decimals=size_decimals,
        leverage_tiers=_tiers_of(market_name, row),
        is_paused=bool(
            row.entry.get("isDelisted")
            or row.entry.get("onlyIsolated")
            or not venue_mark
            or index <= 0
        ),
        mark=mark,
        index=index,
        funding_hourly=parse_decimal(funding, f"the funding of {market_name}"),
        mid=_price(mid, f"the middle of {market_name}"),
    )


def _price(answer: object, price_name: str) -> Fraction:
    """Return a price of the venue; zero for null. Raises Retryable for an unexpected format."""
    return Fraction(0) if answer is None else parse_decimal(answer, price_name)


def position_marks(answer: object) -> dict[str, Fraction]:
    """Return the mark of every position of a `clearinghouseState` answer by coin: its value per
    size, zero without a size. Raises Retryable for an unexpected format.
    """
    mark_by_coin = {}
    for position_row in _list_of(answer, "assetPositions"):
        position = json_field(position_row, "position")
        if not isinstance(position, Mapping):
            raise _malformed_error("a position")
        coin = str(position.get("coin"))
        size = parse_decimal(position.get("szi"), f"the size of {safe_label(coin, 'a position')}")
        value = Fraction(_usd_raw(position, "positionValue"), 10**QUOTE_DECIMALS)
        mark_by_coin[coin] = value / abs(size) if size else Fraction(0)
    return mark_by_coin


UNLISTED_NUMBER = -1
"""Number of a market that the venue does not list, for which no order can be signed."""


def unlisted_markets(
    answer: object, listed_markets: Mapping[str, ListedMarket]
) -> dict[str, ListedMarket]:
    """Return the markets of positions that the universe lacks, from the positions themselves:
    paused, with the mark of the position and the requirements of its highest leverage. Such a
    position counts in every figure, and those in other markets can still be reduced. Raises
    Retryable for an unexpected format.
    """
    mark_by_coin = position_marks(answer)
    market_by_coin = {}
    for position_row in _list_of(answer, "assetPositions"):
        position = json_field(position_row, "position")
        coin = str(json_field(position, "coin"))
        if not isinstance(position, Mapping) or coin in listed_markets:
            continue
        size_text = str(position.get("szi"))
        max_leverage = position.get("maxLeverage")
        mark = mark_by_coin[coin]
        size_decimals = len(size_text.partition(".")[2])
        if mark <= 0 or size_decimals > QUOTE_DECIMALS or type(max_leverage) is not int:
            raise _malformed_error("a position")
        market_by_coin[coin] = ListedMarket(
            coin=coin,
            number=UNLISTED_NUMBER,
            size_decimals=size_decimals,
            leverage_tiers=((0, max(1, max_leverage)),),
            is_paused=True,
            mark=mark,
            index=mark,
            funding_hourly=Fraction(0),
        )
    return market_by_coin


def parse_market_numbers(answer: object) -> dict[str, int]:
    """Return the number of every market in a `metaAndAssetCtxs` answer by name. Raises Retryable
    for an unexpected format, and for a name that is listed twice.
    """
    universe = _list_of(answer[0] if isinstance(answer, list) and answer else None, "universe")
    market_names = [json_field(market_entry, "name") for market_entry in universe]
    number_by_market = {
        market_name: market_number
        for market_number, market_name in enumerate(market_names)
        if isinstance(market_name, str)
    }
    if len(number_by_market) != len(market_names):
        raise _malformed_error("the markets")
    return number_by_market


def require_pinned_numbers(
    number_by_market: Mapping[str, int], pinned_number_by_market: Mapping[str, int]
) -> None:
    """Raise OperatorNeeded if the venue lists a market under another number than the pinned one: an
    order could reach the wrong market.
    """
    for market_name, pinned_number in pinned_number_by_market.items():
        if number_by_market.get(market_name, pinned_number) != pinned_number:
            raise OperatorNeeded(
                f"the venue lists the market {safe_label(market_name, f'asset {pinned_number}')} as number"
                f" {number_by_market[market_name]}, but {pinned_number} is pinned",
                "find out why; only then pin the new numbers with trimtab trust",
                code=ErrorCode.VENUE,
            )


def _tiers_of(market_name: str, row: MarketRow) -> tuple[tuple[int, int], ...]:
    table_id = row.entry.get("marginTableId", row.entry.get("maxLeverage"))
    if type(table_id) is not int or table_id < 1:
        raise _malformed_error(f"the margin table of {market_name}")
    if table_id in row.tables:
        return _parse_tiers(_list_of(row.tables[table_id], "marginTiers"))
    if table_id >= FIRST_TIERED_TABLE_ID:
        raise _malformed_error(f"the margin table of {market_name}")
    return ((0, table_id),)


def _parse_tiers(tiers: Sequence[object]) -> tuple[tuple[int, int], ...]:
    leverage_tiers = []
    for tier in tiers:
        max_leverage = json_field(tier, "maxLeverage")
        if not isinstance(tier, Mapping) or type(max_leverage) is not int or max_leverage < 1:
            raise _malformed_error("a margin table")
        leverage_tiers.append((_usd_raw(tier, "lowerBound"), max_leverage))
    lower_bounds = [lower_bound_raw for lower_bound_raw, _ in leverage_tiers]
    if not leverage_tiers or lower_bounds[0] != 0 or lower_bounds != sorted(set(lower_bounds)):
        raise _malformed_error("a margin table")
    return tuple(leverage_tiers)


def margin_tiers(market: ListedMarket, leverage: int) -> tuple[MarginTier, ...]:
    """Return the margin rates of a market at the account's leverage setting. Maintenance is half
    the initial margin at a tier's maximum leverage; initial margin is one over the set leverage, or
    over the tier's maximum if that is lower. Rates are rounded up to parts per million.
    """
    return tuple(
        MarginTier(
            lower_bound_raw,
            ceil_int(Fraction(margin.PPM, min(leverage, max_leverage))),
            -(-margin.PPM // (2 * max_leverage)),
        )
        for lower_bound_raw, max_leverage in market.leverage_tiers
    )


@dataclass(frozen=True, slots=True)
class LeverageSetting:
    """The leverage set for a market, and whether its margin is isolated."""

    leverage: int
    is_isolated: bool


STRICTEST_LEVERAGE = LeverageSetting(1, is_isolated=False)
"""Setting that is assumed while none is known: it requires the most margin."""


def parse_leverage(answer: object, coin: str) -> LeverageSetting:
    """Return the setting of a coin, from a position or from an `activeAssetData` answer. Any type
    but "cross" counts as isolated. Raises Retryable for an unexpected format.
    """
    leverage_setting = json_field(answer, "leverage")
    leverage = json_field(leverage_setting, "value")
    if not isinstance(leverage_setting, Mapping) or type(leverage) is not int or leverage < 1:
        raise _malformed_error(f"the leverage of {coin}")
    return LeverageSetting(leverage, leverage_setting.get("type") != "cross")


def build_market(
    listed_market: ListedMarket,
    setting: LeverageSetting,
    asset: str,
    fee_ppm: int,
    read_s: int,
    *,
    is_configured: bool = True,
) -> PerpMarket:
    """Return a market of the model. `asset` is the portfolio's token with the same price, `read_s`
    the venue's time of the account, which is read before the prices; `is_configured` is false if the
    config does not name the market. A market with isolated margin is paused, because the account is
    cross-margined.
    """
    return PerpMarket(
        market=listed_market.coin,
        symbol=safe_label(listed_market.coin, f"asset {listed_market.number}"),
        asset=asset,
        size_decimals=listed_market.size_decimals,
        lot_raw=1,
        tiers=margin_tiers(listed_market, setting.leverage),
        fee_ppm=fee_ppm,
        mark=model_price(listed_market.mark, listed_market.size_decimals),
        index=model_price(listed_market.index, listed_market.size_decimals),
        index_s=read_s,
        funding_daily=listed_market.funding_hourly * HOURS_PER_DAY,
        is_paused=listed_market.is_paused or setting.is_isolated,
        min_notional_raw=MIN_PLANNED_NOTIONAL_RAW,
        is_configured=is_configured,
        mid=model_price(listed_market.mid, listed_market.size_decimals),
        is_isolated=setting.is_isolated,
    )


@dataclass(frozen=True, slots=True)
class ReportedAccount:
    """The cross-margined part of a `clearinghouseState` answer in base units. `usd_balance_raw` is
    the balance including the cost and proceeds of positions; `position_values_raw` are signed
    values of the positions at the venue's mark. `settings` are the leverage settings of all
    positions, `isolated_coins` those of isolated positions.
    """

    time_ms: int
    account_value_raw: int
    usd_balance_raw: int
    gross_notional_raw: int
    maintenance_margin_raw: int
    positions: tuple[Position, ...]
    position_values_raw: tuple[int, ...]
    settings: tuple[tuple[str, LeverageSetting], ...]
    margin_used_raw: int
    isolated_coins: tuple[str, ...] = ()

    @property
    def is_like_shared_balance(self) -> bool:
        """True if the account has exactly the initial margin of its positions, as an account whose
        margin is in its spot balances has.
        """
        difference_raw = abs(self.account_value_raw - self.margin_used_raw)
        return difference_raw <= len(self.positions) + 1


_TOTAL_KEYS = ("accountValue", "totalRawUsd", "totalNtlPos", "totalMarginUsed")
"""Figures of all margin, which equal those of cross margin unless a position is isolated."""
SEPARATE_MARGIN_MODES = ("default", "disabled")
"""Modes in which the margin account has a balance of its own; "default" is that of an account that
never chose one.
"""


def require_own_margin(answer: object) -> None:
    """Raise OperatorNeeded unless the `userAbstraction` answer is a mode in which the margin
    account has a balance of its own. In any other mode margin is shared with spot balances and
    other venues, and `clearinghouseState` is zero while there is no position.
    """
    if answer in SEPARATE_MARGIN_MODES:
        return
    mode = _venue_word(answer, "unknown") if isinstance(answer, str) else "unknown"
    raise OperatorNeeded(
        f"the account's mode at the venue is {mode}, in which margin is part of the spot balances"
        " and cannot be read for certain",
        "use an account in the standard mode: disable the unified account in the venue's settings,"
        " or name another account in futures.account",
        code=ErrorCode.POSITION,
    )


def parse_account(answer: object, market_by_coin: Mapping[str, ListedMarket]) -> ReportedAccount:
    """Parse the cross-margined part of a `clearinghouseState` answer. Raises Retryable for an
    unexpected format and for contradictory figures.
    """
    if not isinstance(answer, Mapping) or type(answer.get("time")) is not int:
        raise _malformed_error("the account")
    all_margin = answer.get("marginSummary")
    cross_margin = answer.get("crossMarginSummary")
    if not isinstance(all_margin, Mapping) or not isinstance(cross_margin, Mapping):
        raise _malformed_error("the account")
    positions = []
    values_raw = []
    settings = []
    for position_row in _list_of(answer, "assetPositions"):
        position = json_field(position_row, "position")
        coin = str(position.get("coin")) if isinstance(position, Mapping) else ""
        if not isinstance(position, Mapping) or coin not in market_by_coin:
            raise _malformed_error("a position")
        settings.append((coin, setting := parse_leverage(position, coin)))
        if setting.is_isolated:
            continue
        size_raw = parse_raw(
            position.get("szi"), market_by_coin[coin].size_decimals, f"the size of {coin}"
        )
        value_raw = _usd_raw(position, "positionValue") * sign_of(size_raw)
        # Cost of the position from the venue's own profit figure, because its entry price is
        # rounded.
        positions.append(Position(coin, size_raw, _usd_raw(position, "unrealizedPnl") - value_raw))
        values_raw.append(value_raw)
    isolated_coins = tuple(coin for coin, setting in settings if setting.is_isolated)
    for total_key in () if isolated_coins else _TOTAL_KEYS:
        all_raw = _usd_raw(all_margin, total_key)
        cross_raw = _usd_raw(cross_margin, total_key)
        if abs(all_raw - cross_raw) > 1:
            raise _contradiction_error(f"cross margin ({total_key})", cross_raw, all_raw)
    account = ReportedAccount(
        time_ms=answer["time"],
        account_value_raw=_usd_raw(cross_margin, "accountValue"),
        usd_balance_raw=_usd_raw(cross_margin, "totalRawUsd"),
        gross_notional_raw=_usd_raw(cross_margin, "totalNtlPos"),
        maintenance_margin_raw=_usd_raw(answer, "crossMaintenanceMarginUsed"),
        positions=tuple(positions),
        position_values_raw=tuple(values_raw),
        settings=tuple(settings),
        margin_used_raw=_usd_raw(cross_margin, "totalMarginUsed"),
        isolated_coins=isolated_coins,
    )
    for subject, reported_raw, expected_raw in (
        (
            "account value",
            account.account_value_raw,
            account.usd_balance_raw + sum(account.position_values_raw),
        ),
        (
            "notional",
            account.gross_notional_raw,
            sum(abs(value_raw) for value_raw in account.position_values_raw),
        ),
    ):
        if abs(reported_raw - expected_raw) > len(account.positions) + 1:
            raise _contradiction_error(subject, reported_raw, expected_raw)
    return account


def build_account(
    reported: ReportedAccount,
    markets: tuple[PerpMarket, ...],
    deposited_raw: int,
    unknown_row_kinds: tuple[str, ...] = (),
    *,
    is_listed: bool = True,
) -> MarginAccount:
    """Return the account as a model type. `markets` cover every position, with the newest marks;
    `deposited_raw` is the sum of deposits less withdrawals, without the kinds of rows in
    `unknown_row_kinds`. Raises Retryable if the venue's
    maintenance margin does not follow from its own tiers, unless a position is in a market that it
    does not list (`is_listed` is false), or if a mark has moved by more than
    `MAX_MARK_MOVE_BPS` since the account was read. Consistently false answers of the venue cannot
    be detected.
    """
    market_by_name = {market.market: market for market in markets}
    required_margin_raw = Fraction(0)
    tolerance_raw = 1
    for position, value_raw in zip(reported.positions, reported.position_values_raw, strict=True):
        market = market_by_name[position.market]
        required_margin_raw += margin.tiered_margin_raw(
            market.tiers, abs(value_raw), is_initial=False
        )
        tolerance_raw += 1 + abs(value_raw) // margin.PPM
        value_at_mark_raw = margin.position_value_raw(market, position.size_raw)
        if abs(value_at_mark_raw - value_raw) * BPS > MAX_MARK_MOVE_BPS * abs(value_raw) + BPS:
            raise _contradiction_error(
                f"the value of {market.symbol}", value_raw, value_at_mark_raw
            )
    if is_listed and abs(reported.maintenance_margin_raw - required_margin_raw) > tolerance_raw:
        raise _contradiction_error(
            "maintenance margin", reported.maintenance_margin_raw, ceil_int(required_margin_raw)
        )
    open_notional_raw = sum(position.open_notional_raw for position in reported.positions)
    return MarginAccount(
        quote=USDC,
        collateral_unit_raw=1,
        collateral_raw=deposited_raw,
        realised_raw=reported.usd_balance_raw - open_notional_raw - deposited_raw,
        positions=reported.positions,
        markets=markets,
        initial_on_debt=False,
        is_on_chain=False,
        unknown_row_kinds=unknown_row_kinds,
        isolated_markets=reported.isolated_coins,
    )


def parse_transfers(
    transfer_rows: Sequence[Mapping[str, object]], owner: str
) -> tuple[int, tuple[str, ...]]:
    """Return the USDC that rows of `userNonFundingLedgerUpdates` moved into the margin account
    (negative: out of it), and the kinds of rows of which that is not known. Raises Retryable for an
    unexpected format.
    """
    net_moved_raw = 0
    unknown_kinds = dict[str, None]()
    for row in transfer_rows:
        transfer_fields = row.get("delta")
        if not isinstance(transfer_fields, Mapping) or not isinstance(
            kind := transfer_fields.get("type"), str
        ):
            raise _malformed_error("a transfer")
        if (moved_raw := _moved_raw(kind, transfer_fields, owner.lower())) is None:
            unknown_kinds[_venue_word(kind, "without a printable name")] = None
        else:
            net_moved_raw += moved_raw
    return net_moved_raw, tuple(unknown_kinds)


NO_MARGIN_KINDS = ("spotTransfer", "spotGenesis", "cStakingTransfer", "liquidation")
"""Kinds that move no margin: spot and staking balances, and liquidations, whose fills do."""
MAIN_DEX_NAME = ""
"""Name in `send` rows of the markets whose margin account is read here; the others are "spot" and
those of other deployers.
"""


def _moved_raw(kind: str, transfer_fields: Mapping[str, object], owner: str) -> int | None:
    """Return the USDC that one row moved into the margin account of `owner`; None if that is not
    known.
    """
    user, receiver = (
        str(transfer_fields[key]).lower() if key in transfer_fields else ""
        for key in ("user", "destination")
    )
    match kind:
        case "deposit":
            return _usd_raw(transfer_fields, "usdc")
        case "withdraw" | "vaultCreate" | "vaultDeposit":
            return -_usd_raw(transfer_fields, "usdc") - _fee_raw(transfer_fields)
        case "accountClassTransfer":
            return (
                _usd_raw(transfer_fields, "usdc")
                if transfer_fields.get("toPerp") is True
                else -_usd_raw(transfer_fields, "usdc")
            )
        case "internalTransfer" | "subAccountTransfer":
            return (
                _usd_raw(transfer_fields, "usdc")
                if receiver == owner
                else -_usd_raw(transfer_fields, "usdc") - _fee_raw(transfer_fields)
            )
        case "vaultDistribution" | "vaultLeaderCommission" if user in ("", owner):
            return _usd_raw(transfer_fields, "usdc")
        case "vaultWithdraw" if user == owner:
            return _usd_raw(transfer_fields, "netWithdrawnUsd")
        case "send":
            return _sent_raw(
                transfer_fields, is_sender=user == owner, is_receiver=receiver == owner
            )
        case _ if kind in NO_MARGIN_KINDS:  # its fee may be in another token
            return 0
    return None


def _sent_raw(
    transfer_fields: Mapping[str, object], *, is_sender: bool, is_receiver: bool
) -> int | None:
    """Return the margin that a `send` row moved. It names the balances of both sides, which may
    belong to one account.
    """
    leaves_margin = is_sender and transfer_fields.get("sourceDex") == MAIN_DEX_NAME
    enters_margin = is_receiver and transfer_fields.get("destinationDex") == MAIN_DEX_NAME
    if not leaves_margin and not enters_margin:
        return 0 if "sourceDex" in transfer_fields and "destinationDex" in transfer_fields else None
    if transfer_fields.get("token") != USDC.symbol:
        return None
    sent_raw = _usd_raw(transfer_fields, "amount")
    return (sent_raw if enters_margin else 0) - (
        sent_raw + _fee_raw(transfer_fields) if leaves_margin else 0
    )


def _fee_raw(transfer_fields: Mapping[str, object]) -> int:
    """Return the fee of a row in USDC; zero without one, and for a fee in another token."""
    is_usdc = transfer_fields.get("feeToken", USDC.symbol) in ("", USDC.symbol)
    return _usd_raw(transfer_fields, "fee") if "fee" in transfer_fields and is_usdc else 0


def tagged_rows(answer: object, tag_bytes: bytes) -> list[Mapping[str, object]]:
    """Return the rows of the agent's resting stops (STOP_TAG) or limit orders (LIMIT_TAG) in a
    `frontendOpenOrders` answer, by their client order ids. Raises Retryable for an unexpected
    format.
    """
    if not isinstance(answer, list) or not all(isinstance(row, Mapping) for row in answer):
        raise _malformed_error("open orders")
    cloid_prefix = "0x" + tag_bytes.hex()
    return [
        row
        for row in answer
        if isinstance(cloid := row.get("cloid"), str) and cloid.startswith(cloid_prefix)
    ]


def parse_stops(
    stop_rows: Sequence[Mapping[str, object]], market_by_coin: Mapping[str, ListedMarket]
) -> tuple[RestingStop, ...]:
    """Return the resting stops of the rows. Raises Retryable for an unexpected format."""
    resting_stops = []
    for row in stop_rows:
        market, sign = _market_and_sign(row, market_by_coin)
        coin = market.coin
        size_decimals = market.size_decimals
        size_raw = sign * parse_raw(row.get("sz"), size_decimals, f"the size of a stop of {coin}")
        trigger = parse_positive(row.get("triggerPx"), f"the trigger of a stop of {coin}")
        if size_raw * sign < 0:
            raise _malformed_error(f"the size of a stop of {coin}")
        resting_stops.append(
            RestingStop(coin, size_raw, model_price(trigger, size_decimals), str(row["cloid"]))
        )
    return tuple(resting_stops)


def parse_resting_orders(
    order_rows: Sequence[Mapping[str, object]], market_by_coin: Mapping[str, ListedMarket]
) -> tuple[RestingOrder, ...]:
    """Return the resting limit orders of the rows, oldest first. Raises Retryable for an unexpected
    format.
    """
    orders = []
    for row in order_rows:
        market, sign = _market_and_sign(row, market_by_coin)
        order_name = f"an order of {market.coin}"
        size_decimals = market.size_decimals
        unfilled_raw, size_raw = (
            sign * parse_raw(row.get(size_key), size_decimals, order_name)
            for size_key in ("sz", "origSz")
        )
        price = model_price(parse_decimal(row.get("limitPx"), order_name), size_decimals)
        placed_s = row_time_ms(row, "timestamp") // 1000
        if (
            not 0 < unfilled_raw * sign <= size_raw * sign
            or price <= 0
            or row.get("reduceOnly") is not False
        ):
            raise _malformed_error("an open order")
        orders.append(
            RestingOrder(market.coin, unfilled_raw, size_raw, price, placed_s, str(row["cloid"]))
        )
    return tuple(sorted(orders, key=lambda order: (order.placed_s, order.cloid)))


def _market_and_sign(
    row: Mapping[str, object], market_by_coin: Mapping[str, ListedMarket]
) -> tuple[ListedMarket, int]:
    """Return the market of an open order, and 1 if it buys, else -1."""
    coin = row.get("coin")
    side = row.get("side")
    if not isinstance(coin, str) or coin not in market_by_coin or side not in ("A", "B"):
        raise _malformed_error("an open order")
    return market_by_coin[coin], 1 if side == "B" else -1


def parse_payments(payment_rows: Sequence[Mapping[str, object]]) -> tuple[VenuePayment, ...]:
    """Return the payments of `userFunding` rows, oldest first. Raises Retryable for an unexpected
    format.
    """
    payments = []
    for row in payment_rows:
        payment_fields = row.get("delta")
        if not isinstance(payment_fields, Mapping) or not isinstance(
            coin := payment_fields.get("coin"), str
        ):
            raise _malformed_error("a funding payment")
        payments.append(
            VenuePayment(coin, row_time_ms(row) // 1000, -_usd_raw(payment_fields, "usdc"))
        )
    return tuple(sorted(payments, key=lambda payment: (payment.at_s, payment.market)))


def row_time_ms(row: Mapping[str, object], key: str = "time") -> int:
    """Return a row's time of the venue in milliseconds. Raises Retryable without one."""
    if type(time_ms := row.get(key)) is not int:
        raise _malformed_error("a time")
    return time_ms


def parse_fee_ppm(answer: object) -> int:
    """Return the taker fee of a `userFees` answer, parts per million of the notional,
    rounded up.
    """
    if not isinstance(answer, Mapping):
        raise _malformed_error("the fees")
    fee_rate = parse_decimal(answer.get("userCrossRate"), "the taker fee")
    return ceil_int(fee_rate * margin.PPM)


def require_market(market_by_coin: Mapping[str, ListedMarket], coin: str) -> ListedMarket:
    """Return the market of a coin. Raises Refused if the venue has none."""
    if coin not in market_by_coin:
        raise missing_market_error(coin)
    return market_by_coin[coin]


def missing_market_error(coin: str) -> Refused:
    """Return the error of a market that the venue does not list."""
    return Refused(f"Hyperliquid has no market {coin}", remedy="check the name of the market")


def _venue_word(word: str, fallback: str) -> str:
    """Return a word of the venue's API, such as a kind of transfer, if it has only safe characters,
    else `fallback` (T17); words are longer than labels of tokens.
    """
    return word if _WORD_PATTERN.fullmatch(word) else fallback


def _usd_raw(json_object: Mapping[str, object], amount_key: str) -> int:
    return parse_amount(json_object.get(amount_key), amount_key)


def _list_of(json_object: object, list_key: str) -> list[object]:
    entries = json_field(json_object, list_key)
    if not isinstance(entries, list):
        raise _malformed_error(list_key)
    return entries


def _malformed_error(subject: str) -> Retryable:
    return Retryable(
        f"the venue's answer for {subject} has an unexpected format", code=ErrorCode.ANSWER
    )


def _contradiction_error(subject: str, measured_raw: int, expected_raw: int) -> Retryable:
    return Retryable(
        f"the venue contradicts itself on {subject}: {measured_raw} base units, expected {expected_raw}",
        "read again; if the contradiction persists, do not trade there",
        code=ErrorCode.ANSWER,
    )
