"""The signer's rule for the approval of an agent's key on Hyperliquid: exactly this EIP-712 message,
as the owner confirmed it. The only other typed data that a key signs is the call of a Safe, by the
key of an owner (safe_tx.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.errors import ConfigError
from agent.ports import Clock, SigningKey
from agent.signing.terms import refuse

LONGEST_APPROVAL_MS = 180 * 86_400_000
AGENT_NAME_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,16}")
NONCE_SLACK_S = 60
"""Largest difference between the nonce, which is a timestamp, and this machine's clock, seconds."""
PRIMARY_TYPE = "HyperliquidTransaction:ApproveAgent"
SIGNING_CHAIN_ID = 0x66EEE
"""Chain id in the signatures of the venue's own library, on both networks."""
_NETWORK_NAMES = {True: "Mainnet", False: "Testnet"}
_DOMAIN_TYPE = [
    {"name": "name", "type": "string"},
    {"name": "version", "type": "string"},
    {"name": "chainId", "type": "uint256"},
    {"name": "verifyingContract", "type": "address"},
]
_MESSAGE_TYPE = [
    {"name": "hyperliquidChain", "type": "string"},
    {"name": "agentAddress", "type": "address"},
    {"name": "agentName", "type": "string"},
    {"name": "nonce", "type": "uint64"},
]
_NAME_AND_EXPIRY_PATTERN = re.compile(
    rf"({AGENT_NAME_PATTERN.pattern}) valid_until ([1-9][0-9]{{0,15}})"
)
_ADDRESS_PATTERN = re.compile(r"0x[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class AgentApproval:
    """Content of the approval of an agent's key. `agent_address` is its checksummed address; times
    are the venue's, in milliseconds.
    """

    agent_address: str
    name: str
    valid_until_ms: int
    nonce_ms: int
    is_mainnet: bool


@dataclass(frozen=True, slots=True)
class AgentApprovalRules:
    """The signer's fixed terms: the wallet's own account, the configured name and network."""

    wallet: str
    account: str
    name: str
    is_mainnet: bool


@runtime_checkable
class ApprovalKey(SigningKey, Protocol):
    """A wallet's key that also signs approvals of agents."""

    def sign_agent_approval(self, approval: AgentApproval) -> tuple[int, int, int]:
        """Return v (27 or 28), r and s of the approval's signature."""


def approval_typed_data(approval: AgentApproval) -> dict[str, Any]:
    """Return the EIP-712 message of an approval."""
    return {
        "domain": {
            "name": "HyperliquidSignTransaction",
            "version": "1",
            "chainId": SIGNING_CHAIN_ID,
            "verifyingContract": "0x" + 40 * "0",
        },
        "types": {PRIMARY_TYPE: _MESSAGE_TYPE, "EIP712Domain": _DOMAIN_TYPE},
        "primaryType": PRIMARY_TYPE,
        "message": {
            "hyperliquidChain": _NETWORK_NAMES[approval.is_mainnet],
            "agentAddress": approval.agent_address.lower(),
            "agentName": f"{approval.name} valid_until {approval.valid_until_ms}",
            "nonce": approval.nonce_ms,
        },
    }


def approval_digest(approval: AgentApproval) -> bytes:
    """Return the 32 bytes that are signed (EIP-712)."""
    from eth_account.messages import encode_typed_data

    message = encode_typed_data(full_message=approval_typed_data(approval))
    return bytes(keccak(b"\x19" + message.version + message.header + message.body))


def decode_approval(typed_data: Mapping[str, Any]) -> AgentApproval:
    """Decode the message of an approval. Raises Refused for any other message, domain or type."""
    message = typed_data.get("message")
    message_fields = message if isinstance(message, dict) else {}
    address, name_and_expiry, nonce = (
        message_fields.get(field_name) for field_name in ("agentAddress", "agentName", "nonce")
    )
    name_match = (
        _NAME_AND_EXPIRY_PATTERN.fullmatch(name_and_expiry)
        if isinstance(name_and_expiry, str)
        else None
    )
    is_address = isinstance(address, str) and _ADDRESS_PATTERN.fullmatch(address)
    mainnet_flags = [
        is_mainnet
        for is_mainnet, network_name in _NETWORK_NAMES.items()
        if message_fields.get("hyperliquidChain") == network_name
    ]
    if name_match is None or not is_address or type(nonce) is not int or not mainnet_flags:
        refuse("typed_data", "another message", "the approval of an agent's key")
    approval = AgentApproval(
        str(to_checksum_address(str(address))),
        name_match[1],
        int(name_match[2]),
        nonce,
        mainnet_flags[0],
    )
    if _canonical_json(typed_data) != _canonical_json(approval_typed_data(approval)):
        refuse("typed_data", "another domain, type or field", "the approval of an agent's key")
    return approval


def require_signable_approval(
    typed_data: Mapping[str, Any],
    granted_approval: AgentApproval,
    rules: AgentApprovalRules,
    now_s: int,
) -> AgentApproval:
    """Return the approval if it may be signed at `now_s`. Raises Refused with the rule that
    failed.
    """
    approval = decode_approval(typed_data)
    now_ms = now_s * 1000
    if rules.account != rules.wallet:
        refuse("trader", f"the wallet {rules.wallet}", f"the account {rules.account} itself")
    if int(approval.agent_address, 16) == 0 or approval.agent_address == rules.wallet:
        refuse("agent", approval.agent_address, "a key of its own")
    if approval.name != rules.name:
        refuse("agent_name", approval.name, rules.name)
    if approval.is_mainnet is not rules.is_mainnet:
        refuse("network", _NETWORK_NAMES[approval.is_mainnet], _NETWORK_NAMES[rules.is_mainnet])
    if not now_ms < approval.valid_until_ms <= now_ms + LONGEST_APPROVAL_MS:
        refuse("deadline", approval.valid_until_ms, "a time within 180 days")
    if abs(approval.nonce_ms - now_ms) > NONCE_SLACK_S * 1000:
        refuse(
            "nonce", f"{approval.nonce_ms} ms", f"within {NONCE_SLACK_S * 1000} ms of {now_ms} ms"
        )
    if approval != granted_approval:
        refuse("agent", _approval_text(approval), f"exactly {_approval_text(granted_approval)}")
    return approval


def _approval_text(approval: AgentApproval) -> str:
    return (
        f"{approval.name} {approval.agent_address}, valid until {approval.valid_until_ms} ms,"
        f" nonce {approval.nonce_ms}"
    )


class ApprovalSigner:
    """Signs approvals of agent keys with the wallet's key, once the rule has passed. It signs
    nothing else, and no step has access to it.
    """

    def __init__(self, key: ApprovalKey, rules: AgentApprovalRules, clock: Clock) -> None:
        """Set key, rules and this machine's clock. Raises ConfigError if the key belongs to another
        wallet.
        """
        if key.address != rules.wallet:
            raise ConfigError(
                f"wallet.address {rules.wallet} is not the address of the key, {key.address}",
                "correct the address, or use the key of that wallet",
            )
        self._key = key
        self._rules = rules
        self._clock = clock

    @property
    def address(self) -> str:
        """Checksummed address of the wallet."""
        return self._key.address

    def sign(
        self, typed_data: Mapping[str, Any], granted_approval: AgentApproval
    ) -> dict[str, object]:
        """Return the signature in the venue's format. Raises Refused with the rule that failed."""
        approval = require_signable_approval(
            typed_data, granted_approval, self._rules, self._clock.now_s()
        )
        v, r, s = self._key.sign_agent_approval(approval)
        return {"r": hex(r), "s": hex(s), "v": v}


def _canonical_json(typed_data: Mapping[str, Any]) -> str:
    try:
        return json.dumps(typed_data, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return ""
