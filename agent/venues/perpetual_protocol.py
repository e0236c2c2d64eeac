"""Calldata of Perpetual Protocol v2 (orders, margin, delegates), quotes by eth_call of the
transaction itself, and descriptions of revert codes.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.chain.lens import abi_decode, abi_encode
from agent.chain.rpc import CallFailed, Transport, parse_bytes
from agent.errors import Refused, Retryable
from agent.model.futures import PerpOrder, PerpOrderKind
from agent.signing.calldata import selector

OPEN_POSITION_DELEGATE = 1
"""DelegateApproval: the delegate may trade and can withdraw nothing."""
_ORDER = "(address,bool,bool,uint256,uint256,uint256,uint160,bytes32)"
_NO_REFERRAL = b"\0" * 32
_ERROR_STRING = bytes.fromhex("08c379a0")

REVERTS = {
    "CH_EAV": "the account is worth enough: it cannot be liquidated",
    "CH_MNO": "the market is not open",
    "CH_MP": "the market is paused",
    "CH_NEFCI": "not enough free margin for the initial margin",
    "CH_NEFCM": "not enough free margin for the maintenance margin",
    "CH_OMPS": "the market is too far from its index",
    "CH_PSZ": "there is no position to close",
    "CH_SHNAOPT": "the key is no delegate of the account",
    "CH_TE": "the deadline has passed",
    "CH_TLRS": "the sale brings less than its bound",
    "CH_TMRL": "the purchase costs more than its bound",
    "EX_MIP": "the market is paused",
    "EX_OPB": "the price would leave the band around the index",
    "EX_OPLAS": "the price would leave the band of one block",
    "V_GTSTBC": "the deposit exceeds the vault's cap",
    "V_NEFC": "more is withdrawn than is free",
}
"""Descriptions of revert codes of ClearingHouse, Exchange and Vault that an operator may see."""


OPEN_POSITION = selector(f"openPosition({_ORDER})")
OPEN_POSITION_FOR = selector(f"openPositionFor(address,{_ORDER})")
DEPOSIT = selector("deposit(address,uint256)")
WITHDRAW = selector("withdraw(address,uint256)")
APPROVE_DELEGATE = selector("approve(address,uint8)")
REVOKE_DELEGATE = selector("revoke(address,uint8)")


@dataclass(frozen=True, slots=True)
class PerpContracts:
    """Contracts that transactions go to, and the account that trades. A delegate trades for another
    account: `trader` is then not the sender.
    """

    clearing_house: str
    vault: str
    delegate_approval: str
    trader: str


@dataclass(frozen=True, slots=True)
class PerpQuote:
    """Amounts that an order exchanges, in base units: size, and quote without the fee."""

    size_raw: int
    quote_raw: int


def encode_order(order: PerpOrder, contracts: PerpContracts, sender: str, deadline_s: int) -> str:
    """Return 0x-hex calldata of an order for the clearing house.

    A sale is exact base in with the least quote out, a purchase exact base out with the most quote
    in (ClearingHouse.openPosition). Raises Refused for a limit order, which this venue does not
    have, and for one without a size or a bound.
    """
    if order.kind is not PerpOrderKind.MARKET:
        raise Refused(
            "Perpetual Protocol v2 has no limit orders", remedy="send a market order with a bound"
        )
    if not order.size_raw or order.bound_raw <= 0 or deadline_s <= 0:
        raise Refused("the order has no size, no bound or no deadline", remedy="plan again")
    sells = order.size_raw < 0
    fields = (
        order.market,
        sells,
        sells,
        abs(order.size_raw),
        order.bound_raw,
        deadline_s,
        0,
        _NO_REFERRAL,
    )
    if sender == contracts.trader:
        return _hex(OPEN_POSITION + abi_encode([_ORDER], [fields]))
    return _hex(OPEN_POSITION_FOR + abi_encode(["address", _ORDER], [contracts.trader, fields]))


def encode_deposit(token: str, raw: int) -> str:
    """Return 0x-hex calldata of a deposit of collateral into the vault."""
    return _hex(DEPOSIT + abi_encode(["address", "uint256"], [token, raw]))


def encode_withdrawal(token: str, raw: int) -> str:
    """Return 0x-hex calldata of a withdrawal of collateral to the account."""
    return _hex(WITHDRAW + abi_encode(["address", "uint256"], [token, raw]))


def encode_delegate(delegate: str, *, is_allowed: bool) -> str:
    """Return 0x-hex calldata that lets `delegate` trade for the sender, or ends that."""
    selector = APPROVE_DELEGATE if is_allowed else REVOKE_DELEGATE
    return _hex(selector + abi_encode(["address", "uint8"], [delegate, OPEN_POSITION_DELEGATE]))


def quote_order(
    transport: Transport,
    order: PerpOrder,
    contracts: PerpContracts,
    sender: str,
    deadline_s: int,
    block: object = "latest",
) -> PerpQuote:
    """Return the amounts that exactly this transaction would exchange at a block, by eth_call.

    Raises Refused with a description of the revert, Retryable for any other failure.
    """
    data = encode_order(order, contracts, sender, deadline_s)
    call = {"from": sender, "to": contracts.clearing_house, "data": data}
    try:
        answer = transport.call("eth_call", [call, block])
    except CallFailed as failed:
        code = revert_code(failed.fault.data, failed.fault.message)
        if code not in REVERTS:
            raise
        raise Refused(f"the order reverts: {REVERTS[code]} ({code})", remedy="plan again") from None
    words = parse_bytes(answer, "quote of an order")
    if len(words) != 64:
        raise Retryable("the quote of an order is not two words", "try another endpoint")
    size_raw, quote_raw = abi_decode(["uint256", "uint256"], words)
    if size_raw != abs(order.size_raw):
        raise Refused(
            f"the market fills {size_raw} of {abs(order.size_raw)} base units",
            remedy="send a smaller order",
        )
    return PerpQuote(size_raw, quote_raw)


def revert_code(data: str, message: str) -> str:
    """Return the code of a revert such as CH_TLRS, from its data or the node's message; empty
    without one.
    """
    raw = bytes.fromhex(data.removeprefix("0x")) if data else b""
    if raw[:4] == _ERROR_STRING:
        try:
            return str(abi_decode(["string"], raw[4:])[0])
        except Exception:  # eth-abi raises various errors; any is no reason
            return ""
    return next((code for code in REVERTS if code in message.split()), "")


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
