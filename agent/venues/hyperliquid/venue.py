"""Hyperliquid as the futures venue of a step: account in the snapshot, quotes from the order book,
and orders that are drafted, signed within the rules, posted once and settled by client order id.
Before that: approvals of agent wallets, each key once, with a name and an expiry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Protocol

from eth_utils.address import to_checksum_address

from agent.chain.rpc import scrub
from agent.codec import json_field
from agent.errors import (
    ConfigError,
    ErrorCode,
    OperatorNeeded,
    PassingFault,
    Refused,
    Retryable,
    TrimtabError,
    UnsendableTransaction,
)
from agent.model import (
    FuturesAction,
    FuturesReading,
    Intent,
    IntentState,
    MarginAccount,
    OrderCancel,
    PerpFill,
    PerpOrder,
    PerpQuote,
    Receipt,
    SignedTx,
    Snapshot,
    StaleRead,
    StaleReadKind,
    StopOrder,
    UnsignedTx,
    Verdict,
)
from agent.ports import Clock, Grant
from agent.ports.perpetuals import PerpActionDraft
from agent.signing.agent_approval import (
    AGENT_NAME_PATTERN,
    LONGEST_APPROVAL_MS,
    PRIMARY_TYPE,
    SIGNING_CHAIN_ID,
    AgentApproval,
)
from agent.signing.futures import (
    cloid_of,
    granted_venue_action,
    is_limit_cloid,
    require_signable_order,
    require_signable_orders,
)
from agent.signing.terms import FuturesRules
from agent.units import ceil_int, floor_int, format_time
from agent.venues.hyperliquid.agent_key import AgentKey, signing_library
from agent.venues.hyperliquid.client import (
    AccountReading,
    HyperliquidAgent,
    HyperliquidClient,
)
from agent.venues.hyperliquid.connection import HyperliquidConnection
from agent.venues.hyperliquid.kept_reads import KeptValue
from agent.venues.hyperliquid.orders import (
    CANCEL_TYPE,
    QUOTE_DECIMALS,
    OrderState,
    OrderTicket,
    VenueOrderStage,
    cancel_action,
    fill_on_book,
    limit_price,
    order_action,
    stop_action,
)


def require_fresh_agent(
    connection: HyperliquidConnection, address: str, former_agents: Collection[str]
) -> None:
    """Raise Refused for a key that the venue already knows as an agent or in another role.
    `former_agents` are the addresses of all agents so far, from the caller's own records, because
    the venue may forget an agent with its nonces, and old signed actions could then be replayed.
    """
    former_addresses = {agent.lower() for agent in former_agents}
    answer = connection.info(type="userRole", user=address.lower())
    role = json_field(answer, "role")
    if address.lower() in former_addresses or role != "missing":
        raise Refused(
            f"{address} is known to the venue or was posted for approval before",
            remedy="create a new key; agent keys are never used twice",
            code=ErrorCode.KEY,
        )


def new_approval(
    connection: HyperliquidConnection,
    owner: str,
    agent: HyperliquidAgent,
    now_ms: int,
    former_agents: Collection[str],
) -> AgentApproval:
    """Return the approval of an agent wallet for the owner's account, with its name and expiry. It
    replaces an earlier agent with the same name. Raises Refused for a key that is not fresh,
    ConfigError for a name or an expiry that the venue does not accept. An agent without a name is
    never approved, because the venue's library signs an empty name but posts none.
    """
    if not AGENT_NAME_PATTERN.fullmatch(agent.name):
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
    require_fresh_agent(connection, agent.address, former_agents)
    address = str(to_checksum_address(agent.address))
    return AgentApproval(address, agent.name, agent.valid_until_ms, now_ms, connection.is_mainnet)


def approval_action(approval: AgentApproval) -> dict[str, object]:
    """Return the action of an approval in the form in which it is posted."""
    return {
        "type": "approveAgent",
        "signatureChainId": hex(SIGNING_CHAIN_ID),
        "hyperliquidChain": "Mainnet" if approval.is_mainnet else "Testnet",
        "agentAddress": approval.agent_address.lower(),
        "agentName": f"{approval.name} valid_until {approval.valid_until_ms}",
        "nonce": approval.nonce_ms,
    }


def approval_message(action: Mapping[str, object]) -> dict[str, Any]:
    """Return the EIP-712 message that the venue's library signs for an approval."""
    field_names = ("hyperliquidChain", "agentAddress", "agentName", "nonce")
    type_names = ("string", "address", "string", "uint64")
    field_types = [
        {"name": name, "type": type_name}
        for name, type_name in zip(field_names, type_names, strict=True)
    ]
    payload: dict[str, Any] = signing_library().user_signed_payload(
        PRIMARY_TYPE, field_types, action
    )
    return payload | {"message": {name: action[name] for name in field_names}}


