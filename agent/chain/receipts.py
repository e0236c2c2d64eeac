"""Outcome of transactions: receipts, transactions found by nonce or Safe hash, revert reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.amm import POOL_KINDS
from agent.amm.swap_errors import TOO_LITTLE_MESSAGE
from agent.chain.endpoints import EndpointPool
from agent.chain.lens import abi_decode
from agent.chain.perpetuals import with_perp_events
from agent.chain.quorum import confirmed_value
from agent.chain.rpc import (
    CallFailed,
    Log,
    RpcFault,
    Transport,
    address_of,
    emitter,
    hex_data,
    parse_bytes,
    parse_quantity,
    parse_recipient,
    scrub,
    topics_of,
)
from agent.codec import json_field
from agent.errors import ErrorCode, PassingFault, Retryable, TrimtabError
from agent.model import DataFeeKind, LiquidityAdded, ManagedSwap, Receipt, Transfer
from agent.signing.calldata import selector
from agent.units import NATIVE

TRANSFER_TOPIC = hex_data(keccak(text="Transfer(address,address,uint256)"))
INCREASE_LIQUIDITY_TOPIC = hex_data(
    keccak(text="IncreaseLiquidity(uint256,uint128,uint256,uint256)")
)
DEPOSIT_TOPIC = hex_data(keccak(text="Deposit(address,uint256)"))
WITHDRAWAL_TOPIC = hex_data(keccak(text="Withdrawal(address,uint256)"))
_GIFT_DIVISOR = 100
"""Share of a swap's input, as a divisor, up to which others' coin in it leaves it recognised."""
MANAGED_SWAP_TOPIC = hex_data(
    keccak(text="Swap(bytes32,address,int128,int128,uint160,uint128,int24,uint24)")
)


def parse_receipt(
    receipt_json: Mapping[str, object], tx_hash: str, data_fee_kind: DataFeeKind = DataFeeKind.PLAIN
) -> Receipt:
    """Parse a receipt. Raises Retryable if it belongs to another transaction or is inconsistent,
    also with the fees of the chain (`data_fee_kind`).
    """
    if (
        hex_data(parse_bytes(receipt_json.get("transactionHash"), "transaction hash", 32))
        != tx_hash.lower()
    ):
        raise Retryable(
            "the endpoint sent the receipt of another transaction", code=ErrorCode.ANSWER
        )
    logs = receipt_json.get("logs")
    if not isinstance(logs, list):
        raise Retryable("the endpoint's receipt has no logs", code=ErrorCode.ANSWER)
    if not all(isinstance(log, Mapping) for log in logs):
        raise Retryable(
            "the endpoint's receipt has a log entry that is not an object", code=ErrorCode.ANSWER
        )
    gas_used = parse_quantity(receipt_json.get("gasUsed"), "gas used")
    receipt = Receipt(
        tx_hash=tx_hash,
        status=parse_quantity(receipt_json.get("status"), "receipt status"),
        block_number=parse_quantity(receipt_json.get("blockNumber"), "block number"),
        block_hash=hex_data(parse_bytes(receipt_json.get("blockHash"), "block hash", 32)),
        gas_used=gas_used,
        effective_gas_price_wei=parse_quantity(
            receipt_json.get("effectiveGasPrice"), "effective gas price"
        ),
        transfers=tuple(transfer for log in logs if (transfer := _transfer(log)) is not None),
        liquidity_added=_added_liquidity(logs),
        wrap_transfers=_wrap_transfers(logs),
        data_fee_wei=_data_fee_wei(receipt_json, gas_used, data_fee_kind),
        managed_swaps=tuple(swap for log in logs if (swap := _managed_swap(log)) is not None),
    )
    return with_perp_events(receipt, logs)


_ISTHMUS_UNIT = 10**6
_JOVIAN_FACTOR = 100
"""Operator fee per gas: scalar / 10^6 since Isthmus, scalar · 100 since Jovian, whose receipts have
a daFootprintGasScalar (specs.optimism.io; op-geth, core/types/rollup_cost.go)."""


def _data_fee_wei(
    receipt_json: Mapping[str, object], gas_used: int, data_fee_kind: DataFeeKind
) -> int:
    """Return data fee and operator fee of a receipt, wei.

    A live OP Stack chain names `l1Fee` in every receipt, and the operator fee's two parameters
    unless both are zero; other supported chains name none of them.
    """
    l1_fee = receipt_json.get("l1Fee")
    if data_fee_kind in (DataFeeKind.PLAIN, DataFeeKind.ARBITRUM):
        if l1_fee is not None and parse_quantity(l1_fee, "l1Fee"):
            raise Retryable(
                "the endpoint's receipt has a data fee (l1Fee), which this chain does not charge",
                "check chain.chain_id and the endpoint",
                code=ErrorCode.ANSWER,
            )
        return 0
    if l1_fee is None:
        if data_fee_kind is DataFeeKind.OP_STACK_COPY:
            return 0
        raise Retryable(
            "the endpoint's receipt lacks the data fee (l1Fee) that this chain charges",
            "use another endpoint; for a local copy of the chain, write chain.fork = true",
            code=ErrorCode.ANSWER,
        )
    operator_fee_scalar = receipt_json.get("operatorFeeScalar")
    operator_fee_constant = receipt_json.get("operatorFeeConstant")
    l1_fee_wei = parse_quantity(l1_fee, "l1Fee")
    if operator_fee_scalar is None and operator_fee_constant is None:
        return l1_fee_wei
    operator_fee_wei = parse_quantity(operator_fee_scalar, "operatorFeeScalar") * gas_used
    if receipt_json.get("daFootprintGasScalar") is None:
        operator_fee_wei //= _ISTHMUS_UNIT
    else:
        operator_fee_wei *= _JOVIAN_FACTOR
    return (
        l1_fee_wei + operator_fee_wei + parse_quantity(operator_fee_constant, "operatorFeeConstant")
    )


def _transfer(log: Log) -> Transfer | None:
    """Return the ERC-20 Transfer of a log entry; None for any other event (an NFT's has four topics
    and no data).
    """
    topics = topics_of(log, TRANSFER_TOPIC, 3)
    log_data = log.get("data")
    if topics is None:
        return None
    amount_bytes = parse_bytes(log_data, "log data")
    if len(amount_bytes) != 32:
        return None
    return Transfer(
        token=emitter(log),
        sender=address_of(topics[1]),
        recipient=address_of(topics[2]),
        raw=int.from_bytes(amount_bytes, "big"),
    )


def _wrap_transfer(log: Log) -> Transfer | None:
    """Return a log entry's Deposit or Withdrawal of WETH9, as a transfer from or to the zero
    address.
    """
    for event_topic in (DEPOSIT_TOPIC, WITHDRAWAL_TOPIC):
        topics = topics_of(log, event_topic, 2)
        if topics is not None and len(log_data := parse_bytes(log.get("data"), "log data")) == 32:
            account = address_of(topics[1])
            wrapped_raw = int.from_bytes(log_data, "big")
            if event_topic == DEPOSIT_TOPIC:
                return Transfer(emitter(log), NATIVE, account, wrapped_raw)
            return Transfer(emitter(log), account, NATIVE, wrapped_raw)
    return None


def _wrap_transfers(logs: Sequence[Log]) -> tuple[Transfer, ...]:
    """Return Deposit and Withdrawal events in order, without those of coin that the PoolManager
    takes in a later swap: no holder gets it. Other contracts may write events between the two, and
    may give coin that the swap takes too.
    """
    wrap_transfers: list[Transfer] = []
    unpaid_swaps = [
        (log_index, swap) for log_index, log in enumerate(logs) if (swap := _managed_swap(log))
    ]
    for log_index, log in enumerate(logs):
        if (wrap := _wrap_transfer(log)) is None:
            continue
        max_in_raw = wrap.raw + wrap.raw // _GIFT_DIVISOR
        paid_swaps = [
            (swap_log_index, swap)
            for swap_log_index, swap in unpaid_swaps
            if swap_log_index > log_index and wrap.raw <= swap.in_raw <= max_in_raw
        ]
        if wrap.recipient != NATIVE or not paid_swaps:
            wrap_transfers.append(wrap)
        else:
            unpaid_swaps.remove(paid_swaps[0])
    return tuple(wrap_transfers)


def _managed_swap(log: Log) -> ManagedSwap | None:
    """Return the Swap event of V4's PoolManager, whose amounts are changes of the caller's
    balance.
    """
    topics = topics_of(log, MANAGED_SWAP_TOPIC, 3)
    if topics is None or len(log_data := parse_bytes(log.get("data"), "log data")) != 192:
        return None
    balance_changes_raw = [
        int.from_bytes(log_data[word_offset : word_offset + 32], "big", signed=True)
        for word_offset in (0, 32)
    ]
    return ManagedSwap(
        hex_data(parse_bytes(topics[1], "log topic", 32)),
        -min(balance_changes_raw),
        max(balance_changes_raw),
    )


def _added_liquidity(logs: Sequence[Log]) -> tuple[LiquidityAdded, ...]:
    """Return IncreaseLiquidity events in order. The recipient of a minted token is in the preceding
    ERC-721 Transfer from zero.
    """
    mint_recipients: dict[tuple[str, int], str] = {}
    added_positions = []
    for log in logs:
        mint_topics = topics_of(log, TRANSFER_TOPIC, 4)
        if mint_topics is not None and address_of(mint_topics[1]) == NATIVE:
            mint_recipients[emitter(log), _topic_number(mint_topics[3])] = address_of(
                mint_topics[2]
            )
        increase_topics = topics_of(log, INCREASE_LIQUIDITY_TOPIC, 2)
        if increase_topics is None:
            continue
        log_data = parse_bytes(log.get("data"), "log data")
        if len(log_data) != 96:
            continue
        liquidity, amount0, amount1 = (
            int.from_bytes(log_data[word_offset : word_offset + 32], "big")
            for word_offset in (0, 32, 64)
        )
        manager = emitter(log)
        token_id = _topic_number(increase_topics[1])
        added_positions.append(
            LiquidityAdded(
                manager,
                token_id,
                liquidity,
                (amount0, amount1),
                mint_recipients.get((manager, token_id)),
            )
        )
    return tuple(added_positions)


def _topic_number(topic: object) -> int:
    return int.from_bytes(parse_bytes(topic, "log topic", 32), "big")


BLOCKS_PER_REQUEST = 1_000
"""Blocks per event request; the limit of free endpoints."""
MAX_REQUESTS = 2_000
"""Event requests for one search: two million blocks, 5.8 days on a chain with four a second."""
RECENT_BLOCKS = 120
"""Recent blocks whose nonces every node knows; older ones need an archive node."""
EXECUTION_SUCCESS_TOPIC = hex_data(keccak(text="ExecutionSuccess(bytes32,uint256)"))
"""Execution event of a Safe. The call's hash is the first topic since version 1.4, and the first
data word in earlier versions.
"""
EXECUTION_FAILURE_TOPIC = hex_data(keccak(text="ExecutionFailure(bytes32,uint256)"))
"""Event of a call that failed and used a nonce of the Safe."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TxAtNonce:
    """Mined transaction of the wallet: hash, block, recipient, value and calldata."""

    tx_hash: str
    block_number: int
    to: str
    value_wei: int
    calldata: str


