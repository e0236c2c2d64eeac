"""Simulated sending: a signer without a key, and SwapRouter02 on exact pools."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from agent import codec
from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.backtest.settings import ROUTER, WALLET
from agent.model import Leg, LegFunding, Pool, SignedTx, SwapResult, Transfer, UnsignedTx
from agent.planning.gas import NATIVE_VENUE, GasInputs, leg_gas_units, plan_gas_units
from agent.ports import Grant
from agent.signing.calldata import (
    Approve,
    ExactInputSingle,
    Multicall,
    Pull,
    SwapExactTokens,
    SweepToken,
    UndecodableCalldata,
    UnwrapWeth9,
    WithdrawWeth9,
    WrapEth,
    decode,
)
from agent.signing.rules import SignableNonces, SigningRules, require_signable
from agent.units import NATIVE
from agent.venues.calldata import ROUTER_ITSELF


class NullSigner:
    """ports.Signer without a key.

    The signed bytes are the transaction's fields as JSON, the hash is their digest; both are
    deterministic.
    """

    def __init__(self, rules: SigningRules, nonces: Callable[[], SignableNonces]) -> None:
        self._rules, self._nonces = rules, nonces

    @property
    def address(self) -> str:
        """The wallet of the rules."""
        return self._rules.wallet

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """See ports.Signer."""
        require_signable(tx, grant, self._rules, self._nonces())
        raw = codec.dumps(tx).encode()
        return SignedTx(raw, "0x" + hashlib.sha256(raw).hexdigest())


def decode_unsigned(signed: SignedTx) -> UnsignedTx:
    """Return the fields of a transaction signed by NullSigner.

    Raises ConfigError for any other bytes.
    """
    return codec.loads(UnsignedTx, signed.raw.decode(errors="replace"))


APPROVE_UNITS = 46_000
"""Gas of an approval of a plain ERC-20 token, as measured on the embedded chain."""
UNWRAP_UNITS = 30_000
"""Gas of WETH9.withdraw by the wallet."""
CANCEL_UNITS = 21_000
"""Gas of a transfer of zero value."""
FAILED_UNITS = 60_000
"""Gas of a swap that reverts: about what SwapRouter02 uses before a minimum is missed."""


class TransactionReverted(Exception):
    """Raised when the transaction fails, with the reason."""


class TicksExhausted(TransactionReverted):
    """Raised when a swap exceeds the known ticks, so that its result is unknown."""


@dataclass(frozen=True, slots=True)
class RouterAddresses:
    """Addresses of the wallet, the router, and the wrapped native coin (empty: no wrapping)."""

    wallet: str
    router: str
    coin: str = ""


SIMULATED_ADDRESSES = RouterAddresses(WALLET, ROUTER)
"""Addresses of the backtest."""


@dataclass(slots=True)
class TransactionEffects:
    """Pending effects of a transaction: the wallet's balances and allowances, pools, and events.
    `native_wei` is the wallet's native coin, before gas; `wrapped` has deposits and withdrawals of
    the wrapped coin; `met` has the pool before each swap; `unspent` has the legs, by token, whose
    outputs are in the router.
    """

    balances: dict[str, int]
    allowances: dict[str, int]
    pools: dict[str, Pool]
    place: RouterAddresses = SIMULATED_ADDRESSES
    native_wei: int = 0
    router: dict[str, int] = field(default_factory=dict)
    router_wei: int = 0
    transfers: list[Transfer] = field(default_factory=list)
    wrapped: list[Transfer] = field(default_factory=list)
    swaps: list[tuple[str, str, SwapResult[Pool]]] = field(default_factory=list)
    met: list[tuple[Pool, SwapResult[Pool]]] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    unspent: dict[str, list[int]] = field(default_factory=dict)
    gas: int = 0


def execute(  # noqa: PLR0913
    to: str,
    data: str,
    balances: Mapping[str, int],
    allowances: Mapping[str, int],
    pools: Mapping[str, Pool],
    now_s: int,
    place: RouterAddresses = SIMULATED_ADDRESSES,
    value_wei: int = 0,
    native_wei: int = 0,
) -> TransactionEffects:
    """Run a transaction of the wallet at `now_s`; `allowances` are those of the router, by token.

    Raises TransactionReverted if the contracts would revert, TicksExhausted if that depends on
    ticks that were not read.
    """
    done = TransactionEffects(dict(balances), dict(allowances), dict(pools), place, native_wei)
    if (to, data, value_wei) == (place.wallet, "0x", 0):
        done.gas = CANCEL_UNITS
        return done
    try:
        call = decode(data)
    except UndecodableCalldata as error:
        raise TransactionReverted(str(error)) from None
    match call:
        case Approve(spender=spender, raw=raw) if spender == place.router and not value_wei:
            done.allowances[to] = raw
            done.gas = APPROVE_UNITS
        case WithdrawWeth9(raw=raw) if to == place.coin and not value_wei:
            _unwrap(done, place.wallet, done.balances, raw)
            done.native_wei += raw
            done.gas = UNWRAP_UNITS
        case Multicall() if to == place.router:
            _multicall(done, call, value_wei, now_s)
            done.gas = _gas(done, balances, allowances, pools)
        case other:
            raise TransactionReverted(f"{type(other).__name__} at {to} is not simulated")
    return done


def _multicall(done: TransactionEffects, call: Multicall, value_wei: int, now_s: int) -> None:
    if now_s > call.deadline_s:
        raise TransactionReverted("Transaction too old")
    if value_wei > done.native_wei:
        raise TransactionReverted("insufficient funds for gas * price + value")
    done.native_wei -= value_wei
    done.router_wei += value_wei
    for inner in call.calls:
        match inner:
            case ExactInputSingle() | SwapExactTokens():
                _swap(done, inner)
            case WrapEth(value_wei=raw):
                _wrap(done, raw)
            case SweepToken(token=token, min_raw=least, recipient=recipient):
                _sweep(done, token, least, recipient)
            case Pull(token=token, raw=raw):
                _from_wallet(done, token, raw, done.place.router)
                done.router[token] = done.router.get(token, 0) + raw
            case UnwrapWeth9(min_raw=least, recipient=recipient):
                _unwrap_all(done, least, recipient)


def _swap(done: TransactionEffects, call: ExactInputSingle | SwapExactTokens) -> None:
    place = done.place
    if isinstance(call, ExactInputSingle):
        token_in, token_out = pair = call.token_in, call.token_out
    else:
        token_in, token_out = pair = call.path[0], call.path[-1]
    pool = _pool(done.pools, call, pair)
    amount_raw = call.amount_in_raw or done.router.get(token_in, 0)
    source = LegFunding.WALLET if call.amount_in_raw else LegFunding.ROUTER
    sink = LegFunding.ROUTER if call.recipient == ROUTER_ITSELF else LegFunding.WALLET
    if sink is LegFunding.WALLET and call.recipient != place.wallet:
        raise TransactionReverted(f"a swap that pays {call.recipient} is not simulated")
    swapped = _swapped(pool, token_in, amount_raw)
    if swapped.amount_out_raw < call.min_out_raw:
        raise TransactionReverted("Too little received")
    if pool.paid_first:
        source = _pay(done, token_in, swapped.amount_in_raw, source, pool.address)
        _receive(done, token_out, swapped.amount_out_raw, sink, pool.address)
    else:
        _receive(done, token_out, swapped.amount_out_raw, sink, pool.address)
        source = _pay(done, token_in, swapped.amount_in_raw, source, pool.address)
    done.pools[pool.address] = swapped.after
    done.swaps.append((token_in, token_out, swapped))
    done.met.append((pool, swapped))
    done.legs.append(
        Leg(
            pool=pool.address,
            venue=pool.venue,
            token_in=token_in,
            token_out=token_out,
            fee_pips=pool.fee_pips,
            amount_in_raw=swapped.amount_in_raw,
            amount_out_raw=swapped.amount_out_raw,
            min_out_raw=call.min_out_raw,
            fee_raw=swapped.fee_raw,
            impact_bps=0,
            source=source,
            sink=sink,
        )
    )
    if source is LegFunding.ROUTER:
        done.unspent.pop(token_in, None)
    if sink is LegFunding.ROUTER:
        done.unspent.setdefault(token_out, []).append(len(done.legs) - 1)


def _swapped(pool: Pool, token_in: str, amount_raw: int) -> SwapResult[Pool]:
    try:
        return pool.swap(token_in, amount_raw)
    except BeyondKnownTicks as error:
        raise TicksExhausted(str(error)) from None
    except ContractRevert as error:
        raise TransactionReverted(str(error)) from None


def _pool(
    pools: Mapping[str, Pool], call: ExactInputSingle | SwapExactTokens, pair: tuple[str, str]
) -> Pool:
    """Return the pool that the factory has for this call."""
    for pool in pools.values():
        if isinstance(call, SwapExactTokens):
            fits = pool.paid_first
        else:
            fits = not pool.paid_first and pool.fee_pips == call.fee_pips
        if fits and {pool.token0, pool.token1} == set(pair):
            return pool
    raise TransactionReverted("no such pool")


def _receive(done: TransactionEffects, token: str, raw: int, sink: LegFunding, pool: str) -> None:
    into, holder = done.balances, done.place.wallet
    if sink is LegFunding.ROUTER:
        into, holder = done.router, done.place.router
    into[token] = into.get(token, 0) + raw
    done.transfers.append(Transfer(token, pool, holder, raw))


def _pay(
    done: TransactionEffects, token: str, raw: int, source: LegFunding, pool: str
) -> LegFunding:
    """Pay like PeripheryPaymentsExtended.pay, the router's native coin first; return the payer."""
    router = done.place.router
    if token == done.place.coin and 0 < raw <= done.router_wei:
        _wrap(done, raw, LegFunding.ROUTER)
        source = LegFunding.ROUTER
    if source is LegFunding.WALLET:
        _from_wallet(done, token, raw, pool)
        return source
    if done.router.get(token, 0) < raw:
        raise TransactionReverted("ST")
    done.router[token] -= raw
    done.transfers.append(Transfer(token, router, pool, raw))
    return source


