"""Simulated sending: a signer without a key, and SwapRouter02 on exact pools."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from agent import codec
from agent.amm.swap_errors import BeyondKnownTicks, ContractRevert
from agent.backtest.settings import ROUTER, WALLET
from agent.errors import kind_words
from agent.model import (
    NATIVE_VENUE,
    Leg,
    LegPlace,
    Pool,
    SignedTx,
    SwapResult,
    SwapStyle,
    Transfer,
    UnsignedTx,
)
from agent.planning.gas import GasInputs, leg_gas_units, plan_gas_units
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
from agent.signing.rules import HighestTipByNonce, SigningRules, require_signable
from agent.units import NATIVE
from agent.venues.calldata import ROUTER_ITSELF


class NullSigner:
    """ports.Signer without a key.

    The signed bytes are the transaction's fields as JSON, the hash is their digest; both are
    deterministic.
    """

    def __init__(self, rules: SigningRules, nonces: Callable[[], HighestTipByNonce]) -> None:
        self._rules = rules
        self._nonces = nonces

    @property
    def address(self) -> str:
        """The wallet of the rules."""
        return self._rules.wallet

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """See ports.Signer."""
        require_signable(tx, grant, self._rules, self._nonces())
        tx_bytes = codec.dumps(tx).encode()
        return SignedTx(tx_bytes, "0x" + hashlib.sha256(tx_bytes).hexdigest())


def decode_unsigned(signed: SignedTx) -> UnsignedTx:
    """Return the fields of a transaction signed by NullSigner.

    Raises ConfigError for any other bytes.
    """
    return codec.loads(UnsignedTx, signed.signed_bytes.decode(errors="replace"))


APPROVE_GAS = 46_000
"""Gas of an approval of a plain ERC-20 token, as measured on the embedded chain."""
UNWRAP_GAS = 30_000
"""Gas of WETH9.withdraw by the wallet."""
CANCEL_GAS = 21_000
"""Gas of a transfer of zero value."""
FAILED_SWAP_GAS = 60_000
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
    wrapped_native: str = ""


SIMULATED_ADDRESSES = RouterAddresses(WALLET, ROUTER)
"""Addresses of the backtest."""


@dataclass(slots=True)
class TransactionEffects:
    """Pending effects of a transaction: the wallet's balances and allowances, pools, and events.
    `native_wei` is the wallet's native coin, before gas, `router_balances` and `router_wei` are
    what the router holds. `wrap_transfers` has deposits and withdrawals of the wrapped coin,
    `swaps` the tokens and results of swaps, `pools_and_results` the pool before each swap with its
    result. `legs` are the planner's legs for all this; `unspent_leg_indices_by_token` has, by
    token, the indices of those whose output is still in the router.
    """

    balances: dict[str, int]
    allowances: dict[str, int]
    pools: dict[str, Pool]
    addresses: RouterAddresses = SIMULATED_ADDRESSES
    native_wei: int = 0
    router_balances: dict[str, int] = field(default_factory=dict)
    router_wei: int = 0
    transfers: list[Transfer] = field(default_factory=list)
    wrap_transfers: list[Transfer] = field(default_factory=list)
    swaps: list[tuple[str, str, SwapResult[Pool]]] = field(default_factory=list)
    pools_and_results: list[tuple[Pool, SwapResult[Pool]]] = field(default_factory=list)
    legs: list[Leg] = field(default_factory=list)
    unspent_leg_indices_by_token: dict[str, list[int]] = field(default_factory=dict)
    gas_units: int = 0


def execute_transaction(
    tx: UnsignedTx,
    balances: Mapping[str, int],
    allowances: Mapping[str, int],
    pools: Mapping[str, Pool],
    now_s: int,
    addresses: RouterAddresses = SIMULATED_ADDRESSES,
    native_wei: int = 0,
) -> TransactionEffects:
    """Run a transaction of the wallet at `now_s`; `allowances` are those of the router, by token.

    Raises TransactionReverted if the contracts would revert, TicksExhausted if that depends on
    ticks that were not read.
    """
    effects = TransactionEffects(
        dict(balances), dict(allowances), dict(pools), addresses, native_wei
    )
    if (tx.to, tx.data, tx.value_wei) == (addresses.wallet, "0x", 0):
        effects.gas_units = CANCEL_GAS
        return effects
    try:
        call = decode(tx.data)
    except UndecodableCalldata as error:
        raise TransactionReverted(str(error)) from None
    match call:
        case Approve(spender=spender, raw=raw) if spender == addresses.router and not tx.value_wei:
            effects.allowances[tx.to] = raw
            effects.gas_units = APPROVE_GAS
        case WithdrawWeth9(raw=raw) if tx.to == addresses.wrapped_native and not tx.value_wei:
            _unwrap(effects, addresses.wallet, effects.balances, raw)
            effects.native_wei += raw
            effects.gas_units = UNWRAP_GAS
        case Multicall() if tx.to == addresses.router:
            _execute_multicall(effects, call, tx.value_wei, now_s)
            effects.gas_units = _gas_units(effects, balances, allowances, pools)
        case unsupported_call:
            raise TransactionReverted(
                f"{kind_words(type(unsupported_call))} at {tx.to} is not simulated"
            )
    return effects


def _execute_multicall(
    effects: TransactionEffects, call: Multicall, value_wei: int, now_s: int
) -> None:
    if now_s > call.deadline_s:
        raise TransactionReverted("Transaction too old")
    if value_wei > effects.native_wei:
        raise TransactionReverted("insufficient funds for gas * price + value")
    effects.native_wei -= value_wei
    effects.router_wei += value_wei
    for inner_call in call.calls:
        match inner_call:
            case ExactInputSingle() | SwapExactTokens():
                _execute_swap(effects, inner_call)
            case WrapEth(value_wei=raw):
                _wrap(effects, raw)
            case SweepToken(token=token, min_raw=min_raw, recipient=recipient):
                _sweep(effects, token, min_raw, recipient)
            case Pull(token=token, raw=raw):
                _pull_from_wallet(effects, token, raw, effects.addresses.router)
                effects.router_balances[token] = effects.router_balances.get(token, 0) + raw
            case UnwrapWeth9(min_raw=min_raw, recipient=recipient):
                _unwrap_all(effects, min_raw, recipient)


def _execute_swap(effects: TransactionEffects, call: ExactInputSingle | SwapExactTokens) -> None:
    addresses = effects.addresses
    if isinstance(call, ExactInputSingle):
        token_pair = (call.token_in, call.token_out)
    elif len(call.path) == 2:
        token_pair = (call.path[0], call.path[1])
    else:
        raise TransactionReverted("a path through several pools is not simulated")
    token_in, token_out = token_pair
    pool = _matching_pool(effects.pools, call, token_pair)
    amount_raw = call.amount_in_raw or effects.router_balances.get(token_in, 0)
    source = LegPlace.WALLET if call.amount_in_raw else LegPlace.ROUTER
    sink = LegPlace.ROUTER if call.recipient == ROUTER_ITSELF else LegPlace.WALLET
    if sink is LegPlace.WALLET and call.recipient != addresses.wallet:
        raise TransactionReverted(f"a swap that pays {call.recipient} is not simulated")
    swap_result = _swap_or_revert(pool, token_in, amount_raw)
    if swap_result.amount_out_raw < call.min_out_raw:
        raise TransactionReverted("Too little received")
    if pool.style is SwapStyle.V2:
        source = _pay(effects, token_in, swap_result.amount_in_raw, source, pool.address)
        _receive(effects, token_out, swap_result.amount_out_raw, sink, pool.address)
    else:
        _receive(effects, token_out, swap_result.amount_out_raw, sink, pool.address)
        source = _pay(effects, token_in, swap_result.amount_in_raw, source, pool.address)
    effects.pools[pool.address] = swap_result.pool_after
    effects.swaps.append((token_in, token_out, swap_result))
    effects.pools_and_results.append((pool, swap_result))
    effects.legs.append(
        Leg(
            pool=pool.address,
            venue=pool.venue,
            token_in=token_in,
            token_out=token_out,
            fee_pips=pool.fee_pips,
            amount_in_raw=swap_result.amount_in_raw,
            amount_out_raw=swap_result.amount_out_raw,
            min_out_raw=call.min_out_raw,
            fee_raw=swap_result.fee_raw,
            impact_bps=0,
            source=source,
            sink=sink,
        )
    )
    if source is LegPlace.ROUTER:
        effects.unspent_leg_indices_by_token.pop(token_in, None)
    if sink is LegPlace.ROUTER:
        effects.unspent_leg_indices_by_token.setdefault(token_out, []).append(len(effects.legs) - 1)


def _swap_or_revert(pool: Pool, token_in: str, amount_raw: int) -> SwapResult[Pool]:
    try:
        return pool.swap(token_in, amount_raw)
    except BeyondKnownTicks as error:
        raise TicksExhausted(str(error)) from None
    except ContractRevert as error:
        raise TransactionReverted(str(error)) from None


def _matching_pool(
    pools: Mapping[str, Pool], call: ExactInputSingle | SwapExactTokens, token_pair: tuple[str, str]
) -> Pool:
    """Return the pool that the factory has for this call."""
    for pool in pools.values():
        if isinstance(call, SwapExactTokens):
            is_kind_match = pool.style is SwapStyle.V2
        else:
            is_kind_match = pool.style is SwapStyle.V3 and pool.fee_pips == call.fee_pips
        if is_kind_match and {pool.token0, pool.token1} == set(token_pair):
            return pool
    raise TransactionReverted("no such pool")


def _receive(effects: TransactionEffects, token: str, raw: int, sink: LegPlace, pool: str) -> None:
    balances = effects.balances
    holder = effects.addresses.wallet
    if sink is LegPlace.ROUTER:
        balances = effects.router_balances
        holder = effects.addresses.router
    balances[token] = balances.get(token, 0) + raw
    effects.transfers.append(Transfer(token, pool, holder, raw))


def _pay(
    effects: TransactionEffects, token: str, raw: int, source: LegPlace, pool: str
) -> LegPlace:
    """Pay like PeripheryPaymentsExtended.pay, the router's native coin first; return the payer."""
    router = effects.addresses.router
    if token == effects.addresses.wrapped_native and 0 < raw <= effects.router_wei:
        _wrap(effects, raw, LegPlace.ROUTER)
        source = LegPlace.ROUTER
    if source is LegPlace.WALLET:
        _pull_from_wallet(effects, token, raw, pool)
        return source
    if effects.router_balances.get(token, 0) < raw:
        raise TransactionReverted("ST")
    effects.router_balances[token] -= raw
    effects.transfers.append(Transfer(token, router, pool, raw))
    return source


