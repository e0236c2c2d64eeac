"""Approvals of agent wallets at Hyperliquid: each key once, with a name and an expiry."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from eth_utils.address import to_checksum_address

from agent.chain.rpc import scrub
from agent.codec import json_field
from agent.errors import ConfigError, ErrorCode, Refused
from agent.signing.agent_approval import (
    AGENT_NAME,
    LONGEST_APPROVAL_MS,
    PRIMARY_TYPE,
    SIGNING_CHAIN,
    AgentApproval,
)
from agent.venues.hyperliquid.client import (
    NamedAgent,
    TypedDataSigner,
    VenueConnection,
    signing_library,
)


def require_fresh_agent(connection: VenueConnection, address: str, former: Collection[str]) -> None:
    """Raise Refused for a key that the venue already knows as an agent or in another role. `former`
    are the addresses of all agents so far, from the caller's own records, because the venue may
    forget an agent with its nonces, and old signed actions could then be replayed.
    """
    known = {one.lower() for one in former}
    answer = connection.info(type="userRole", user=address.lower())
    role = json_field(answer, "role")
    if address.lower() in known or role != "missing":
        raise Refused(
            f"{address} is known to the venue or was an agent before",
            remedy="create a new key; agent keys are never used twice",
            code=ErrorCode.KEY,
        )


def new_approval(
    connection: VenueConnection, owner: str, agent: NamedAgent, now_ms: int, former: Collection[str]
) -> AgentApproval:
    """Return the approval of an agent wallet for the owner's account, with its name and expiry. It
    replaces an earlier agent with the same name. Raises Refused for a key that is not fresh,
    ConfigError for a name or an expiry that the venue does not accept. An agent without a name is
    never approved, because the venue's library signs an empty name but posts none.
    """
    if not AGENT_NAME.fullmatch(agent.name):
        raise ConfigError(
            f"hyperliquid agent: {agent.name!r} is not a valid name",
            "use 1 to 16 letters, digits, dots and dashes",
        )
    if not now_ms < agent.valid_until_ms <= now_ms + LONGEST_APPROVAL_MS:
        raise ConfigError(
            f"hyperliquid agent: {agent.valid_until_ms} ms is not within 180 days from now",
            "choose an earlier expiry",
        )
    if agent.address.lower() == owner.lower():
        raise Refused(
            "the owner's key cannot be an agent", remedy="create a new key", code=ErrorCode.KEY
        )
    require_fresh_agent(connection, agent.address, former)
    address = str(to_checksum_address(agent.address))
    return AgentApproval(address, agent.name, agent.valid_until_ms, now_ms, connection.is_mainnet)


def approve_agent(
    connection: VenueConnection,
    owner: TypedDataSigner,
    agent: NamedAgent,
    now_ms: int,
    former: Collection[str],
) -> None:
    """Approve an agent wallet for the account of an owner that signs messages. Raises the same
    errors as `new_approval` and `post_approval`.
    """
    from eth_account.messages import encode_typed_data

    action = approval_action(new_approval(connection, owner.address, agent, now_ms, former))
    signed = owner.sign_message(encode_typed_data(full_message=approval_message(action)))
    post_approval(connection, action, {"r": hex(signed.r), "s": hex(signed.s), "v": signed.v})


def approval_action(approval: AgentApproval) -> dict[str, object]:
    """Return the action of an approval in the form in which it is posted."""
    return {
        "type": "approveAgent",
        "signatureChainId": hex(SIGNING_CHAIN),
        "hyperliquidChain": "Mainnet" if approval.is_mainnet else "Testnet",
        "agentAddress": approval.agent.lower(),
        "agentName": f"{approval.name} valid_until {approval.valid_until_ms}",
        "nonce": approval.nonce_ms,
    }


def approval_message(action: Mapping[str, object]) -> dict[str, Any]:
    """Return the EIP-712 message that the venue's library signs for an approval."""
    names = ("hyperliquidChain", "agentAddress", "agentName", "nonce")
    kinds = ("string", "address", "string", "uint64")
    types = [{"name": name, "type": kind} for name, kind in zip(names, kinds, strict=True)]
    payload: dict[str, Any] = signing_library().user_signed_payload(PRIMARY_TYPE, types, action)
    return payload | {"message": {name: action[name] for name in names}}


def post_approval(
    connection: VenueConnection, action: Mapping[str, object], signature: Mapping[str, object]
) -> None:
    """Post a signed approval once. Raises Refused with the venue's reason if rejected, Retryable
    with the code `unknown_if_sent` without an answer.
    """
    body = {"action": action, "nonce": action["nonce"], "signature": signature}
    answer = connection.exchange(body)
    if not isinstance(answer, Mapping) or answer.get("status") != "ok":
        reason = scrub(str(answer.get("response"))) if isinstance(answer, Mapping) else ""
        raise Refused(
            f"the venue refuses the agent: {reason}",
            remedy="check account and network, then run it again",
            code=ErrorCode.VENUE,
        )
