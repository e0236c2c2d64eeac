"""The key of an agent wallet. An agent wallet trades for an account and cannot withdraw; its key
signs only orders and cancels. Signatures come from the venue's own library.
"""

from __future__ import annotations

from typing import Any, NoReturn

from eth_utils.address import to_checksum_address

from agent.errors import ConfigError, ErrorCode, Refused
from agent.signing.secret import AgentPrivateKey

_AGENT_ACTION_TYPES = frozenset({"order", "cancelByCloid"})


class AgentKey:
    """The key of an agent wallet. It signs orders and cancels, and shows only its address."""

    __slots__ = ("__key", "__mainnet", "address")

    def __init__(self, key: AgentPrivateKey, *, is_mainnet: bool) -> None:
        self.__key = key
        self.__mainnet = is_mainnet
        self.address = str(to_checksum_address(key.address))

    def sign(
        self, action: dict[str, object], nonce_ms: int, expires_ms: int | None
    ) -> dict[str, object]:
        """Return the request body of an action. Raises Refused for any other kind of action."""
        if action.get("type") not in _AGENT_ACTION_TYPES:
            raise Refused(
                f"an agent key signs orders and cancels, not {action.get('type')}",
                code=ErrorCode.SIGNATURE,
            )
        signature = signing_library().sign_l1_action(
            self.__key, action, None, nonce_ms, expires_ms, self.__mainnet
        )
        request_body = {
            "action": action,
            "nonce": nonce_ms,
            "signature": signature,
            "vaultAddress": None,
        }
        return request_body if expires_ms is None else {**request_body, "expiresAfter": expires_ms}

    def __repr__(self) -> str:
        return f"AgentKey({self.address})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a key cannot be pickled or copied")


def signing_library() -> Any:
    """Return the library's signing functions. Raises ConfigError if it is not installed."""
    try:
        from hyperliquid.utils import signing
    except ImportError:
        signing = None
    if signing is None:
        raise ConfigError(
            "Hyperliquid needs the package hyperliquid-python-sdk",
            "pip install 'trimtab[hyperliquid]'",
        )
    return signing