def post_approval(
    connection: HyperliquidConnection, action: Mapping[str, object], signature: Mapping[str, object]
) -> None:
    """Post a signed approval once. Raises Refused with the venue's reason if rejected, Retryable
    with the code `unknown_if_sent` without an answer.
    """
    request_body = {"action": action, "nonce": action["nonce"], "signature": signature}
    answer = connection.exchange(request_body)
    if not isinstance(answer, Mapping) or answer.get("status") != "ok":
        reason = scrub(str(answer.get("response"))) if isinstance(answer, Mapping) else ""
        raise Refused(
            f"the venue refuses the agent: {reason}",
            remedy="check account and network, then run it again",
            code=ErrorCode.VENUE,
        )


MAX_CLOCK_SKEW_S = 30
"""Largest difference between the venue's clock and this machine's, since nonces and expiries are
timestamps.
"""

RENEW_REMEDY = "trimtab delegate --send approves a new key"


class AgentExpiryStore(Protocol):
    """Record of agent approvals: the expiry of each, by address."""

    def agent_expiry_ms(self, address: str) -> int:
        """Return the recorded expiry; zero without one."""

    def record_agent_expiry(self, address: str, until_ms: int) -> int:
        """Record an expiry unless one is recorded; return the recorded one."""


class HyperliquidPerps:
    """Implements ports.OrderVenue for one account. Without `agent_name` nothing is sent."""

    def __init__(
        self,
        client: HyperliquidClient,
        clock: Clock,
        valid_s: int,
        newest_nonce: Callable[[], int],
        agent_name: str,
        agent_record: AgentExpiryStore,
        *,
        no_key_reason: str,
    ) -> None:
        """Set the client of the account. An order is valid for `valid_s`. `newest_nonce` is the
        journal's newest nonce, so that none is used twice even if the clock is set back.
        `no_key_reason` is the reason if there is no agent key, otherwise empty.
        """
        self._client = client
        self._clock = clock
        self._validity_s = valid_s
        self._newest_nonce = newest_nonce
        self._agent_name = agent_name
        self._agent_expiries = agent_record
        self._no_key_reason = no_key_reason

    def read(self, snapshot: Snapshot) -> Snapshot:
        """See PerpVenue. An index gets the snapshot's chain time, less the answer's age by this
        machine's clock.
        """
        return self._with_account(snapshot, self._client.read_account)

    def read_promptly(self, snapshot: Snapshot) -> Snapshot:
        """See OrderVenue."""
        return self._with_account(snapshot, self._client.read_account_promptly)

    @property
    def has_left_out_reads(self) -> bool:
        """See OrderVenue."""
        return self._client.has_left_out_reads

    def _with_account(
        self, snapshot: Snapshot, read_account: Callable[[], AccountReading]
    ) -> Snapshot:
        try:
            account_reading = read_account()
            margin_account = with_chain_times(account_reading.account, snapshot)
        except TrimtabError as error:
            return snapshot.with_layer(unknown_reading(error))
        until_s = snapshot.now_s + self._validity_s
        agents = self._client.known_agents()
        blocked_reason, approval_end_s = self._blocked_reason_and_expiry(
            self._certain_agents(agents), until_s
        )
        stale_reads = account_reading.stale_reads
        if agents.fault:
            stale_reads = (*stale_reads, StaleRead(StaleReadKind.AGENTS, agents.fault))
        return snapshot.with_layer(
            FuturesReading(
                margin_account, "", blocked_reason, approval_end_s, stale_reads=stale_reads
            )
        )

    def _certain_agents(
        self, agents: KeptValue[tuple[HyperliquidAgent, ...]]
    ) -> Sequence[HyperliquidAgent] | None:
        """Return the agents of an answer; None without one, and for an old one that lacks ours,
        which may have been approved since.
        """
        if agents.fault and self._agent_name not in (agent.name for agent in agents.value or ()):
            return None
        return agents.value

    def wait_for_budget(self) -> None:
        """See OrderVenue."""
        self._client.wait_for_budget()

    def _blocked_reason_and_expiry(
        self, agents: Sequence[HyperliquidAgent] | None, until_s: int
    ) -> tuple[str, int]:
        """Return why no order valid until that time could be sent (empty if one could), and the
        expiry of the agent's approval. Unknown agents (None) block no order: the venue itself
        rejects that of a key that it does not know.
        """
        if self._no_key_reason:
            return self._no_key_reason, 0
        if unpinned_coins := self._client.unpinned_markets():
            return (
                f"no number is pinned for the market {', '.join(unpinned_coins)}; trimtab trust",
                0,
            )
        if agents is None:
            return "", 0
        agent_name = self._agent_name
        agent = next((agent for agent in agents if agent.name == agent_name), None)
        if agent is None:
            return (
                f"the venue has no agent named {agent_name}, or its approval has ended; {RENEW_REMEDY}",
                0,
            )
        approval_end_s = agent.valid_until_ms // 1000
        if approval_end_s <= until_s:
            return (
                f"the approval of the agent {agent_name} ends at {format_time(approval_end_s)}; {RENEW_REMEDY}",
                approval_end_s,
            )
        if self._agent_expiries.agent_expiry_ms(agent.address) not in (0, agent.valid_until_ms):
            return (
                f"the agent {agent.address} was approved a second time; {RENEW_REMEDY}",
                approval_end_s,
            )
        return "", approval_end_s

    def quote(self, account: MarginAccount, order: PerpOrder) -> PerpQuote:
        """See PerpVenue. Quotes the part of the order that the book fills within its bound."""
        market = account.market(order.market)
        limit_venue_price = limit_price(market, order)
        is_buy = order.size_raw > 0
        order_size = Fraction(abs(order.size_raw), market.unit)
        book_side = self._client.order_book_side(
            order.market, asks=is_buy, may_wait=not order.is_reduce_only
        )
        unfilled_size, traded_quote = fill_on_book(
            book_side, order_size, limit_venue_price, is_buy=is_buy
        )
        filled_raw = abs(order.size_raw) - ceil_int(unfilled_size * market.unit)
        if filled_raw <= 0:
            raise UnsendableTransaction(
                f"{market.symbol}: the book has no order within the bound",
                (Verdict("simulation", "no fill", "a part of the size", False),),
                "nothing was sent; plan again from a new snapshot",
            )
        return PerpQuote(filled_raw, floor_int(traded_quote * 10**QUOTE_DECIMALS))

    def draft(self, account: MarginAccount, action: FuturesAction, now_s: int) -> PerpActionDraft:
        """See PerpVenue. The nonce is the time in milliseconds, rounded to a second, or the
        journal's newest plus 2 if that is larger. The expiry is based on this machine's clock.
        """
        clock_now_s = self._clock.now_s()
        nonce_ms = max(clock_now_s * 1000, self._newest_nonce() + 2)
        expiry_s = clock_now_s + self._validity_s
        match action:
            case PerpOrder():
                return self._order_draft(account, action, nonce_ms, expiry_s)
            case StopOrder():
                market = account.market(action.market)
                market_number = self._client.market_number(action.market)
                venue_action = stop_action(
                    action, market, market_number, cloid_of(nonce_ms, action)
                )
            case OrderCancel():
                venue_action = cancel_action(
                    action.cloid, self._client.market_number(action.market)
                )
            case _:
                raise Refused(
                    "only orders and resting stops are sent to Hyperliquid",
                    remedy="move margin, and approve agents, at the venue itself",
                )
        return self._action_draft(venue_action, nonce_ms, expiry_s)

    def draft_companion(
        self, account: MarginAccount, order: PerpOrder, first_draft: PerpActionDraft, number: int
    ) -> PerpActionDraft:
        """See OrderVenue. Nonces of the companions follow by 2, and the venue never sees them."""
        nonce_ms = (first_draft.nonce or 0) + 2 * number
        return self._order_draft(account, order, nonce_ms, first_draft.deadline_s)

    def _order_draft(
        self, account: MarginAccount, order: PerpOrder, nonce_ms: int, expiry_s: int
    ) -> PerpActionDraft:
        ticket = OrderTicket(order, cloid_of(nonce_ms, order), nonce_ms, expiry_s * 1000)
        is_full_close = order.size_raw == -account.size_raw(order.market)
        venue_action = order_action(
            ticket,
            account.market(order.market),
            self._client.market_number(order.market),
            is_close=order.is_reduce_only and is_full_close,
        )
        return self._action_draft(venue_action, nonce_ms, expiry_s)

    def _action_draft(
        self, venue_action: Mapping[str, object], nonce_ms: int, expiry_s: int
    ) -> PerpActionDraft:
        action_json = json.dumps(venue_action, separators=(",", ":"))
        return PerpActionDraft(
            self._client.account_address, "0x" + action_json.encode().hex(), expiry_s, nonce_ms
        )

    def outcome(self, intent: Intent) -> Receipt | None:
        """See PerpVenue. Queries by client order id. An order that the venue never saw has ended
        once the venue's time is past its expiry. A resting stop is done once the venue has it, a
        cancel once its order rests no more. A limit order has a receipt with its fills so far from
        the moment at which it rests, and fails only if the venue rejected it.
        """
        cloid = str(intent.tx_hash)
        action = json.loads(bytes.fromhex(intent.tx.data[2:]))
        if action["type"] == CANCEL_TYPE:
            return self._cancel_receipt(intent, str(action["cancels"][0]["cloid"]))
        state = self._client.state_of(cloid)
        if state.stage is VenueOrderStage.OPEN and "trigger" in action["orders"][0]["t"]:
            return replace(_receipt(cloid, ()), status=1)
        if state.stage is VenueOrderStage.UNKNOWN:
            if intent.state is not IntentState.BROADCAST or intent.deadline_s is None:
                return None
            is_dead = self._client.is_order_dead(cloid, intent.deadline_s * 1000)
            return _receipt(cloid, ()) if is_dead else None
        if is_limit_cloid(cloid):
            return self._limit_order_receipt(state)
        if not state.is_final:
            return None
        if not state.filled_raw:
            return replace(_receipt(cloid, ()), failure_reason=state.venue_status)
        fill = PerpFill(
            "",
            self._client.account_address,
            state.coin,
            state.filled_raw,
            state.quote_change_raw,
            state.fee_raw,
            state.realised_profit_raw - state.fee_raw,
        )
        return _receipt(cloid, (fill,))

    def _limit_order_receipt(self, state: OrderState) -> Receipt:
        """Return the receipt of a limit order that the venue knows, with one entry for each
        fill.
        """
        fills = tuple(
            PerpFill(
                "",
                self._client.account_address,
                state.coin,
                fill.size_raw,
                fill.quote_change_raw,
                fill.fee_raw,
                fill.realised_profit_raw - fill.fee_raw,
                fill.fill_id,
            )
            for fill in state.fills
        )
        receipt = _receipt(state.cloid, fills)
        is_rejected = state.stage is VenueOrderStage.REJECTED and not fills
        return replace(
            receipt,
            status=0 if is_rejected else 1,
            is_open=not state.is_final,
            failure_reason=state.venue_status if is_rejected else "",
        )

    def _cancel_receipt(self, intent: Intent, cloid: str) -> Receipt | None:
        """Return the receipt of a cancel; None while its order rests and the cancel may arrive."""
        if intent.state is IntentState.SIGNED:
            return None
        receipt = _receipt(str(intent.tx_hash), ())
        if self._client.state_of(cloid).stage is not VenueOrderStage.OPEN:
            return replace(receipt, status=1)
        is_expired = self._client.is_past((intent.deadline_s or 0) * 1000)
        return receipt if is_expired else None

    def approved_agent(self) -> HyperliquidAgent | None:
        """Return the approved agent of the configured name; None without one. Raises Retryable."""
        matching_agents = [
            agent for agent in self._client.agents() if agent.name == self._agent_name
        ]
        return next(iter(matching_agents), None)

    def require_approved_key(self, until_s: int, *, is_reduction: bool = False) -> None:
        """See OrderVenue. The agent must have the configured name and its original expiry, because
        an agent approved again could repeat old orders. Before an order that may open, the mode of
        the account is read too.
        """
        if not is_reduction:
            self._require_own_mode()
        agents = None
        if is_reduction:
            agents = self._certain_agents(self._client.agents_for_reduction())
            if agents is None:
                self._require_recorded_approval(until_s)
                return
        try:
            agent = self._client.require_agent(until_s * 1000, agents)
        except OperatorNeeded as error:
            named_agent = self.approved_agent()
            if named_agent is None or named_agent.valid_until_ms <= until_s * 1000:
                raise _agent_refusal(error.message) from None
            raise _agent_refusal(
                f"the agent approved as {named_agent.name} is {named_agent.address}, not the key in use;"
                " restart a run that began before this approval"
            ) from None
        if agent.name != self._agent_name:
            raise _agent_refusal(
                f"the agent {agent.address} is named {agent.name!r} at the venue, not"
                f" {self._agent_name!r}"
            )
        if (
            self._agent_expiries.record_agent_expiry(agent.address, agent.valid_until_ms)
            != agent.valid_until_ms
        ):
            raise _agent_refusal(f"the agent {agent.address} was approved a second time")

    def _require_own_mode(self) -> None:
        """Raise Refused unless the account has margin of its own."""
        try:
            self._client.require_own_mode()
        except OperatorNeeded as error:
            raise _agent_refusal(error.message, error.remedy) from None

    def _require_recorded_approval(self, until_s: int) -> None:
        """Raise Refused if the recorded approval of the key ends before; the venue itself rejects
        an order of a key that it does not know.
        """
        recorded_end_ms = self._agent_expiries.agent_expiry_ms(self._client.agent_address)
        if 0 < recorded_end_ms <= until_s * 1000:
            raise _agent_refusal(
                f"the approval of the agent {self._agent_name} ends at"
                f" {format_time(recorded_end_ms // 1000)}"
            )

    def post_orders(self, signed: SignedTx, count: int) -> list[str]:
        """See OrderVenue."""
        return self._client.post_orders(json.loads(signed.signed_bytes), count)


