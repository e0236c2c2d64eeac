"""Calls of the token screen: trials by TokenScreen, and calls as wallet, pool or spender, since
eth_call allows any sender.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from agent.artifacts import own_artifact
from agent.chain.lens import address_word, uint_word
from agent.chain.rpc import RpcCall, hex_data
from agent.chain.screening.moves import TokenMove
from agent.chain.tokens import encode_approve
from agent.model import Snapshot

UNLISTED_ADDRESS = "0x000000000000000000000000000000007472696D"
"""Address that no blocklist is expected to contain."""
MAX_CALL_GAS = 10_000_000
"""Gas of a single call; transfers and approvals take less than a tenth, fees of rollups included.
"""
TRANSFER_SELECTOR = bytes.fromhex("a9059cbb")
TRANSFER_FROM_SELECTOR = bytes.fromhex("23b872dd")


class CallRole(Enum):
    """What a single call tests: that a pool pays the payee; that the wallet, or the spender for it,
    pays the pool; that the spender's allowance can be reset, or set to the amount.
    """

    PAYEE = "payee"
    WALLET = "wallet"
    SPENDER = "spender"
    RESET = "reset"
    APPROVAL = "approval"


@dataclass(frozen=True, slots=True)
class SingleCall:
    """A call from the real sender of a token, for one transfer."""

    move: TokenMove
    role: CallRole
    rpc_call: RpcCall


def trial_call(move: TokenMove, block_ref: object) -> RpcCall:
    """Return a call of TokenScreen's creation code for a token and a pool. Each has its own call,
    since state persists within a call and a token can prevent rollback.
    """
    loan_addresses = bytes.fromhex(move.token[2:]) + bytes.fromhex(move.pool.contract[2:])
    packed_loan = (
        loan_addresses
        + bytes([move.pool_flags])
        + min(move.lent_raw, 2**128 - 1).to_bytes(16, "big")
    )
    request = bytes([1]) + packed_loan
    constructor_argument = (
        uint_word(32) + uint_word(len(request)) + request + bytes(-len(request) % 32)
    )
    return (
        "eth_call",
        [{"data": own_artifact("TokenScreen").bytecode + constructor_argument.hex()}, block_ref],
    )


def balance_raw(snapshot: Snapshot, token: str) -> int:
    """Return the wallet's balance of a token, base units; 0 if it was not read."""
    return next((holding.raw for holding in snapshot.holdings if holding.token == token), 0)


def single_calls(snapshot: Snapshot, move: TokenMove, block_ref: object) -> Iterator[SingleCall]:
    """Yield the transfers of one move by their real senders, within the balance and the
    allowance.
    """
    token = move.token
    pool = move.pool.contract
    wallet = snapshot.owner
    if move.payee is not None:
        payment = transfer_call(token, pool, move.payee, move.raw, block_ref)
        yield SingleCall(move, CallRole.PAYEE, payment)
    held_raw = balance_raw(snapshot, token)
    if move.spender is None or held_raw == 0:
        return
    tested_raw = min(move.raw, held_raw)
    sale = transfer_call(token, wallet, pool, tested_raw, block_ref)
    yield SingleCall(move, CallRole.WALLET, sale)
    spendable_raw = min(tested_raw, _allowance_raw(snapshot, token, move.spender) or 0)
    spending = transfer_from_call(token, move.spender, wallet, pool, spendable_raw, block_ref)
    yield SingleCall(move, CallRole.SPENDER, spending)


def approval_calls(
    snapshot: Snapshot, moves: Sequence[TokenMove], router: str, block_ref: object
) -> Iterator[SingleCall]:
    """Yield the approvals that the moves of one token need, as the wallet; and those of the router
    if it has an allowance left, since a token that is bought has to be sold some day.

    An allowance that is too small is reset first, or replaced if the token refuses zero. Each call is
    tried by itself, so that an approval after a reset is tried on the allowance before it: its
    failure counts only if the reset fails too.
    """
    needed_raw_by_spender: dict[str, int] = {}
    for move in moves:
        if move.spender is not None:
            needed_raw = needed_raw_by_spender.get(move.spender, 0) + move.raw
            needed_raw_by_spender[move.spender] = needed_raw
    token = moves[0].token
    if _allowance_raw(snapshot, token, router):
        needed_raw_by_spender.setdefault(router, max(move.raw for move in moves))
    for spender, needed_raw in needed_raw_by_spender.items():
        allowance_raw = _allowance_raw(snapshot, token, spender)
        if allowance_raw is None or allowance_raw >= needed_raw:
            continue
        move = replace(moves[0], spender=spender)
        roles = [(CallRole.APPROVAL, needed_raw)]
        if allowance_raw > 0:
            roles.insert(0, (CallRole.RESET, 0))
        for role, approved_raw in roles:
            yield SingleCall(
                move,
                role,
                _token_call(
                    snapshot.owner, token, encode_approve(spender, approved_raw), block_ref
                ),
            )


def _allowance_raw(snapshot: Snapshot, token: str, spender: str) -> int | None:
    """Return the base units that a spender may take; None if the allowance was not read."""
    return next(
        (
            allowance.raw
            for allowance in snapshot.allowances
            if (allowance.token, allowance.spender) == (token, spender)
        ),
        None,
    )


def transfer_call(
    token: str, sender: str, recipient: str, amount_raw: int, block_ref: object
) -> RpcCall:
    """Return a call of transfer by `sender`."""
    calldata = TRANSFER_SELECTOR + address_word(recipient) + uint_word(amount_raw)
    return _token_call(sender, token, hex_data(calldata), block_ref)


def transfer_from_call(
    token: str, spender: str, sender: str, recipient: str, amount_raw: int, block_ref: object
) -> RpcCall:
    """Return a call of transferFrom by `spender`."""
    calldata = (
        TRANSFER_FROM_SELECTOR
        + address_word(sender)
        + address_word(recipient)
        + uint_word(amount_raw)
    )
    return _token_call(spender, token, hex_data(calldata), block_ref)


def _token_call(sender: str, token: str, calldata_hex: str, block_ref: object) -> RpcCall:
    """Return a call of a token, with a bound on its gas: one that burns all a node allows must fail
    before the node's patience ends.
    """
    call = {"from": sender, "to": token, "data": calldata_hex, "gas": hex(MAX_CALL_GAS)}
    return "eth_call", [call, block_ref]
