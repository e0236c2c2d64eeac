"""EIP-712 messages that give money away when signed: permits, orders, Safe transactions; and mutations of them."""

from __future__ import annotations

import copy
import random
from typing import Any

from tests.support.builders import address
from tests.support.signing import CHAIN_ID, NOW_S, ROUTER, STRANGER, USDC, WETH

PERMIT2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3"
DOMAIN = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]
Message = dict[str, Any]


def _typed(primary: str, contract: str, types: dict[str, str], message: Message, **more: dict[str, str]) -> Message:
    """A whole message; types are "name type, name type"."""

    def fields(text: str) -> list[dict[str, str]]:
        return [{"name": part.split()[1], "type": part.split()[0]} for part in text.split(", ")]

    return {
        "types": {
            "EIP712Domain": DOMAIN,
            **{name: fields(text) for name, text in (types | {k: v for d in more.values() for k, v in d.items()}).items()},
        },
        "primaryType": primary,
        "domain": {"name": primary, "version": "1", "chainId": CHAIN_ID, "verifyingContract": contract},
        "message": message,
    }


def typed_messages(wallet: str) -> list[tuple[str, Message]]:
    """One of each kind, as its contract takes it."""
    end = NOW_S + 60
    details = {"token": WETH, "amount": 2**160 - 1, "expiration": end, "nonce": 0}
    permit_details = {"PermitDetails": "address token, uint160 amount, uint48 expiration, uint48 nonce"}
    permitted = {"TokenPermissions": "address token, uint256 amount"}
    offer = {"itemType": 1, "token": WETH, "identifierOrCriteria": 0, "startAmount": 10**18, "endAmount": 10**18}
    item = "uint8 itemType, address token, uint256 identifierOrCriteria, uint256 startAmount, uint256 endAmount"
    safe_tx = {
        "to": WETH, "value": 0, "data": "0x", "operation": 1, "safeTxGas": 0, "baseGas": 0, "gasPrice": 0,
        "gasToken": "0x" + "0" * 40, "refundReceiver": STRANGER, "nonce": 0,
    }  # fmt: skip
    return [
        (
            "EIP-2612 permit",
            _typed(
                "Permit", USDC, {"Permit": "address owner, address spender, uint256 value, uint256 nonce, uint256 deadline"},
                {"owner": wallet, "spender": ROUTER, "value": 2**256 - 1, "nonce": 0, "deadline": end},
            ),
        ),
        (
            "permit of DAI",
            _typed(
                "Permit", USDC, {"Permit": "address holder, address spender, uint256 nonce, uint256 expiry, bool allowed"},
                {"holder": wallet, "spender": STRANGER, "nonce": 0, "expiry": 0, "allowed": True},
            ),
        ),
        (
            "Permit2 single",
            _typed(
                "PermitSingle", PERMIT2, {"PermitSingle": "PermitDetails details, address spender, uint256 sigDeadline"} | permit_details,
                {"details": details, "spender": ROUTER, "sigDeadline": end},
            ),
        ),
        (
            "Permit2 batch",
            _typed(
                "PermitBatch", PERMIT2, {"PermitBatch": "PermitDetails[] details, address spender, uint256 sigDeadline"} | permit_details,
                {"details": [details, details], "spender": STRANGER, "sigDeadline": end},
            ),
        ),
        (
            "Permit2 transfer",
            _typed(
                "PermitTransferFrom", PERMIT2,
                {"PermitTransferFrom": "TokenPermissions permitted, address spender, uint256 nonce, uint256 deadline"} | permitted,
                {"permitted": {"token": WETH, "amount": 10**18}, "spender": STRANGER, "nonce": 1, "deadline": end},
            ),
        ),
        (
            "EIP-3009 transfer",
            _typed(
                "TransferWithAuthorization", USDC,
                {"TransferWithAuthorization": "address from, address to, uint256 value, uint256 validAfter, "
"uint256 validBefore, bytes32 nonce"},
                {"from": wallet, "to": STRANGER, "value": 10**9, "validAfter": 0, "validBefore": end, "nonce": "0x" + "11" * 32},
            ),
        ),
        (
            "order of a market",
            _typed(
                "OrderComponents", address("seaport"),
                {
                    "OrderComponents": "address offerer, address zone, OfferItem[] offer, ConsiderationItem[] consideration, "
"uint8 orderType, "
                    "uint256 startTime, uint256 endTime, bytes32 zoneHash, uint256 salt, bytes32 conduitKey, uint256 counter",
                    "OfferItem": item,
                    "ConsiderationItem": item + ", address recipient",
                },
                {
                    "offerer": wallet, "zone": STRANGER, "offer": [offer],
"consideration": [offer | {"recipient": STRANGER, "endAmount": 0}],
                    "orderType": 0, "startTime": 0, "endTime": end, "zoneHash": "0x" + "00" * 32, "salt": 1,
                    "conduitKey": "0x" + "00" * 32, "counter": 0,
                },
            ),
        ),
        (
            "Safe transaction",
            _typed(
                "SafeTx", wallet,
                {
                    "SafeTx": "address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, "
"uint256 baseGas, uint256 gasPrice, "
                    "address gasToken, address refundReceiver, uint256 nonce"
                },
                safe_tx,
            ),
        ),
    ]  # fmt: skip


STRANGE = [
    None,
    True,
    0,
    -1,
    2**256,
    "",
    "\x1b[2J",
    "[bold]",
    "Permit" * 40,
    b"\x00",
    [],
    {},
    [[]],
    1.5,
    "approve(address,uint256)",
    "\u202eSafeTx",
]


def mutated_typed(dice: random.Random, name: str, message: Message) -> tuple[str, Message]:
    """A message with some places of it changed, dropped or doubled; now and then as it is."""
    changed = copy.deepcopy(message)
    for _ in range(dice.randrange(4)):
        place: Any = changed
        for _ in range(dice.randint(0, 3)):
            below = [value for value in (place.values() if isinstance(place, dict) else place) if isinstance(value, dict | list) and value]
            if not below:
                break
            place = dice.choice(below)
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            continue
        key = dice.choice(keys)
        match dice.randrange(3):
            case 0:
                place[key] = dice.choice([*STRANGE, place[key]])
            case 1:
                del place[key]
            case _ if isinstance(place, dict):
                place[str(dice.choice(STRANGE))] = place[key]
            case _:
                place.append(place[key])
    return name, changed