def _pull_from_wallet(effects: TransactionEffects, token: str, raw: int, to: str) -> None:
    if effects.allowances.get(token, 0) < raw or effects.balances.get(token, 0) < raw:
        raise TransactionReverted("STF")
    effects.allowances[token] -= raw
    effects.balances[token] -= raw
    effects.transfers.append(Transfer(token, effects.addresses.wallet, to, raw))


def _wrap(effects: TransactionEffects, raw: int, sink: LegPlace = LegPlace.WALLET) -> None:
    """Wrap native coin for `sink`: the router's next swap, or the wallet by a sweep."""
    if raw > effects.router_wei:
        raise TransactionReverted("Insufficient ETH")
    wrapped_native = effects.addresses.wrapped_native
    router = effects.addresses.router
    effects.router_wei -= raw
    effects.router_balances[wrapped_native] = effects.router_balances.get(wrapped_native, 0) + raw
    effects.wrap_transfers.append(Transfer(wrapped_native, NATIVE, router, raw))
    effects.legs.append(
        _native_leg(wrapped_native, NATIVE, wrapped_native, raw, LegPlace.WALLET, sink)
    )


def _sweep(effects: TransactionEffects, token: str, min_raw: int, recipient: str) -> None:
    amount_raw = effects.router_balances.get(token, 0)
    if amount_raw < min_raw:
        raise TransactionReverted("Insufficient token")
    if recipient != effects.addresses.wallet:
        raise TransactionReverted(f"a sweep to {recipient} is not simulated")
    effects.router_balances[token] = 0
    effects.balances[token] = effects.balances.get(token, 0) + amount_raw
    for leg_index in effects.unspent_leg_indices_by_token.pop(token, []):
        effects.legs[leg_index] = replace(effects.legs[leg_index], sink=LegPlace.WALLET)
    if amount_raw:
        effects.transfers.append(Transfer(token, effects.addresses.router, recipient, amount_raw))


