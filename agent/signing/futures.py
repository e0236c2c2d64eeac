"""The signer's rule for futures on Perpetual Protocol v2: exactly the granted order, with a bound
near the index and within the leverage limit; margin moves only to and from the wallet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

from agent.model import UnsignedTx
from agent.model.futures import (
    DelegateChange,
    FuturesAction,
    FuturesGrant,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    PerpMarket,
    PerpOrder,
    PerpOrderKind,
)
from agent.ports import Grant
from agent.signing.base import FuturesRules, SigningRules, refuse, require_deadline
from agent.signing.calldata import CalldataReader, UndecodableCalldata, selector
from agent.units import BPS

# --- Strict decoder of the calls: ClearingHouse, Vault, DelegateApproval.


_ORDER = "(address,bool,bool,uint256,uint256,uint256,uint160,bytes32)"
OPEN_POSITION = selector(f"openPosition({_ORDER})")
OPEN_POSITION_FOR = selector(f"openPositionFor(address,{_ORDER})")
DEPOSIT = selector("deposit(address,uint256)")
WITHDRAW = selector("withdraw(address,uint256)")
APPROVE = selector("approve(address,uint8)")
REVOKE = selector("revoke(address,uint8)")
TRADE_ONLY = 1
"""Action of DelegateApproval that only allows a delegate to open and reduce positions."""
PPM = 1_000_000


@dataclass(frozen=True, slots=True)
class OpenPosition:
    """ClearingHouse.openPosition, or openPositionFor with a `trader`. A sale is exact base in, a
    purchase exact base out; `size_raw` is negative for a sale.
    """

    trader: str | None
    market: str
    size_raw: int
    bound_raw: int
    deadline_s: int


@dataclass(frozen=True, slots=True)
class MarginTransfer:
    """Vault.deposit or withdraw of `raw` base units of a token, for the sender."""

    token: str
    raw: int
    is_deposit: bool


@dataclass(frozen=True, slots=True)
class ChangeDelegate:
    """DelegateApproval.approve or revoke of trading by `delegate`."""

    delegate: str
    is_allowed: bool


FuturesCall = OpenPosition | MarginTransfer | ChangeDelegate


def decode(data: bytes) -> FuturesCall:
    """Decode the call in `data`. Raises UndecodableCalldata naming the error."""
    decoder = _DECODERS.get(data[:4])
    if decoder is None:
        raise UndecodableCalldata(f"calldata: unknown function 0x{data[:4].hex()}")
    words = CalldataReader(data[4:])
    call = decoder(words)
    words.end()
    return call


def _order(words: CalldataReader, trader: str | None = None) -> OpenPosition:
    market = words.address()
    sells, is_exact_input = words.uint(1), words.uint(1)
    if sells != is_exact_input:
        raise UndecodableCalldata("calldata: the size of the order is not in base units")
    amount, bound_raw, deadline_s = words.uint(), words.uint(), words.uint()
    words.exactly(0, "the price limit")
    words.exactly(0, "the referral code")
    return OpenPosition(trader, market, -amount if sells else amount, bound_raw, deadline_s)


def _delegate(words: CalldataReader, *, is_allowed: bool) -> ChangeDelegate:
    delegate = words.address()
    words.exactly(TRADE_ONLY, "the right to trade")
    return ChangeDelegate(delegate, is_allowed)


_DECODERS: dict[bytes, Callable[[CalldataReader], FuturesCall]] = {
    OPEN_POSITION: _order,
    OPEN_POSITION_FOR: lambda words: _order(words, words.address()),
    DEPOSIT: lambda words: MarginTransfer(words.address(), words.uint(), True),
    WITHDRAW: lambda words: MarginTransfer(words.address(), words.uint(), False),
    APPROVE: lambda words: _delegate(words, is_allowed=True),
    REVOKE: lambda words: _delegate(words, is_allowed=False),
}
SELECTORS = frozenset(_DECODERS)
"""Functions that a transaction of the futures layer may call."""


# --- The rule: one granted action, recomputed without the code that planned it.


def judge(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Return if the call may be signed; raise Refused naming the rule that failed."""
    try:
        call = decode(data)
    except UndecodableCalldata as error:
        refuse("call", error.message, "the canonical encoding of a call of the table")
    if rules.futures is None:
        refuse("futures", type(call).__name__, "none: no futures are configured")
    if grant.futures is None:
        refuse("action", type(call).__name__, "none: the grant has no futures action")
    granted, terms = grant.futures, rules.futures
    match call, granted.action:
        case [OpenPosition(), PerpOrder()]:
            _contract(tx.to, terms.clearing_house, "clearing house")
            _judge_trader(call, rules.wallet, terms)
            _judge_size(call, granted.action, terms)
            judge_order(granted.action, granted, grant.now_s, terms)
            require_deadline(call.deadline_s, grant, rules)
        case [MarginTransfer(is_deposit=True), MarginDeposit()]:
            _judge_margin(tx.to, call, granted.action.raw, rules.wallet, terms)
        case [MarginTransfer(is_deposit=False), MarginWithdrawal()]:
            _judge_margin(tx.to, call, granted.action.raw, rules.wallet, terms)
        case [ChangeDelegate(), DelegateChange()]:
            _contract(tx.to, terms.delegate_approval, "delegate approval")
            _judge_delegate(call, granted.action, rules.wallet, terms)
        case _:
            _other_action(call, granted.action)