def _from_wallet(done: TransactionEffects, token: str, raw: int, to: str) -> None:
    if done.allowances.get(token, 0) < raw or done.balances.get(token, 0) < raw:
        raise TransactionReverted("STF")
    done.allowances[token] -= raw
    done.balances[token] -= raw
    done.transfers.append(Transfer(token, done.place.wallet, to, raw))


def _wrap(done: TransactionEffects, raw: int, sink: LegFunding = LegFunding.WALLET) -> None:
    """Wrap native coin for `sink`: the router's next swap, or the wallet by a sweep."""
    if raw > done.router_wei:
        raise TransactionReverted("Insufficient ETH")
    coin, router = done.place.coin, done.place.router
    done.router_wei -= raw
    done.router[coin] = done.router.get(coin, 0) + raw
    done.wrapped.append(Transfer(coin, NATIVE, router, raw))
    done.legs.append(_native_leg(coin, NATIVE, coin, raw, LegFunding.WALLET, sink))


def _sweep(done: TransactionEffects, token: str, least_raw: int, recipient: str) -> None:
    raw = done.router.get(token, 0)
    if raw < least_raw:
        raise TransactionReverted("Insufficient token")
    if recipient != done.place.wallet:
        raise TransactionReverted(f"a sweep to {recipient} is not simulated")
    done.router[token] = 0
    done.balances[token] = done.balances.get(token, 0) + raw
    for number in done.unspent.pop(token, []):
        done.legs[number] = replace(done.legs[number], sink=LegFunding.WALLET)
    if raw:
        done.transfers.append(Transfer(token, done.place.router, recipient, raw))