@dataclass(frozen=True, slots=True)
class SafeExecution:
    """Mined transaction in which a Safe executed the call with this hash."""

    tx_hash: str
    block_number: int
    safe_tx_hash: str


def find_tx_by_nonce(
    endpoint_pool: EndpointPool, owner: str, nonce: int, since_block: int, head_block: int
) -> TxAtNonce | None:
    """Return the transaction of `owner` with `nonce` in a block range, agreed by enough operators;
    None if there is none.
    """
    return _agreed_answer(
        endpoint_pool,
        lambda transport: _find_by_nonce(transport, owner, nonce, since_block, head_block),
        f"the transaction of nonce {nonce}",
    )


def find_safe_execution(
    endpoint_pool: EndpointPool,
    safe: str,
    safe_tx_hash: str | None,
    is_used_at: Callable[[Transport, int], bool],
    since_block: int,
    head_block: int,
) -> SafeExecution | None:
    """Return the transaction in which `safe` executed the call with this hash, or with None the
    first in which it executed any call, with success or not; agreed by enough operators. None if
    there is none. `is_used_at` reads from a node whether the call's nonce is used after a block.

    Raises Retryable if the nodes keep too few states to say where among too many blocks it is.
    """

    def execution_by(transport: Transport) -> SafeExecution | None:
        blocks = _blocks_of_use(partial(is_used_at, transport), since_block, head_block)
        return _find_execution(transport, safe, safe_tx_hash, blocks)

    return _agreed_answer(endpoint_pool, execution_by, "the execution by the Safe")