def require_approval(
    token: str, spender: str, raw: int, granted: FuturesGrant, rules: SigningRules
) -> None:
    """Require that an approval is for the vault, of exactly the collateral of the granted
    deposit.
    """
    if rules.futures is None or not isinstance(granted.action, MarginDeposit):
        refuse("approval", "an approval", "none: no deposit of margin is granted")
    if token != rules.futures.collateral or token not in rules.tokens:
        refuse("contract", token, f"the pinned collateral {rules.futures.collateral}")
    if spender != rules.futures.vault:
        refuse("spender", spender, f"the pinned vault {rules.futures.vault}")
    if raw not in (0, granted.action.raw):
        refuse("approval_amount", raw, f"0, or the {granted.action.raw} that is deposited")


def _other_action(call: FuturesCall, action: FuturesAction) -> NoReturn:
    refuse("action", type(call).__name__, f"{type(action).__name__}, as granted")


def _contract(to: str, pinned: str, role: str) -> None:
    if to != pinned:
        refuse("contract", to, f"the pinned {role} {pinned}")


def _own_account(wallet: str, terms: FuturesRules) -> None:
    """Require the wallet to be the trader, because a delegate must change neither margin nor
    delegates.
    """
    if terms.trader != wallet:
        refuse("trader", f"the delegate {wallet}", f"the account {terms.trader} itself")


def _judge_trader(call: OpenPosition, wallet: str, terms: FuturesRules) -> None:
    """Require the call to trade for the configured account; openPosition always trades for the
    wallet itself.
    """
    traded_for = wallet if call.trader is None else call.trader
    if traded_for != terms.trader:
        refuse("trader", traded_for, terms.trader)


def _judge_margin(
    to: str, call: MarginTransfer, raw: int, wallet: str, terms: FuturesRules
) -> None:
    _contract(to, terms.vault, "vault")
    _own_account(wallet, terms)
    if call.token != terms.collateral:
        refuse("tokens", call.token, f"the collateral {terms.collateral}")
    if call.raw != raw or call.raw <= 0:
        refuse("amount", call.raw, f"exactly {raw}, above zero")


def _judge_delegate(
    call: ChangeDelegate, action: DelegateChange, wallet: str, terms: FuturesRules
) -> None:
    _own_account(wallet, terms)
    if call.delegate != terms.delegate or int(call.delegate, 16) == 0:
        refuse("delegate", call.delegate, f"the configured delegate {terms.delegate}")
    if (call.delegate, call.is_allowed) != (action.delegate, action.is_allowed):
        refuse("delegate", _delegate_text(call), f"exactly {action}")


def _delegate_text(call: ChangeDelegate) -> str:
    return f"{'approve' if call.is_allowed else 'revoke'} {call.delegate}"