def _unwrap_all(done: TransactionEffects, least_raw: int, recipient: str) -> None:
    coin, raw = done.place.coin, done.router.get(done.place.coin, 0)
    if raw < least_raw:
        raise TransactionReverted("Insufficient WETH9")
    if recipient != done.place.wallet:
        raise TransactionReverted(f"native coin for {recipient} is not simulated")
    pulled = bool(done.transfers) and (done.transfers[-1].sender, done.transfers[-1].recipient) == (
        done.place.wallet,
        done.place.router,
    )
    _unwrap(done, done.place.router, done.router, raw)
    done.native_wei += raw
    done.unspent.pop(coin, None)
    source = LegFunding.WALLET if pulled else LegFunding.ROUTER
    done.legs.append(_native_leg(coin, coin, NATIVE, raw, source, LegFunding.WALLET))


def _unwrap(done: TransactionEffects, holder: str, balances: dict[str, int], raw: int) -> None:
    """Unwrap like WETH9.withdraw called by `holder`, whose balances are `balances`; the caller credits the
    native coin.
    """
    coin = done.place.coin
    if balances.get(coin, 0) < raw:
        raise TransactionReverted("WETH9: balance")
    balances[coin] -= raw
    done.wrapped.append(Transfer(coin, holder, NATIVE, raw))


def _native_leg(
    coin: str, token_in: str, token_out: str, raw: int, source: LegFunding, sink: LegFunding
) -> Leg:
    return Leg(
        pool=coin,
        venue=NATIVE_VENUE,
        token_in=token_in,
        token_out=token_out,
        fee_pips=0,
        amount_in_raw=raw,
        amount_out_raw=raw,
        min_out_raw=raw,
        fee_raw=0,
        impact_bps=0,
        source=source,
        sink=sink,
    )


def _gas(
    done: TransactionEffects,
    balances: Mapping[str, int],
    allowances: Mapping[str, int],
    pools: Mapping[str, Pool],
) -> int:
    """Return the gas according to the planner's model. A pool writes at most one observation in a
    transaction that moves its tick.
    """
    units, written = 0, set[str]()
    for before, swap_result in done.met:
        moves = before.observed != swap_result.after.observed
        units += leg_gas_units(
            before,
            swap_result.ticks_crossed,
            swap_result.steps,
            moved=moves and before.address not in written,
        )
        if moves:
            written.add(before.address)
    return plan_gas_units(
        GasInputs(balances=balances, allowances=allowances, pools=pools), done.legs, units
    )