def _agreed_answer(
    endpoint_pool: EndpointPool, question: Callable[[Transport], T], subject: str
) -> T:
    poll = endpoint_pool.ask(question)
    endpoint_pool.require_quorum(poll)
    return confirmed_value(
        [(endpoint.operator, answer) for endpoint, answer in poll.answers.items()],
        endpoint_pool.min_operators,
        subject,
    )


def _find_by_nonce(
    transport: Transport, owner: str, nonce: int, since_block: int, head_block: int
) -> TxAtNonce | None:
    def is_used_at(block_number: int) -> bool:
        answer = transport.call("eth_getTransactionCount", [owner, hex(block_number)])
        return parse_quantity(answer, "nonce") > nonce

    if not is_used_at(head_block):
        return None
    free_block, used_block, missing_state = _bisect_use(is_used_at, since_block, head_block)
    if missing_state is not None:
        raise missing_state
    if 0 <= free_block < since_block and is_used_at(free_block):
        return None
    block = transport.call("eth_getBlockByNumber", [hex(used_block), True])
    transactions = json_field(block, "transactions")
    if not isinstance(transactions, list):
        raise Retryable(f"{transport.name} does not have block {used_block}", code=ErrorCode.ANSWER)
    for tx in transactions:
        if _is_sent_with(tx, owner, nonce):
            return TxAtNonce(
                hex_data(parse_bytes(tx.get("hash"), "transaction hash", 32)),
                used_block,
                parse_recipient(tx.get("to")),
                parse_quantity(tx.get("value"), "value"),
                hex_data(parse_bytes(tx.get("input"), "calldata")),
            )
    raise Retryable(
        f"{transport.name} reports nonce {nonce} used in block {used_block}, but lists no such transaction",
        code=ErrorCode.ANSWER,
    )


