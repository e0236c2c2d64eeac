"""Says in words why a transaction would revert: Error(string), Panic(uint256), custom errors, Uniswap's terse codes."""

from __future__ import annotations

from eth_utils.address import to_checksum_address

from agent.chain.abi import abi_decode
from agent.chain.calls import selector
from agent.chain.wire import RpcFault, scrub

_ERROR = selector("Error(string)")
_PANIC = selector("Panic(uint256)")
_MAX_TEXT = 120
_PREFIXES = ("execution reverted: ", "execution reverted", "VM Exception while processing transaction: revert ", "revert: ", "reverted: ")

_TOO_LITTLE = "a pool would pay less than the plan's minimum: the market moved since the snapshot"
_UNPAID = "a token could not be taken from the wallet: balance or allowance is too small, or the token forbids it"

WORDS = {
    "Too little received": _TOO_LITTLE,
    "UniswapV2Router: INSUFFICIENT_OUTPUT_AMOUNT": _TOO_LITTLE,
    "Too much requested": "a pool would ask for more than the plan's maximum: the market moved since the snapshot",
    "Transaction too old": "the deadline has passed",
    "UniswapV2Router: EXPIRED": "the deadline has passed",
    "STF": _UNPAID,
    "TransferHelper: TRANSFER_FROM_FAILED": _UNPAID,
    "TransferHelper::transferFrom: transferFrom failed": _UNPAID,
    "ST": "a token could not be sent on by the router",
    "TF": "a token could not be sent on by the pool",
    "UniswapV2: TRANSFER_FAILED": "a token could not be sent on by the pool",
    "SA": "a token refused an approval",
    "STE": "the native coin could not be sent on",
    "AS": "the amount to swap is zero",
    "IIA": "the pool was not paid: the token takes a fee on transfer, or transfers less than it says",
    "LOK": "the pool is locked: it is being called from inside itself, or was never initialised",
    "UniswapV2: LOCKED": "the pool is locked: it is being called from inside itself",
    "SPL": "the price limit lies on the wrong side of the pool's price",
    "L": "the pool has no liquidity to swap against",
    "OLD": "the pool's price history does not reach back that far",
    "I": "the pool's price history was never started",
    "TLU": "a tick range is upside down",
    "TLM": "a tick lies below the lowest",
    "TUM": "a tick lies above the highest",
    "UniswapV2: K": "the pool was not paid in full: the token takes a fee on transfer",
    "UniswapV2: INSUFFICIENT_INPUT_AMOUNT": "the pool was paid nothing",
    "UniswapV2: INSUFFICIENT_LIQUIDITY": "the pool has too little liquidity",
    "UniswapV2Library: INSUFFICIENT_INPUT_AMOUNT": "the amount to swap is zero",
    "UniswapV2Library: INSUFFICIENT_LIQUIDITY": "the pool has no liquidity",
    "UniswapV2: INSUFFICIENT_OUTPUT_AMOUNT": "the amount is too small to buy anything",
    "Insufficient WETH9": "the router holds less wrapped native coin than was to be sent on",
    "Insufficient token": "the router holds less of a token than was to be sent on",
}
"""Reasons of Uniswap V2 and V3 contracts, in words."""

_CUSTOM = {
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
_REBALANCER = {
    "Expired()": "the deadline has passed",
    "Reentered()": "the Rebalancer was called from inside itself: a token or pool of the plan runs foreign code",
    "Malformed()": "the program is not one that the Rebalancer understands",
    "NotAwaited()": "somebody asked the Rebalancer for payment who is not the pool of the running swap",
    "TooMuchAsked()": "a pool asked for more than its swap pays",
    "NoSuchPool(uint256)": "swap {}: the venue's factory made no such pool",
    "TooLittleOut(uint256)": f"swap {{}}: {_TOO_LITTLE}",
    "FilledInPart(uint256)": "swap {}: the pool took only part of the amount: it is short of liquidity",
    "TokenRefused(address)": "token {} could not be moved or read: balance or allowance is too small, or the token forbids it",
    "BelowBound(address)": "the wallet's {} would change by less than the plan's bound: more spent, or less received",
    "BelowFloor(int256)": "the wallet's value would change by {} base units of the numeraire, less than the plan's floor",
    "LeftBehind(address)": "{} would be left behind in the Rebalancer",
    "NativeRefused()": "native coin could not be sent to the wallet, or came from elsewhere than its wrapping contract",
}
"""Errors of contracts/src/Rebalancer.sol; {} stands for what the contract tells."""
CUSTOM = {selector(signature): (signature, words) for signature, words in (_CUSTOM | _REBALANCER).items()}
"""Custom errors of common token libraries and of our Rebalancer by selector: signature and words."""

_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "an enum has no such value",
    0x32: "an index is out of bounds",
    0x41: "out of memory",
}


def revert_reason(fault: RpcFault) -> str:
    """Words for a failed call, with the contract's own text in parentheses; harmless characters only (T17)."""
    if fault.data not in ("", "0x"):
        return _from_data(bytes.fromhex(fault.data[2:]))
    text = fault.message
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    text = text.strip(" :'")
    return in_words(text) if text else "reverted without a reason"


def in_words(code: str) -> str:
    """Words for a contract's text, or the text itself, cut and harmless, when the table lacks it."""
    shown = scrub(code)[:_MAX_TEXT]
    return f"{WORDS[code]} ({shown})" if code in WORDS else shown


def _from_data(data: bytes) -> str:
    head, body = data[:4], data[4:]
    if head == _ERROR:
        try:
            return in_words(str(abi_decode(["string"], body)[0]))
        except Exception:  # eth_abi raises many kinds on malformed bytes, all of which mean this
            return "reverted with a reason that cannot be read"
    if head == _PANIC and len(body) == 32:
        code = int.from_bytes(body, "big")
        return f"the contract stopped itself: {_PANICS.get(code, 'panic')} (Panic 0x{code:02x})"
    if head in CUSTOM:
        signature, words = CUSTOM[head]
        name, _, types = signature.rstrip(")").partition("(")
        return f"{words.format(_told(types, body))} ({name})"
    return f"reverted with custom error 0x{head.hex()}" if len(head) == 4 else "reverted with data that cannot be read"


def _told(kind: str, body: bytes) -> str:
    """The one value that an error of ours carries."""
    word = body[:32]
    if len(word) != 32:
        return "?"
    if kind == "address":
        return str(to_checksum_address(word[12:]))
    return str(int.from_bytes(word, "big", signed=kind == "int256"))
