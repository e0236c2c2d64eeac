"""Margin account and markets of Perpetual Protocol v2, read through the lens for a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.chain.lens import (
    LATEST_ROUND_DATA,
    CallItem,
    CallStatus,
    LensAnswer,
    LensItem,
    address_call,
    address_word,
    answer_words,
    to_signed,
    uint_word,
)
from agent.chain.rpc import Log, address_of, emitter, hex_data, parse_bytes, topics_of
from agent.chain.watch import LensQuestion
from agent.margin import account as margin
from agent.model import (
    MARGIN_ACCOUNT_ITEM,
    FuturesReading,
    MarginAccount,
    MarginTier,
    PerpFill,
    PerpFunding,
    PerpMarket,
    Position,
    Receipt,
    UnreadableItem,
)
from agent.signing.calldata import selector
from agent.units import Token, safe_label

FUNDING_WINDOW_S = 900
"""Window of the averages that Exchange computes funding from (ClearingHouseConfig.getTwapInterval).
"""
MAX_MARKETS = 64
"""Maximum number of markets and collaterals read from an account's lists."""
UNKNOWN_INDEX_S = 0
"""Index timestamp used when the round could not be read. The age of the index then counts as
unknown, so no order is bounded by it; other markets are unaffected.
"""
_AVERAGING_GAS = 1_500_000
_LIKELY_GAS = 150_000
"""Gas cap and likely gas of a view that averages prices."""
_ACCOUNT_GAS = 8_000_000
"""Gas cap of a view that does so for every market in which the account has a position."""


_GET_BALANCE = selector("getBalance(address)")
GET_SETTLEMENT_TOKEN = selector("getSettlementToken()")
_GET_PNL = selector("getPnlAndPendingFee(address)")
_GET_BASE_TOKENS = selector("getBaseTokens(address)")
_HAS_ORDER = selector("hasOrder(address)")
_GET_SETTLEMENT_VALUE = selector("getSettlementTokenValue(address)")
_GET_COLLATERAL_TOKENS = selector("getCollateralTokens(address)")
_GET_MAINTENANCE = selector("getMarginRequirementForLiquidation(address)")
_GET_FREE_COLLATERAL = selector("getFreeCollateral(address)")
_GET_INITIAL_RATIO = selector("getImRatio()")
_GET_MAINTENANCE_RATIO = selector("getMmRatio()")
_GET_MAX_FUNDING = selector("getMaxFundingRate()")
_GET_SIZE = selector("getTakerPositionSize(address,address)")
_GET_OPEN_NOTIONAL = selector("getTakerOpenNotional(address,address)")
_GET_FUNDING = selector("getPendingFundingPayment(address,address)")
_GET_MARK = selector("getMarkPrice(address)")
_GET_INDEX = selector("getIndexPrice(uint256)")
_GET_MARKET_TWAP = selector("getSqrtMarketTwapX96(address,uint32)")
_GET_FEE = selector("getFeeRatio(address)")
_GET_MAX_TICKS = selector("getMaxTickCrossedWithinBlock(address)")
_IS_OPEN = selector("isOpen()")
_SYMBOL = selector("symbol()")
PRICE_FEED = selector("getPriceFeed()")
CHAINLINK_FEED = selector("getChainlinkPriceFeedV3()")
AGGREGATOR = selector("getAggregator()")


@dataclass(frozen=True, slots=True)
class PerpMarketRef:
    """A market to read: its virtual base token, its index feed's aggregator, and the portfolio's
    token with the same price (empty: none). `is_named` is false if the config does not name it.
    """

    base: str
    symbol: str
    asset: str
    aggregator: str
    is_named: bool = True