def _bisect_use(
    is_used_at: Callable[[int], bool], since_block: int, head_block: int
) -> tuple[int, int, TrimtabError | None]:
    """Return the last block after which a nonce is known to be free (unasked, the one before
    `since_block`), the first after which it is known to be used, and, if there are blocks between
    them, the error with which the node refused their states. It is used after `head_block`.
    """
    free_block = low_block = since_block - 1
    used_block = head_block
    missing_state: TrimtabError | None = None
    # the nonce is used after block `used_block`, unused or unknown after block `low_block`
    while used_block - low_block > 1:
        middle_block = (low_block + used_block) // 2
        try:
            is_used = is_used_at(middle_block)
        except (CallFailed, PassingFault) as error:  # most nodes keep the newest states alone
            missing_state = error
            low_block = middle_block
            continue
        if is_used:
            used_block = middle_block
        else:
            missing_state = None
            free_block = low_block = middle_block
    return free_block, used_block, missing_state


def _blocks_of_use(is_used_at: Callable[[int], bool], since_block: int, head_block: int) -> range:
    """Return the blocks in which a nonce was used as far as a node's states show: a single one of a
    node that keeps them all, none while it is free. All since `since_block` of a node that has it
    used before, as one does that answers for its newest state alone.
    """
    if not is_used_at(head_block):
        return range(0)
    free_block, used_block, _ = _bisect_use(is_used_at, since_block, head_block)
    if 0 <= free_block < since_block == used_block:
        with suppress(CallFailed, PassingFault):
            if is_used_at(free_block):
                used_block = head_block
    return range(free_block + 1, used_block + 1)


def _is_sent_with(tx: object, owner: str, nonce: int) -> bool:
    return (
        isinstance(tx, Mapping)
        and str(tx.get("from", "")).lower() == owner.lower()
        and parse_quantity(tx.get("nonce"), "nonce") == nonce
    )