def _unwrap_all(effects: TransactionEffects, min_raw: int, recipient: str) -> None:
    wrapped_native = effects.addresses.wrapped_native
    amount_raw = effects.router_balances.get(effects.addresses.wrapped_native, 0)
    if amount_raw < min_raw:
        raise TransactionReverted("Insufficient WETH9")
    if recipient != effects.addresses.wallet:
        raise TransactionReverted(f"native coin for {recipient} is not simulated")
    # the wrapped coin was pulled from the wallet just before: the leg is the wallet's
    is_from_wallet = bool(effects.transfers) and (
        effects.transfers[-1].sender,
        effects.transfers[-1].recipient,
    ) == (
        effects.addresses.wallet,
        effects.addresses.router,
    )
    _unwrap(effects, effects.addresses.router, effects.router_balances, amount_raw)
    effects.native_wei += amount_raw
    effects.unspent_leg_indices_by_token.pop(wrapped_native, None)
    source = LegPlace.WALLET if is_from_wallet else LegPlace.ROUTER
    effects.legs.append(
        _native_leg(wrapped_native, wrapped_native, NATIVE, amount_raw, source, LegPlace.WALLET)
    )


def _unwrap(effects: TransactionEffects, holder: str, balances: dict[str, int], raw: int) -> None:
    """Unwrap like WETH9.withdraw called by `holder`, whose balances are `balances`; the caller
    credits the native coin.
    """
    wrapped_native = effects.addresses.wrapped_native
    if balances.get(wrapped_native, 0) < raw:
        raise TransactionReverted("WETH9: balance")
    balances[wrapped_native] -= raw
    effects.wrap_transfers.append(Transfer(wrapped_native, holder, NATIVE, raw))


def _native_leg(
    wrapped_native: str,
    token_in: str,
    token_out: str,
    raw: int,
    source: LegPlace,
    sink: LegPlace,
) -> Leg:
    return Leg(
        pool=wrapped_native,
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


def _gas_units(
    effects: TransactionEffects,
    balances: Mapping[str, int],
    allowances: Mapping[str, int],
    pools: Mapping[str, Pool],
) -> int:
    """Return the gas according to the planner's model. A pool writes at most one observation in a
    transaction that moves its tick.
    """
    swap_units = 0
    observed_pools = set[str]()
    for pool, swap_result in effects.pools_and_results:
        moves_tick = pool.observation_key != swap_result.pool_after.observation_key
        swap_units += leg_gas_units(
            pool,
            swap_result.ticks_crossed,
            swap_result.stop_count,
            writes_observation=moves_tick and pool.address not in observed_pools,
        )
        if moves_tick:
            observed_pools.add(pool.address)
    return plan_gas_units(
        GasInputs(balances=balances, allowances=allowances, pools=pools), effects.legs, swap_units
    )