@dataclass(frozen=True, slots=True)
class PerpScope:
    """The account of `trader` and its markets. `collateral` is the settlement token."""

    trader: str
    collateral: Token
    vault: str
    account_balance_contract: str
    clearing_house: str
    exchange: str
    market_registry: str
    config_contract: str
    markets: tuple[PerpMarketRef, ...]

    @property
    def allowances(self) -> list[tuple[str, str, str]]:
        """See LayerScope."""
        return [(self.collateral.label, self.collateral.address, self.vault)]

    def questions(self) -> list[LensQuestion]:
        """See LayerScope."""
        return [
            LensQuestion(f"futures: {question.name}", question.address, question.item)
            for question in perp_questions(self)
        ]

    def read(self, answers: Sequence[LensAnswer]) -> tuple[FuturesReading, list[UnreadableItem]]:
        """See LayerScope."""
        account_or_reason = read_account(self, answers)
        if isinstance(account_or_reason, str):
            unreadable_item = UnreadableItem(MARGIN_ACCOUNT_ITEM, self.trader, account_or_reason)
            return FuturesReading(unknown_reason=account_or_reason), [unreadable_item]
        return FuturesReading(account_or_reason), []

    def wider_scope(
        self,
        answers: Sequence[LensAnswer],
        ask: Callable[[Sequence[LensItem]], list[LensAnswer]],
    ) -> PerpScope:
        """See LayerScope: markets in which someone else, such as a stolen delegate, has opened a
        position for the account.
        """
        if not (unread_base_tokens := unread_bases(self, answers)):
            return self
        extra_markets = unnamed_markets(
            unread_base_tokens, [market.symbol for market in self.markets], ask
        )
        return replace(self, markets=(*self.markets, *extra_markets))


@dataclass(frozen=True, slots=True)
class PerpQuestion:
    """One lens item of the margin account, with its name and the contract it queries."""

    name: str
    address: str
    item: CallItem


class _Unreadable(Exception):
    """Raised with the reason why the account cannot be used."""


def perp_questions(scope: PerpScope) -> list[PerpQuestion]:
    """Return all items in the order that `read_account` expects."""
    trader = scope.trader
    questions = [
        _question("collateral", scope.vault, address_call(_GET_BALANCE, trader)),
        _question("settlement token", scope.vault, GET_SETTLEMENT_TOKEN),
        _question(
            "profit",
            scope.account_balance_contract,
            address_call(_GET_PNL, trader),
            96,
            gas_cap=_ACCOUNT_GAS,
        ),
        _question(
            "markets held",
            scope.account_balance_contract,
            address_call(_GET_BASE_TOKENS, trader),
            64 + 32 * MAX_MARKETS,
        ),
        _question("orders", scope.account_balance_contract, address_call(_HAS_ORDER, trader)),
        _question(
            "account value",
            scope.vault,
            address_call(_GET_SETTLEMENT_VALUE, trader),
            gas_cap=_ACCOUNT_GAS,
        ),
        _question(
            "other collateral",
            scope.vault,
            address_call(_GET_COLLATERAL_TOKENS, trader),
            64 + 32 * MAX_MARKETS,
        ),
        _question(
            "maintenance margin",
            scope.account_balance_contract,
            address_call(_GET_MAINTENANCE, trader),
            gas_cap=_ACCOUNT_GAS,
        ),
        _question(
            "free margin",
            scope.vault,
            address_call(_GET_FREE_COLLATERAL, trader),
            gas_cap=_ACCOUNT_GAS,
        ),
        _question("initial ratio", scope.config_contract, _GET_INITIAL_RATIO),
        _question("maintenance ratio", scope.config_contract, _GET_MAINTENANCE_RATIO),
        _question("maximum funding rate", scope.config_contract, _GET_MAX_FUNDING),
    ]
    for market in scope.markets:
        base_token = market.base
        symbol = market.symbol
        market_twap_calldata = (
            _GET_MARKET_TWAP + address_word(base_token) + uint_word(FUNDING_WINDOW_S)
        )
        index_twap_calldata = _GET_INDEX + uint_word(FUNDING_WINDOW_S)
        questions += [
            _question(
                f"position in {symbol}",
                scope.account_balance_contract,
                address_call(_GET_SIZE, trader, base_token),
            ),
            _question(
                f"open notional in {symbol}",
                scope.account_balance_contract,
                address_call(_GET_OPEN_NOTIONAL, trader, base_token),
            ),
            _question(
                f"funding in {symbol}",
                scope.exchange,
                address_call(_GET_FUNDING, trader, base_token),
                gas_cap=_AVERAGING_GAS,
            ),
            _question(
                f"mark of {symbol}",
                scope.account_balance_contract,
                address_call(_GET_MARK, base_token),
                gas_cap=_AVERAGING_GAS,
            ),
            _question(
                f"index of {symbol}", base_token, _GET_INDEX + uint_word(0), gas_cap=_AVERAGING_GAS
            ),
            _question(
                f"mean index of {symbol}", base_token, index_twap_calldata, gas_cap=_AVERAGING_GAS
            ),
            _question(
                f"mean market price of {symbol}",
                scope.exchange,
                market_twap_calldata,
                gas_cap=_AVERAGING_GAS,
            ),
            _question(
                f"fee of {symbol}", scope.market_registry, address_call(_GET_FEE, base_token)
            ),
            _question(
                f"maximum ticks per block of {symbol}",
                scope.exchange,
                address_call(_GET_MAX_TICKS, base_token),
            ),
            _question(f"state of {symbol}", base_token, _IS_OPEN),
            _question(f"index round of {symbol}", market.aggregator, LATEST_ROUND_DATA, 160),
        ]
    return questions