def _find_execution(
    transport: Transport, safe: str, safe_tx_hash: str | None, blocks: range
) -> SafeExecution | None:
    event_topics = [EXECUTION_SUCCESS_TOPIC]
    if safe_tx_hash is None:
        event_topics.append(EXECUTION_FAILURE_TOPIC)
    if len(blocks) > MAX_REQUESTS * BLOCKS_PER_REQUEST:
        raise Retryable(
            f"{transport.name} keeps no states of the {len(blocks)} blocks in which the Safe {safe}"
            " executed a call, and they are too many to search",
            "list endpoints in chain.rpc that keep old states (archive nodes)",
            code=ErrorCode.OLD_BLOCKS,
        )
    for start_block in blocks[::BLOCKS_PER_REQUEST]:
        end_block = min(blocks[-1], start_block + BLOCKS_PER_REQUEST - 1)
        log_filter = {
            "address": safe,
            "fromBlock": hex(start_block),
            "toBlock": hex(end_block),
            "topics": [event_topics],
        }
        logs = transport.call("eth_getLogs", [log_filter])
        if not isinstance(logs, list):
            raise Retryable(
                f"{transport.name} returned events that are not a list", code=ErrorCode.ANSWER
            )
        for log in logs:
            executed_hash = _executed_hash(log, safe, event_topics)
            if executed_hash is None or safe_tx_hash not in (None, executed_hash):
                continue
            block_number = parse_quantity(log.get("blockNumber"), "block number")
            if start_block <= block_number <= end_block:
                tx_hash = hex_data(parse_bytes(log.get("transactionHash"), "transaction hash", 32))
                return SafeExecution(tx_hash, block_number, executed_hash)
    return None


def _executed_hash(log: object, safe: str, event_topics: Sequence[str]) -> str | None:
    """Return the hash of the call of which the Safe emitted one of the events; None for another log,
    since endpoints may return more than requested.
    """
    if not isinstance(log, Mapping) or str(log.get("address", "")).lower() != safe.lower():
        return None
    topics = log.get("topics")
    if not isinstance(topics, list) or not topics or topics[0] not in event_topics:
        return None
    executed_hash = (
        str(topics[1])
        if len(topics) > 1
        else hex_data(parse_bytes(log.get("data"), "log data")[:32])
    )
    return executed_hash.lower()


def find_mined_hash(
    endpoint_pool: EndpointPool, owner: str, nonce: int, head_block: int
) -> str | None:
    """Return the hash of the mined transaction of `owner` with `nonce`, agreed by enough operators;
    None if they do not show it, for example because they keep no old states.
    """
    for since_block in (max(0, head_block - RECENT_BLOCKS), 0):
        try:
            nonce_tx = find_tx_by_nonce(endpoint_pool, owner, nonce, since_block, head_block)
        except TrimtabError:
            continue
        if nonce_tx is not None:
            return nonce_tx.tx_hash
    return None


def find_conflicting_hash(
    endpoint_pool: EndpointPool, owner: str, nonce: int, head_block: int
) -> str | None:
    """Return the hash of the mined or pending transaction of `owner` with `nonce`; None if no
    endpoint knows it. Used in messages to the operator, never for decisions.
    """
    mined_hash = find_mined_hash(endpoint_pool, owner, nonce, head_block)
    if mined_hash is not None:
        return mined_hash
    poll = endpoint_pool.ask(lambda transport: _find_pending_hash(transport, owner, nonce))
    return next(
        (
            pending_tx_hash
            for pending_tx_hash in poll.answers.values()
            if pending_tx_hash is not None
        ),
        None,
    )


def _find_pending_hash(transport: Transport, owner: str, nonce: int) -> str | None:
    block = transport.call("eth_getBlockByNumber", ["pending", True])
    transactions = json_field(block, "transactions")
    for tx in transactions if isinstance(transactions, list) else []:
        try:
            if _is_sent_with(tx, owner, nonce):
                return hex_data(parse_bytes(tx.get("hash"), "transaction hash", 32))
        except Retryable:
            continue
    return None


_ERROR_SELECTOR = selector("Error(string)")
_PANIC_SELECTOR = selector("Panic(uint256)")
_MAX_REVERT_TEXT_LENGTH = 120
_REVERT_PREFIXES = (
    "execution reverted: ",
    "execution reverted",
    "VM Exception while processing transaction: revert ",
    "revert: ",
    "reverted: ",
)

REVERT_MESSAGES = {
    revert_text: description
    for pool_kind in POOL_KINDS.values()
    for revert_text, description in pool_kind.revert_messages.items()
}
"""Descriptions of the revert reasons of the venues' contracts."""