class AgentSigner:
    """Implements ports.Signer for orders of an account: checks the rules, then signs with the
    agent's key.
    """

    def __init__(self, key: AgentKey, rules: FuturesRules, clock: Clock) -> None:
        """Set the agent's key and the signing terms of the futures layer."""
        self._key = key
        self._rules = rules
        self._clock = clock

    @property
    def address(self) -> str:
        """Checksummed address of the agent."""
        return self._key.address

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Return the request body of an order and its client order id. Raises Refused with the rule
        that failed.
        """
        action = require_signable_order(tx, grant, self._rules, self._clock.now_s())
        request_body = self._key.sign(action, tx.nonce, grant.deadline_s * 1000)
        return SignedTx(
            json.dumps(request_body).encode(),
            cloid_of(tx.nonce, granted_venue_action(grant)),
        )

    def require_signable(self, tx: UnsignedTx, grant: Grant) -> str:
        """See OrderSigner."""
        require_signable_order(tx, grant, self._rules, self._clock.now_s())
        return cloid_of(tx.nonce, granted_venue_action(grant))

    def sign_orders(self, orders: Sequence[tuple[UnsignedTx, Grant]]) -> SignedTx:
        """See OrderSigner. Each order passes the rules by itself."""
        action = require_signable_orders(orders, self._rules, self._clock.now_s())
        first_tx, first_grant = orders[0]
        request_body = self._key.sign(action, first_tx.nonce, first_grant.deadline_s * 1000)
        return SignedTx(
            json.dumps(request_body).encode(),
            cloid_of(first_tx.nonce, granted_venue_action(first_grant)),
        )


def _agent_refusal(reason: str, remedy: str = RENEW_REMEDY) -> Refused:
    verdict = Verdict("agent_key", "may not trade", "an approved agent", False)
    return Refused(reason, (verdict,), remedy, code=ErrorCode.AGENT_KEY)


def unknown_reason(error: TrimtabError) -> str:
    """Return why an account is unknown, with the remedy if the operator has to act."""
    if isinstance(error, OperatorNeeded) and error.remedy:
        return f"{error.message}; {error.remedy}"
    return error.message


def unknown_reading(error: TrimtabError) -> FuturesReading:
    """Return the reading of an account that is unknown because of an error."""
    return FuturesReading(
        unknown_reason=unknown_reason(error),
        is_passing=isinstance(error, Retryable | PassingFault),
    )


def with_chain_times(account: MarginAccount, snapshot: Snapshot) -> MarginAccount:
    """Return the account with its index times converted to chain time. Raises Retryable if the
    venue's clock differs too much from this machine's.
    """
    venue_now_s = account.markets[0].index_s
    skew_s = venue_now_s - snapshot.now_s
    if skew_s > MAX_CLOCK_SKEW_S:
        raise Retryable(
            f"this machine's clock is {skew_s} s behind the venue's",
            "set this machine's clock",
            code=ErrorCode.LAG,
        )
    if skew_s < -MAX_CLOCK_SKEW_S:
        is_machine_right = abs(snapshot.head.timestamp_s - snapshot.now_s) <= MAX_CLOCK_SKEW_S
        raise Retryable(
            f"the venue's answer is {-skew_s} s old"
            + (": its server lags" if is_machine_right else " by this machine's clock"),
            "wait until it catches up"
            if is_machine_right
            else "check this machine's clock; if it is right, wait until the venue catches up",
            code=ErrorCode.LAG,
        )
    index_s = snapshot.head.timestamp_s - max(0, -skew_s)
    markets = tuple(replace(market, index_s=index_s) for market in account.markets)
    return replace(account, markets=markets)


def _receipt(cloid: str, fills: tuple[PerpFill, ...]) -> Receipt:
    return Receipt(cloid, 1 if fills else 0, 0, "", 0, 0, (), fills=fills)