def read_account(scope: PerpScope, answers: Sequence[LensAnswer]) -> MarginAccount | str:
    """Return the margin account, or the reason why it is not reliably known.

    Value, maintenance margin and free margin are computed from the positions and must equal the
    contracts' answers. They would differ if the account had positions in other markets or provided
    liquidity. Collateral other than the settlement token is not counted: the venue's free margin
    may then be more.
    """
    questions = perp_questions(scope)
    try:
        return _read_margin_account(scope, iter(zip(questions, answers, strict=True)))
    except _Unreadable as error:
        return str(error)


QuestionAnswers = Iterator[tuple[PerpQuestion, LensAnswer]]


def _read_margin_account(scope: PerpScope, remaining_answers: QuestionAnswers) -> MarginAccount:
    collateral_word, settlement_token_word = _single_words(remaining_answers, 2)
    if settlement_token_word != int(scope.collateral.address, 16):
        raise _Unreadable(
            f"the vault settles in 0x{settlement_token_word:040x}, not in futures.collateral"
            f" {scope.collateral.label}"
        )
    realised_pnl_word, _, pending_fee = _next_words(remaining_answers, 3)
    base_token_words = {int(market.base, 16) for market in scope.markets}
    foreign_base_words = [
        word for word in _address_words(*next(remaining_answers)) if word not in base_token_words
    ]
    has_orders, account_value_word = _single_words(remaining_answers, 2)
    other_collateral_words = _address_words(*next(remaining_answers))
    (
        maintenance_margin_word,
        free_margin,
        initial_margin_ppm,
        maintenance_margin_ppm,
        max_funding_ppm,
    ) = _single_words(remaining_answers, 5)
    if foreign_base_words:
        foreign_markets_text = ", ".join(f"0x{word:040x}" for word in foreign_base_words)
        raise _Unreadable(
            f"the account has positions in markets not configured: {foreign_markets_text}"
        )
    if has_orders or pending_fee:
        raise _Unreadable("the account provides liquidity, whose value is not counted")
    collateral_scale = 10 ** (18 - scope.collateral.decimals)
    margin_tiers = (MarginTier(0, initial_margin_ppm, maintenance_margin_ppm),)
    markets = []
    positions = []
    for market_ref in scope.markets:
        market, position = _read_market(
            market_ref, margin_tiers, Fraction(max_funding_ppm, margin.PPM), remaining_answers
        )
        if market_ref.is_named or position.size_raw:
            markets.append(market)
        positions += [position] if position.size_raw else []
    account = MarginAccount(
        quote=Token(scope.clearing_house, "USD", 18),
        collateral_unit_raw=collateral_scale,
        collateral_raw=to_signed(collateral_word) * collateral_scale,
        realised_raw=to_signed(realised_pnl_word),
        positions=tuple(positions),
        markets=tuple(markets),
    )
    sum_pairs_by_name = {
        "account value": (
            margin.settled_value_raw(account),
            to_signed(account_value_word) * collateral_scale,
        ),
        "maintenance margin": (
            margin.maintenance_margin_raw(account),
            to_signed(maintenance_margin_word),
        ),
        "free margin": (max(0, margin.free_margin_raw(account)) // collateral_scale, free_margin),
    }
    if other_collateral_words and free_margin > sum_pairs_by_name["free margin"][0]:
        # anyone may deposit another collateral, which is not counted
        del sum_pairs_by_name["free margin"]
    for sum_name, (own_sum, venue_sum) in sum_pairs_by_name.items():
        if own_sum != venue_sum:
            raise _Unreadable(
                f"the {sum_name} is {venue_sum} base units, but its parts sum to {own_sum}"
            )
    return account


def unread_bases(scope: PerpScope, answers: Sequence[LensAnswer]) -> tuple[str, ...]:
    """Return the base tokens of markets outside of the scope in which the account has a position;
    empty if the answer is unreadable, which makes the account unknown.
    """
    question_answers = zip(perp_questions(scope), answers, strict=True)
    base_tokens_question_answer = next(
        question_answer
        for question_answer in question_answers
        if question_answer[0].item.calldata[:4] == _GET_BASE_TOKENS
    )
    configured_base_words = {int(market.base, 16) for market in scope.markets}
    try:
        held_base_words = _address_words(*base_tokens_question_answer)
    except _Unreadable:
        return ()
    return tuple(
        to_checksum_address(f"0x{word:040x}")
        for word in held_base_words
        if word not in configured_base_words
    )


LensQuery = Callable[[Sequence[CallItem]], Sequence[LensAnswer]]
"""Answers of several calls at one block."""


def unnamed_markets(
    base_tokens: Sequence[str], named_symbols: Collection[str], ask: LensQuery
) -> tuple[PerpMarketRef, ...]:
    """Return the markets of base tokens that the config does not name. A symbol that is unsafe to
    print, or the same as one of the config (`named_symbols`), is replaced by the address. An
    aggregator that cannot be read leaves the age of the index unknown.
    """
    symbol_answers = ask([CallItem(base_token, _SYMBOL, 96) for base_token in base_tokens])
    feed_contracts = list(base_tokens)
    for view_selector in (PRICE_FEED, CHAINLINK_FEED, AGGREGATOR):
        view_answers = ask(
            [CallItem(feed_contract, view_selector) for feed_contract in feed_contracts]
        )
        feed_contracts = [
            feed_contract if (address := _answer_address(address_answer)) is None else address
            for feed_contract, address_answer in zip(feed_contracts, view_answers, strict=True)
        ]
    market_refs: list[PerpMarketRef] = []
    for base_token, symbol_answer, feed_contract in zip(
        base_tokens, symbol_answers, feed_contracts, strict=True
    ):
        safe_symbol = safe_label(_decode_text(symbol_answer), base_token)
        used_symbols = {*named_symbols, *(market_ref.symbol for market_ref in market_refs)}
        market_refs.append(
            PerpMarketRef(
                base_token,
                base_token if safe_symbol in used_symbols else safe_symbol,
                "",
                feed_contract,
                is_named=False,
            )
        )
    return tuple(market_refs)


def _answer_address(answer: LensAnswer) -> str | None:
    words = answer_words(answer, 1)
    if isinstance(words, CallStatus) or not 0 < words[0] < 2**160:
        return None
    return to_checksum_address(f"0x{words[0]:040x}")


def _decode_text(answer: LensAnswer) -> str:
    """Return a string of at most 32 bytes; empty if the answer is not one."""
    words = answer_words(answer, 3)
    if isinstance(words, CallStatus) or words[0] != 32 or words[1] > 32:
        return ""
    return words[2].to_bytes(32, "big")[: words[1]].decode("ascii", "replace")


def _address_words(question: PerpQuestion, answer: LensAnswer) -> tuple[int, ...]:
    """Return a list of at most MAX_MARKETS addresses. Raises _Unreadable."""
    header_words = answer_words(answer, 2)
    if isinstance(header_words, CallStatus):
        raise _Unreadable(f"{question.name} could not be read: {header_words.why}")
    offset, address_count = header_words
    words = (
        answer_words(answer, 2 + address_count)
        if address_count <= MAX_MARKETS
        else CallStatus.TOO_LONG
    )
    if offset != 32 or isinstance(words, CallStatus) or any(word >> 160 for word in words[2:]):
        raise _Unreadable(f"{question.name} could not be read: {CallStatus.MALFORMED.why}")
    return words[2:]


def _read_market(
    market_ref: PerpMarketRef,
    margin_tiers: tuple[MarginTier, ...],
    max_funding_daily: Fraction,
    remaining_answers: QuestionAnswers,
) -> tuple[PerpMarket, Position]:
    (
        size_word,
        open_notional_word,
        funding_word,
        mark_wad,
        index_wad,
        mean_index_wad,
        mean_sqrt_price_x96,
        fee_ppm,
        max_ticks,
        is_open,
    ) = _single_words(remaining_answers, 10)
    _, index_round_answer = next(remaining_answers)
    index_round_words = answer_words(index_round_answer, 5)
    if not mark_wad or not index_wad or not mean_index_wad:
        raise _Unreadable(f"{market_ref.symbol} has no price")
    mean_market_wad = margin.wad_of_sqrt_x96(mean_sqrt_price_x96)
    premium = Fraction(mean_market_wad - mean_index_wad, mean_index_wad)
    market = PerpMarket(
        market=market_ref.base,
        symbol=market_ref.symbol,
        asset=market_ref.asset,
        size_decimals=18,
        lot_raw=1,
        tiers=margin_tiers,
        fee_ppm=fee_ppm,
        mark=Fraction(mark_wad, margin.WAD),
        index=Fraction(index_wad, margin.WAD),
        index_s=UNKNOWN_INDEX_S
        if isinstance(index_round_words, CallStatus)
        else index_round_words[3],
        # Exchange._getDeltaTwapX96 caps it.
        funding_daily=max(-max_funding_daily, min(max_funding_daily, premium)),
        is_paused=not is_open or not max_ticks,
        is_configured=market_ref.is_named,
    )
    position = Position(
        market_ref.base,
        to_signed(size_word),
        to_signed(open_notional_word),
        to_signed(funding_word),
    )
    return market, position


def _question(
    name: str, target: str, calldata: bytes, max_answer_bytes: int = 32, *, gas_cap: int = 0
) -> PerpQuestion:
    if gas_cap:
        return PerpQuestion(
            name, target, CallItem(target, calldata, max_answer_bytes, gas_cap, _LIKELY_GAS)
        )
    return PerpQuestion(name, target, CallItem(target, calldata, max_answer_bytes))


def _next_words(remaining_answers: QuestionAnswers, word_count: int) -> tuple[int, ...]:
    """Return the words of the next answer. Raises _Unreadable naming the question."""
    question, answer = next(remaining_answers)
    words = answer_words(answer, word_count)
    if isinstance(words, CallStatus):
        raise _Unreadable(f"{question.name} could not be read: {words.why}")
    return words


def _single_words(remaining_answers: QuestionAnswers, answer_count: int) -> list[int]:
    """Return the only word of each of the next answers."""
    return [_next_words(remaining_answers, 1)[0] for _ in range(answer_count)]


POSITION_CHANGED_TOPIC = hex_data(
    keccak(text="PositionChanged(address,address,int256,int256,uint256,int256,int256,uint256)")
)
FUNDING_SETTLED_TOPIC = hex_data(keccak(text="FundingPaymentSettled(address,address,int256)"))


def with_perp_events(receipt: Receipt, logs: Sequence[Log]) -> Receipt:
    """Return the receipt with the trades and funding payments of futures accounts."""
    return replace(
        receipt,
        fills=tuple(fill for log in logs if (fill := _parse_fill(log)) is not None),
        funding=tuple(payment for log in logs if (payment := _parse_funding(log)) is not None),
    )


def _parse_fill(log: Log) -> PerpFill | None:
    """Return the PositionChanged event of a log entry: a trade of a futures account."""
    topics = topics_of(log, POSITION_CHANGED_TOPIC, 3)
    if topics is None or len(event_data := parse_bytes(log.get("data"), "log data")) != 192:
        return None
    size_raw, quote_raw, fee_raw, realised_raw = (
        int.from_bytes(event_data[word_offset : word_offset + 32], "big", signed=True)
        for word_offset in (0, 32, 64, 128)
    )
    return PerpFill(
        emitter(log),
        address_of(topics[1]),
        address_of(topics[2]),
        size_raw,
        quote_raw,
        fee_raw,
        realised_raw,
    )


def _parse_funding(log: Log) -> PerpFunding | None:
    """Return the FundingPaymentSettled event of a log entry."""
    topics = topics_of(log, FUNDING_SETTLED_TOPIC, 3)
    if topics is None or len(event_data := parse_bytes(log.get("data"), "log data")) != 32:
        return None
    return PerpFunding(
        emitter(log),
        address_of(topics[1]),
        address_of(topics[2]),
        int.from_bytes(event_data, "big", signed=True),
    )