_TOKEN_ERRORS = {
    "ERC20InsufficientBalance(address,uint256,uint256)": "the balance of a token is too small",
    "ERC20InsufficientAllowance(address,uint256,uint256)": "the allowance of a token is too small",
    "ERC20InvalidReceiver(address)": "a token refuses the recipient",
    "ERC20InvalidSpender(address)": "a token refuses the spender",
    "SafeERC20FailedOperation(address)": "a token's transfer or approval failed",
    "EnforcedPause()": "a token or contract is paused",
    "InsufficientBalance()": "a balance is too small",
    "InsufficientAllowance()": "an allowance is too small",
    "TransferFailed()": "a token's transfer failed",
    "TransferFromFailed()": "a token could not be taken from the wallet",
}
_REBALANCER_ERRORS = {
    "Expired()": "the deadline has passed",
    "Reentered()": ("reentrant call of the Rebalancer: a token or pool of the plan calls back"),
    "Malformed()": "the Rebalancer cannot decode the program",
    "NotAwaited()": (
        "a caller other than the pool of the current swap requested payment from the Rebalancer"
    ),
    "TooMuchAsked()": "a pool requested more than its swap pays",
    "NoSuchPool(uint256)": "swap {}: the venue's factory has no such pool",
    "TooLittleOut(uint256)": f"swap {{}}: {TOO_LITTLE_MESSAGE}",
    "FilledInPart(uint256)": (
        "swap {}: the pool took only part of the amount: it is short of liquidity"
    ),
    "TokenRefused(address)": (
        "token {} could not be transferred or read: the balance or allowance is too small, or the"
        " token forbids it"
    ),
    "BelowBound(address)": (
        "the wallet's {} would change by less than the plan's bound: more spent, or less received"
    ),
    "BelowFloor(int256)": (
        "the wallet's value would change by {} base units of the numeraire, less than the plan's"
        " floor"
    ),
    "NeverCalledBack(uint256)": "swap {}: the pool did not ask for its payment",
    "NativeRefused()": (
        "native coin could not be sent to the wallet, or did not come from the wrapped-coin contract"
    ),
}
"""Descriptions of the errors of contracts/src/Rebalancer.sol; {} stands for the argument."""
CUSTOM_ERRORS = {
    selector(signature): (signature, description)
    for signature, description in (_TOKEN_ERRORS | _REBALANCER_ERRORS).items()
}
"""Custom errors of token libraries and of the Rebalancer by selector: signature, description."""

_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "invalid enum value",
    0x32: "an index is out of bounds",
    0x41: "out of memory",
}


def revert_reason(fault: RpcFault) -> str:
    """Return why a call failed, with the contract's text in parentheses; safe characters only
    (T17).
    """
    if fault.revert_data not in ("", "0x"):
        return _reason_from_data(bytes.fromhex(fault.revert_data[2:]))
    revert_text = fault.message
    for prefix in _REVERT_PREFIXES:
        revert_text = revert_text.removeprefix(prefix)
    revert_text = revert_text.strip(" :'")
    return revert_message(revert_text) if revert_text else "reverted without a reason"


def revert_message(revert_text: str) -> str:
    """Describe a contract's revert text. A text missing from the table is returned truncated and
    sanitised.
    """
    safe_text = scrub(revert_text)[:_MAX_REVERT_TEXT_LENGTH]
    return (
        f"{REVERT_MESSAGES[revert_text]} ({safe_text})"
        if revert_text in REVERT_MESSAGES
        else safe_text
    )


def _reason_from_data(revert_data: bytes) -> str:
    error_selector = revert_data[:4]
    argument_data = revert_data[4:]
    if error_selector == _ERROR_SELECTOR:
        try:
            return revert_message(str(abi_decode(["string"], argument_data)[0]))
        except Exception:  # eth_abi raises many error types on malformed bytes
            return "reverted with a reason that cannot be decoded"
    if error_selector == _PANIC_SELECTOR and len(argument_data) == 32:
        panic_code = int.from_bytes(argument_data, "big")
        return (
            f"the contract panicked: {_PANICS.get(panic_code, 'panic')} (Panic 0x{panic_code:02x})"
        )
    if error_selector in CUSTOM_ERRORS:
        signature, description = CUSTOM_ERRORS[error_selector]
        error_name, _, argument_types = signature.rstrip(")").partition("(")
        return (
            f"{description.format(_error_argument(argument_types, argument_data))} ({error_name})"
        )
    if len(error_selector) == 4:
        return f"reverted with custom error 0x{error_selector.hex()}"
    return "reverted with data that cannot be decoded"


def _error_argument(abi_type: str, argument_data: bytes) -> str:
    """Return the single value carried by a Rebalancer error."""
    word = argument_data[:32]
    if len(word) != 32:
        return "?"
    if abi_type == "address":
        return str(to_checksum_address(word[12:]))
    return str(int.from_bytes(word, "big", signed=abi_type == "int256"))
