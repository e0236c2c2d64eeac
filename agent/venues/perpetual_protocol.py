"""Calldata of Perpetual Protocol v2 (orders, margin, delegates), quotes by eth_call of the exact
transaction, and descriptions of revert codes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agent.chain.lens import abi_decode, abi_encode
from agent.chain.rpc import CallFailed, Transport, hex_data, parse_bytes
from agent.errors import Refused, Retryable
from agent.model import (
    DelegateChange,
    FuturesAction,
    Intent,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    OrderCancel,
    PerpOrder,
    PerpOrderKind,
    PerpQuote,
    Receipt,
    Snapshot,
    StopOrder,
    UnsignedTx,
)
from agent.ports import TransactionStatus
from agent.ports.perpetuals import PerpActionDraft
from agent.signing import calldata
from agent.signing.calldata import Approve, UndecodableCalldata, selector
from agent.signing.futures import FuturesCall
from agent.signing.futures import decode as decode_futures
from agent.units import UINT256_MAX

OPEN_POSITION_DELEGATE = 1
"""DelegateApproval: the delegate may trade but not withdraw."""
_ORDER_ABI = "(address,bool,bool,uint256,uint256,uint256,uint160,bytes32)"
_NO_REFERRAL = b"\0" * 32
_ERROR_SELECTOR = bytes.fromhex("08c379a0")

REVERT_DESCRIPTIONS = {
    "CH_EAV": "the account has enough margin and cannot be liquidated",
    "CH_MNO": "the market is not open",
    "CH_MP": "the market is paused",
    "CH_NEFCI": "not enough free margin for the initial margin",
    "CH_NEFCM": "not enough free margin for the maintenance margin",
    "CH_OMPS": "the mark price is too far from the index",
    "CH_PSZ": "there is no position to close",
    "CH_SHNAOPT": "the key is not a delegate of the account",
    "CH_TE": "the deadline has passed",
    "CH_TLRS": "the proceeds of the sale are below its bound",
    "CH_TMRL": "the cost of the purchase is above its bound",
    "EX_MIP": "the market is paused",
    "EX_OPB": "the price would leave the band around the index",
    "EX_OPLAS": "the price would move more than one block allows",
    "UB_UOA": "the virtual pool lacks the liquidity for this size",
    "V_GTSTBC": "the deposit exceeds the vault's cap",
    "V_NEFC": "the withdrawal exceeds the free collateral",
}
"""Descriptions of revert codes of ClearingHouse, Exchange, UniswapV3Broker and Vault that an
operator may see.
"""


OPEN_POSITION = selector(f"openPosition({_ORDER_ABI})")
OPEN_POSITION_FOR = selector(f"openPositionFor(address,{_ORDER_ABI})")
DEPOSIT = selector("deposit(address,uint256)")
WITHDRAW = selector("withdraw(address,uint256)")
APPROVE_DELEGATE = selector("approve(address,uint8)")
REVOKE_DELEGATE = selector("revoke(address,uint8)")


@dataclass(frozen=True, slots=True)
class PerpetualProtocolAddresses:
    """Contracts to which transactions go, and the account that trades. A delegate trades for
    another account: `trader` is then not the sender.
    """

    clearing_house: str
    vault: str
    delegate_approval: str
    trader: str


class PerpetualProtocol:
    """Implements ports.PerpVenue for the contracts of Perpetual Protocol v2. Orders go
    through the executor of the chain.
    """

    def __init__(
        self,
        contracts: PerpetualProtocolAddresses,
        wallet: str,
        collateral: str,
        validity_s: int,
        transport: Transport,
        status_of: Callable[[str], TransactionStatus],
    ) -> None:
        """Set the contracts, the wallet, the collateral token, and the sender's `status_of`. An
        order is valid for `validity_s`.
        """
        self._contracts = contracts
        self._wallet = wallet
        self._collateral = collateral
        self._validity_s = validity_s
        self._transport = transport
        self._status_of = status_of

    def read(self, snapshot: Snapshot) -> Snapshot:
        """See PerpVenue. The lens has already read the account with the snapshot."""
        return snapshot

    def quote(self, account: MarginAccount, order: PerpOrder) -> PerpQuote:
        """See PerpVenue. Quotes by `eth_call` of the exact transaction, without a deadline."""
        return quote_order(self._transport, order, self._contracts, self._wallet, UINT256_MAX)

    def draft(self, account: MarginAccount, action: FuturesAction, now_s: int) -> PerpActionDraft:
        """See PerpVenue. Returns a call of the clearing house, the vault or the delegate
        approval.
        """
        deadline_s = now_s + self._validity_s
        contract, call_data = futures_call(
            action, self._contracts, self._wallet, self._collateral, deadline_s
        )
        return PerpActionDraft(contract, call_data, deadline_s)

    def outcome(self, intent: Intent) -> Receipt | None:
        """See PerpVenue. Returns the receipt of the transaction."""
        return self._status_of(str(intent.tx_hash)).receipt


def encode_order(
    order: PerpOrder, contracts: PerpetualProtocolAddresses, sender: str, deadline_s: int
) -> str:
    """Return 0x-hex calldata of an order for the clearing house.

    A sale is exact base in with a minimum quote out, a purchase exact base out with a maximum quote
    in (ClearingHouse.openPosition). Raises Refused for a limit order, which this venue does not
    support, and for an order without a size or a bound.
    """
    if order.kind is not PerpOrderKind.MARKET:
        raise Refused(
            "Perpetual Protocol v2 has no limit orders", remedy="send a market order with a bound"
        )
    if not order.size_raw or order.bound_raw <= 0 or deadline_s <= 0:
        raise Refused("the order has no size, no bound or no deadline", remedy="plan again")
    is_sale = order.size_raw < 0
    order_fields = (
        order.market,
        is_sale,
        is_sale,
        abs(order.size_raw),
        order.bound_raw,
        deadline_s,
        0,
        _NO_REFERRAL,
    )
    if sender == contracts.trader:
        return hex_data(OPEN_POSITION + abi_encode([_ORDER_ABI], [order_fields]))
    return hex_data(
        OPEN_POSITION_FOR + abi_encode(["address", _ORDER_ABI], [contracts.trader, order_fields])
    )


def encode_deposit(token: str, deposit_raw: int) -> str:
    """Return 0x-hex calldata of a deposit of collateral into the vault."""
    return hex_data(DEPOSIT + abi_encode(["address", "uint256"], [token, deposit_raw]))


def encode_withdrawal(token: str, withdrawal_raw: int) -> str:
    """Return 0x-hex calldata of a withdrawal of collateral to the account."""
    return hex_data(WITHDRAW + abi_encode(["address", "uint256"], [token, withdrawal_raw]))


def encode_delegate(delegate: str, *, is_allowed: bool) -> str:
    """Return 0x-hex calldata that allows `delegate` to trade for the sender, or revokes it."""
    function_selector = APPROVE_DELEGATE if is_allowed else REVOKE_DELEGATE
    return hex_data(
        function_selector + abi_encode(["address", "uint8"], [delegate, OPEN_POSITION_DELEGATE])
    )


def decode_venue_call(
    tx: UnsignedTx, contracts: PerpetualProtocolAddresses
) -> FuturesCall | Approve | None:
    """Return the decoded call of a transaction to the venue or of an approval for its vault; None
    for any other transaction.
    """
    try:
        if tx.to in (contracts.clearing_house, contracts.vault):
            return decode_futures(calldata.data_bytes(tx.data))
        call = calldata.decode(tx.data)
    except UndecodableCalldata:
        return None
    return call if isinstance(call, Approve) and call.spender == contracts.vault else None


def futures_call(
    action: FuturesAction,
    contracts: PerpetualProtocolAddresses,
    sender: str,
    collateral: str,
    deadline_s: int,
) -> tuple[str, str]:
    """Return contract and 0x-hex calldata of an action. Raises Refused for an order that the venue
    does not support.
    """
    match action:
        case PerpOrder():
            return contracts.clearing_house, encode_order(action, contracts, sender, deadline_s)
        case MarginDeposit(raw):
            return contracts.vault, encode_deposit(collateral, raw)
        case MarginWithdrawal(raw):
            return contracts.vault, encode_withdrawal(collateral, raw)
        case DelegateChange(delegate, is_allowed):
            return contracts.delegate_approval, encode_delegate(delegate, is_allowed=is_allowed)
        case StopOrder() | OrderCancel():
            raise Refused("Perpetual Protocol v2 has no resting stops", remedy="plan again")


def quote_order(
    transport: Transport,
    order: PerpOrder,
    contracts: PerpetualProtocolAddresses,
    sender: str,
    deadline_s: int,
) -> PerpQuote:
    """Return the amounts that this exact transaction would exchange at the head, by eth_call.

    Raises Refused with a description of the revert, Retryable for any other failure.
    """
    call_data = encode_order(order, contracts, sender, deadline_s)
    call_params = {"from": sender, "to": contracts.clearing_house, "data": call_data}
    try:
        answer = transport.call("eth_call", [call_params, "latest"])
    except CallFailed as error:
        code = revert_code(error.fault.revert_data, error.fault.message)
        if not code:
            raise
        raise Refused(
            f"the order reverts: {REVERT_DESCRIPTIONS[code]} ({code})", remedy="plan again"
        ) from None
    answer_bytes = parse_bytes(answer, "quote of an order")
    word_count = 2 if sender == contracts.trader else 3  # openPositionFor returns a fee too
    if len(answer_bytes) != 32 * word_count:
        raise Retryable(
            f"the quote of an order does not have {word_count} words", "try another endpoint"
        )
    size_raw, quote_raw = abi_decode(["uint256", "uint256"], answer_bytes[:64])
    if size_raw != abs(order.size_raw):
        raise Refused(
            f"the market fills {size_raw} of {abs(order.size_raw)} base units",
            remedy="send a smaller order",
        )
    return PerpQuote(size_raw, quote_raw)


def revert_code(data: str, message: str) -> str:
    """Return the code of a revert, one of REVERT_DESCRIPTIONS, from its data or the node's message;
    empty without one.
    """
    revert_bytes = bytes.fromhex(data.removeprefix("0x")) if data else b""
    if revert_bytes[:4] == _ERROR_SELECTOR:
        try:
            (reason,) = abi_decode(["string"], revert_bytes[4:])
        except Exception:  # eth-abi raises various errors; the reason is unreadable
            return ""
        return reason if reason in REVERT_DESCRIPTIONS else ""
    message_words = re.findall(r"\w+", message)
    return next((code for code in REVERT_DESCRIPTIONS if code in message_words), "")


def explain_revert(reason: str) -> str:
    """Return why a simulation failed, with the description of its revert code."""
    code = revert_code("", reason)
    return f"{REVERT_DESCRIPTIONS[code]} ({code})" if code else reason
