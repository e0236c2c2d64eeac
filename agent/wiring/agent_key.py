"""Approval of an agent key at an off-chain futures venue, signed by the wallet's key."""

from __future__ import annotations

import getpass
import sys

from agent.config.futures import HyperliquidTable
from agent.config.load import key_source
from agent.errors import ConfigError, ErrorCode, Refused, Retryable
from agent.signing import keys
from agent.signing.agent_approval import AgentApprovalRules, ApprovalKey, ApprovalSigner
from agent.venues.hyperliquid.agents import (
    approval_action,
    approval_message,
    new_approval,
    post_approval,
    require_fresh_agent,
)
from agent.venues.hyperliquid.client import HyperliquidVenue, NamedAgent, VenueConnection
from agent.wiring.context import AgentContext
from agent.wiring.futures import VENUE_TIMEOUT_S


class AgentApprover:
    """Approves keys as the agent of the wallet's account, under futures.agent_name. Each approval
    is recorded before it is posted, and posted once.
    """

    def __init__(self, context: AgentContext, table: HyperliquidTable) -> None:
        """Set the context and its venue table. Raises ConfigError unless the account is the
        wallet's own.
        """
        wallet = context.config.wallet.address
        if table.account not in (None, wallet):
            raise ConfigError(
                f"futures.account: {table.account} is not the wallet {wallet}, and "
                "only an account's own key can approve agents",
                "run this with the config of that wallet, or approve the key's "
                f"address under {table.agent_name} at the venue",
            )
        is_mainnet = table.network == "mainnet"
        self._context = context
        self._name = table.agent_name
        self._connection = VenueConnection(
            table.address, is_mainnet=is_mainnet, timeout_s=VENUE_TIMEOUT_S
        )
        self._venue = HyperliquidVenue(self._connection, wallet, {}, self._now_ms)
        self._rules = AgentApprovalRules(wallet, wallet, self._name, is_mainnet)

    def require_account(self) -> None:
        """Raise Refused while the venue does not know the account, Retryable without an answer."""
        answer = self._connection.info(type="userRole", user=self._rules.account.lower())
        if not isinstance(answer, dict) or answer.get("role") != "user":
            raise Refused(
                f"the venue has no account of {self._rules.account}",
                remedy="deposit USDC at the venue first, and check futures.network",
                code=ErrorCode.VENUE,
            )

    def approved(self) -> NamedAgent | None:
        """Return the approved agent of the configured name; None without one. Raises Retryable."""
        return next((one for one in self._venue.agents() if one.name == self._name), None)

    def is_fresh(self, address: str) -> bool:
        """True if the venue has never known a key as an agent or in another role. Raises
        Retryable.
        """
        try:
            require_fresh_agent(self._connection, address, self._former(address))
        except Refused:
            return False
        return True

    def load_signer(self) -> ApprovalSigner:
        """Load the wallet's key. Raises ConfigError."""
        context = self._context
        ask = getpass.getpass if sys.stdin.isatty() else None
        chain = context.config.chain
        source = context.key or key_source(context.loaded)
        key = keys.load_key(source, chain.chain_id, ask=ask, fork=chain.fork)
        if not isinstance(key, ApprovalKey):
            raise ConfigError(
                "wallet: this key cannot sign the approval of an agent",
                "approve the agent key's address at the venue",
            )
        return ApprovalSigner(key, self._rules, context.clock)

    def approve(self, signer: ApprovalSigner, address: str, until_ms: int) -> NamedAgent:
        """Approve a key until the venue's time `until_ms`. Raises Refused if signer or venue
        rejects it, Retryable with the code `unknown_if_sent` if the venue does not list it, because
        the approval may still arrive.
        """
        trust, agent = self._context.store.trust, NamedAgent(self._name, address, until_ms)
        nonce_ms = trust.take_approval_nonce(self._now_ms())
        approval = new_approval(
            self._connection, signer.address, agent, nonce_ms, self._former(address)
        )
        action = approval_action(approval)
        signature = signer.sign(approval_message(action), approval)
        trust.remember_agent(address, until_ms)
        try:
            post_approval(self._connection, action, signature)
            found = self.approved()
        except Retryable:
            found = self.approved()
        if found != agent:
            raise Retryable(
                f"the approval of {address} was sent, but the venue does not list it",
                "see trimtab doctor; trimtab delegate --send approves another key",
                code=ErrorCode.UNKNOWN_IF_SENT,
            )
        return found

    def _former(self, address: str) -> tuple[str, ...]:
        return (address,) if self._context.store.trust.agent_end_ms(address) else ()

    def _now_ms(self) -> int:
        return self._context.clock.now_s() * 1000