def _judge_size(call: OpenPosition, order: PerpOrder, terms: FuturesRules) -> None:
    """Require a market order with the granted market, size and bound."""
    if order.kind is not PerpOrderKind.MARKET:
        refuse("order", order.kind.value, "a market order")
    if call.market not in terms.markets:
        refuse("market", call.market, "a configured market")
    if call.market != order.market:
        refuse("market", call.market, f"the granted market {order.market}")
    if call.size_raw != order.size_raw or call.size_raw == 0:
        refuse("size", call.size_raw, f"exactly {order.size_raw}, above zero")
    if call.bound_raw != order.bound_raw or call.bound_raw <= 0:
        refuse("bound", call.bound_raw, f"exactly {order.bound_raw}, above zero")


def judge_order(order: PerpOrder, granted: FuturesGrant, now_s: int, terms: FuturesRules) -> None:
    """Require a bound near the snapshot's index. An order that does not reduce must keep the
    leverage limit.
    """
    account = granted.account
    market = next((one for one in account.markets if one.market == order.market), None)
    if market is None or market.index <= 0 or market.mark <= 0:
        refuse("market", order.market, "a market of the snapshot with both prices")
    age_s = now_s - market.index_s
    if not 0 <= age_s <= terms.index_age_s:
        refuse("index_age", f"{age_s} s", f"0 to {terms.index_age_s} s")
    held = sum(one.size_raw for one in account.positions if one.market == order.market)
    reduces = held * order.size_raw < 0 and abs(order.size_raw) <= abs(held)
    if order.is_reduce_only and not reduces:
        refuse("reduce_only", f"{order.size_raw} on a position of {held}", "a smaller position")
    if granted.is_emergency and not order.is_reduce_only:
        refuse("emergency", "an order that may open", "a reduction")
    slippage = terms.emergency_slippage_bps if granted.is_emergency else terms.slippage_bps
    _judge_bound(order, market, slippage)
    if not reduces:
        _judge_leverage(order, market, account, terms.max_leverage_bps)


def _judge_bound(order: PerpOrder, market: PerpMarket, slippage_bps: int) -> None:
    fair = abs(order.size_raw) * market.index
    if order.size_raw > 0:
        most = fair * Fraction(BPS + slippage_bps, BPS)
        if order.bound_raw > most:
            refuse("bound", f"pays {order.bound_raw}", f"at most {most.__floor__()}")
    else:
        least = fair * Fraction(BPS - slippage_bps, BPS)
        if order.bound_raw < least:
            refuse("bound", f"brings {order.bound_raw}", f"at least {least.__ceil__()}")


def _judge_leverage(
    order: PerpOrder, market: PerpMarket, account: MarginAccount, most_bps: int
) -> None:
    """Require gross notional (at the marks) over account value to be within the limit after a fill
    at the bound with the fee.
    """
    marks = {one.market: one.mark for one in account.markets}
    sizes = {one.market: one.size_raw for one in account.positions}
    if missing := sorted(sizes.keys() - marks.keys()):
        refuse("market", ", ".join(missing), "positions in markets of the snapshot")
    value = account.collateral_raw + account.realised_raw
    for one in account.positions:
        value += one.open_notional_raw - one.funding_pending_raw
        value += _at_mark(one.size_raw, marks[one.market])
    fair = abs(_at_mark(order.size_raw, market.mark))
    worse = order.bound_raw - fair if order.size_raw > 0 else fair - order.bound_raw
    fee = -(-max(fair, order.bound_raw) * market.fee_ppm // PPM)
    value -= max(0, worse) + fee
    sizes[order.market] = sizes.get(order.market, 0) + order.size_raw
    gross = sum(abs(_at_mark(size, marks[name])) for name, size in sizes.items())
    if value <= 0 or gross * BPS > most_bps * value:
        leverage = "unlimited" if value <= 0 else f"{Fraction(gross, value).__float__():.4f}x"
        refuse("leverage", leverage, f"{most_bps / BPS:g}x")


def _at_mark(size_raw: int, mark: Fraction) -> int:
    """Signed value of a size, truncated toward zero."""
    whole = abs(size_raw) * mark.numerator // mark.denominator
    return -whole if size_raw < 0 else whole
