"""Wallet sessions: the key is loaded once, and signer, executor and composer are built for each
action, under the wallet's lock. Also the approval of an agent key at an off-chain futures venue.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from agent.backtest.router import NullSigner
from agent.chain.endpoints import Endpoint
from agent.chain.safe import open_external_signer
from agent.chain.sender import QuorumSender
from agent.config.loaded import LoadedConfig
from agent.config.networks import typical_fees
from agent.config.schema import Config
from agent.config.secrets.key_sources import agent_key_source
from agent.config.tables.futures import HyperliquidTable
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Refused, Retryable
from agent.execution.executor import (
    JournaledExecutor,
    ProposingExecutor,
    ReadOnlySigner,
    require_no_open_proposals,
)
from agent.execution.step_context import StepOutcome, StepTransactor
from agent.execution.submission.settings import SubmissionSettings
from agent.execution.submission.signable_nonces import max_tip_by_nonce
from agent.execution.submission.submitter import Submitter
from agent.layers.drafts import layer_composers
from agent.layers.futures.execution.venue_executor import VenueExecutor
from agent.layers.futures.policy.plans import (
    emergency_gas_per_day_wei,
    emergency_gas_price_limit_wei,
)
from agent.model import FuturesPolicy, Limits, unsupported_chain_reason
from agent.paper.order_venue import PaperAgentSigner, PaperHyperliquid
from agent.ports import Clock, Executor, Sender, Signer, SigningKey
from agent.signing import keys
from agent.signing.agent_approval import AgentApprovalRules, ApprovalKey, ApprovalSigner
from agent.signing.rules import LocalSigner, SigningRules
from agent.store.files.locks import (
    WalletLocks,
    lock_path,
    service_lock,
    store_lock_path,
    wait_for_lock,
)
from agent.store.files.recorder import FileOutbox
from agent.store.store import Store
from agent.venues.composer import RouterComposer
from agent.venues.hyperliquid.client import (
    HyperliquidAgent,
    HyperliquidClient,
)
from agent.venues.hyperliquid.connection import HyperliquidConnection
from agent.venues.hyperliquid.venue import (
    AgentSigner,
    approval_action,
    approval_message,
    new_approval,
    post_approval,
    require_fresh_agent,
)
from agent.wiring.context import AgentContext, pool_makers
from agent.wiring.futures import (
    VENUE_TIMEOUT_S,
    build_agent_key,
    chain_venue,
    missing_agent_key_reason,
)
from agent.wiring.signers import wallet_key_source
from agent.wiring.signing_rules import signing_rules
from agent.wiring.stores import store_file
from agent.wiring.waiting_proposals import required_command


@dataclass(frozen=True, slots=True)
class WalletSession:
    """Key, confirmation and private endpoint of a process. Holds no lock between actions."""

    context: AgentContext
    confirm: Callable[[StepOutcome], bool]
    report_progress: Callable[[str], None]
    key: SigningKey | None
    submit_endpoint: Endpoint | None
    agent_key: SigningKey | None = None

    @contextmanager
    def open_transactor(self, *, cancels_only: bool = False) -> Iterator[StepTransactor]:
        """Wait for the wallet's lock, yield the transactor of one action, and release the lock.

        It is rebuilt each time, because another process may have sent, paid or confirmed in
        between. Raises LockHeld if the lock takes too long. Raises ConfigChanged if another config
        was confirmed since the context was opened, unless the action `cancels_only`, which means
        that it only cancels pending transactions and revokes allowances.
        """
        with self.hold_lock():
            if not cancels_only:
                self.context.store.configs.require_current(
                    self.context.loaded_config.digest, self.context.confirmed_hash
                )
            yield self._transactor()

    def with_keys(self, context: AgentContext) -> AgentContext:
        """Return the context with this session's keys, so that its actions need not load them."""
        wallet_source = None if self.key is None else keys.SuppliedKey(self.key)
        agent_source = None if self.agent_key is None else keys.SuppliedKey(self.agent_key)
        return replace(
            context,
            key_source=wallet_source or context.key_source,
            agent_key_source=agent_source or context.agent_key_source,
        )

    @contextmanager
    def hold_lock(self) -> Iterator[None]:
        """Hold the wallet's lock without signing, so that no other process acts for the wallet.
        Raises LockHeld if waiting takes too long.
        """
        context = self.context
        with hold_wallet_lock(
            context.loaded_config, context.store, context.clock, self.report_progress
        ):
            yield

    def _transactor(self) -> StepTransactor:
        context = self.context
        config = self.context.config
        rules = signing_rules(context)
        read_max_tips = partial(max_tip_by_nonce, context.store.journal)
        context.endpoints.report = self.report_progress
        if context.paper_chain is not None:
            return paper_transactor(
                context,
                rules,
                submission_settings(config, context.limits, context.futures_policy),
                self.confirm,
                self.report_progress,
            )
        require_sendable(config)
        sender: Sender = QuorumSender(
            context.endpoints,
            config.chain.chain_id,
            self.submit_endpoint,
            config.execution.submit_public_fallback,
        )
        proposes_only = config.wallet.mode == "propose"
        batch_contract = None
        if proposes_only:
            external_signer, sender = open_external_signer(
                rules,
                read_max_tips,
                context.endpoints,
                sender,
                context.transport,
                is_safe=config.wallet.safe,
            )
            batch_contract = external_signer.rules.batch_contract
        else:
            require_no_open_proposals(context.store.journal, context.store.proposals)
        signer: Signer = ReadOnlySigner(config.wallet.address)
        if self.key is not None and not proposes_only:
            signer = LocalSigner(self.key, rules, read_max_tips)
        submitter = Submitter(
            journal=context.store.journal,
            budgets=context.store.budgets,
            signer=signer,
            sender=sender,
            clock=context.clock,
            settings=submission_settings(config, context.limits, context.futures_policy),
            is_paused=context.kill_switch.is_paused,
            is_hard_pause=context.kill_switch.is_hard,
            pause_reason=context.kill_switch.reason_and_time,
            proposed_ids=context.store.proposals.proposal_blocks,
            on_event=lambda event: self.report_progress(event.text or event.name),
        )
        chain_executor = JournaledExecutor(submitter)
        executor: Executor = chain_executor
        order_venue = context.order_venue(self.agent_key)
        if order_venue is not None:
            executor = VenueExecutor(
                chain_executor, submitter, self._agent_signer(rules, context.clock), order_venue
            )
        if proposes_only:
            executor = ProposingExecutor(
                submitter,
                context.store.proposals,
                partial(required_command, context),
                external_signer,
                FileOutbox(context.loaded_config.proposals_path),
            )
        futures_venue = order_venue or chain_venue(
            config, context.portfolio, context.transport, sender.status_of
        )
        composer = RouterComposer(
            sender,
            config.wallet.address,
            context.clock,
            layer_composers(futures_venue, config.wallet.address),
            pool_makers(config),
            batch_contract,
        )
        return StepTransactor(executor, composer, self.confirm)

    def _agent_signer(self, rules: SigningRules, clock: Clock) -> Signer:
        """Return the signer of the venue's orders, which refuses everything without an
        agent key.
        """
        config = self.context.config
        futures_terms = rules.futures
        if self.agent_key is None or futures_terms is None:
            return ReadOnlySigner(config.wallet.address)
        return AgentSigner(build_agent_key(config, self.agent_key), futures_terms, clock)


def paper_transactor(
    context: AgentContext,
    rules: SigningRules,
    settings: SubmissionSettings,
    confirm: Callable[[StepOutcome], bool],
    report_progress: Callable[[str], None],
) -> StepTransactor:
    """Build executor and composer on the paper chain, where a transaction that pays the base fee is
    mined and any other stays pending.
    """
    if context.paper_chain is None or not context.loaded_config.is_paper:
        raise OperatorNeeded(
            "this agent was not opened for paper trading", "open it with trimtab paper"
        )
    submitter = Submitter(
        journal=context.store.journal,
        budgets=context.store.budgets,
        signer=NullSigner(rules, partial(max_tip_by_nonce, context.store.journal)),
        sender=context.paper_chain,
        clock=context.clock,
        settings=replace(settings, bump_after_s=None),
        is_paused=context.kill_switch.is_paused,
        is_hard_pause=context.kill_switch.is_hard,
        on_event=lambda event: report_progress(event.text or event.name),
    )
    chain_executor = JournaledExecutor(submitter)
    executor: Executor = chain_executor
    order_venue = context.order_venue()
    if isinstance(order_venue, PaperHyperliquid) and rules.futures is not None:
        order_venue.settle()
        signer = PaperAgentSigner(rules.futures, context.clock)
        executor = VenueExecutor(chain_executor, submitter, signer, order_venue)
    futures_venue = order_venue or chain_venue(
        context.config, context.portfolio, context.transport, context.paper_chain.status_of
    )
    wallet = context.config.wallet.address
    return StepTransactor(
        executor,
        RouterComposer(
            context.paper_chain,
            wallet,
            context.clock,
            layer_composers(futures_venue, wallet),
            pool_makers(context.config),
        ),
        confirm,
    )


@contextmanager
def open_transactor(
    context: AgentContext,
    confirm: Callable[[StepOutcome], bool],
    report_progress: Callable[[str], None],
    *,
    signs: bool = True,
) -> Iterator[StepTransactor]:
    """Yield the transactor of one action under the wallet's lock. Without `signs` no key is
    loaded.
    """
    with open_wallet_session(
        context, confirm, report_progress, signs=signs
    ).open_transactor() as transactor:
        yield transactor


@contextmanager
def open_service_session(
    context: AgentContext,
    confirm: Callable[[StepOutcome], bool],
    report_progress: Callable[[str], None],
    *,
    asks_passphrase: bool = True,
) -> Iterator[WalletSession]:
    """Hold the wallet's service lock, so that no second run starts; the session takes the wallet's
    lock for each action. Raises LockHeld at once if another run holds the service lock.
    """
    with service_lock(wallet_locks(context.loaded_config)), context.store.db.serving():
        yield open_wallet_session(
            context, confirm, report_progress, asks_passphrase=asks_passphrase
        )


def open_wallet_session(
    context: AgentContext,
    confirm: Callable[[StepOutcome], bool],
    report_progress: Callable[[str], None],
    *,
    signs: bool = True,
    asks_passphrase: bool = True,
) -> WalletSession:
    """Load the key and return a session that takes the wallet's lock for each action. Without
    portfolio.use_cash its account is forgotten first.

    No key is loaded without `signs`, with an external signer, or for paper trading. A missing
    passphrase is asked on the terminal if there is one, with `asks_passphrase`.
    """
    from agent.chain.providers.endpoint import EndpointProvider  # web3 is loaded to connect only

    config = context.config
    if config.portfolio.use_cash is None:
        context.store.cash.forget()
    if context.paper_chain is not None:
        return WalletSession(context, confirm, report_progress, None, None)
    submit_url = config.execution.submit_url.get_secret_value()
    submit_endpoint = Endpoint(EndpointProvider(submit_url, "submit")) if submit_url else None
    key = None
    ask_passphrase = getpass.getpass if asks_passphrase and sys.stdin.isatty() else None
    if signs and config.wallet.mode != "propose":
        key = keys.load_key(
            context.key_source or wallet_key_source(context.loaded_config),
            config.chain.chain_id,
            ask=ask_passphrase,
            is_fork=config.chain.fork,
        )
    agent_signing_key = _load_agent_key(context, ask_passphrase) if key is not None else None
    return WalletSession(context, confirm, report_progress, key, submit_endpoint, agent_signing_key)


def _load_agent_key(
    context: AgentContext, ask_passphrase: keys.SecretPrompt | None
) -> SigningKey | None:
    """Load the agent key of the futures venue; None if there is none, because everything else works
    without it. Raises ConfigError.
    """
    config = context.config
    if missing_agent_key_reason(context.loaded_config):
        return None
    try:
        agent_source = context.agent_key_source or agent_key_source(context.loaded_config)
        return keys.load_key(agent_source, config.chain.chain_id, ask=ask_passphrase)
    except ConfigError as error:
        message = error.message.replace("wallet.", "futures.agent_", 1)
        raise ConfigError(message, error.remedy) from None


@contextmanager
def hold_wallet_lock(
    loaded_config: LoadedConfig,
    store: Store,
    clock: Clock,
    report_holder: Callable[[str], None] = lambda _: None,
) -> Iterator[None]:
    """Hold the wallet's lock, on files and in the store, so that no other process acts for the
    wallet. Raises LockHeld if waiting takes longer than service.wallet_wait.
    """
    with wait_for_lock(
        wallet_locks(loaded_config),
        patience_s=loaded_config.config.service.wallet_wait,
        sleep=clock.sleep,
        report_holder=report_holder,
        further_lock=store.db.acting,
    ):
        yield


def wallet_locks(loaded_config: LoadedConfig) -> WalletLocks:
    """Return the locks of the config's wallet, with that beside its store."""
    chain_table = loaded_config.config.chain
    wallet = loaded_config.config.wallet.address
    store_path = store_file(loaded_config).resolve()
    is_lock_beside_store = (
        chain_table.is_local or loaded_config.is_paper
    )  # a paper store never blocks the wallet itself
    return WalletLocks(
        lock_path(chain_table.chain_id, wallet, store_path, local_chain=is_lock_beside_store),
        chain_table.chain_id,
        wallet,
        store_lock_path(store_path),
    )


def submission_settings(
    config: Config, limits: Limits, futures: FuturesPolicy | None = None
) -> SubmissionSettings:
    """Return timing and caps of submissions. Local chains produce a block at once, live ones
    within seconds.
    """
    if config.chain.is_local:
        poll_s = 0.2
        mined_timeout_s = 30.0
        final_timeout_s = 10.0
        bump_after_s = 20.0
    else:
        poll_s = 2.0
        mined_timeout_s = 180.0
        bump_after_s = 30.0
        final_timeout_s = 30.0 * config.chain.confirmations
    emergency_caps_wei: tuple[int | None, int | None] = (None, None)
    if futures is not None:
        emergency_caps_wei = (
            emergency_gas_price_limit_wei(futures.limits, limits),
            emergency_gas_per_day_wei(futures.limits, limits),
        )
    return SubmissionSettings(
        confirmations=config.chain.confirmations,
        poll_s=poll_s,
        mined_timeout_s=mined_timeout_s,
        final_timeout_s=final_timeout_s,
        max_fee_wei=limits.gas_price_wei,
        bump_after_s=bump_after_s,
        gas_per_day_wei=limits.gas_per_day_wei,
        emergency_gas_ceilings=emergency_caps_wei,
        finality_tag=config.chain.finality_tag,
        usual_tip_wei=typical_fees(config.chain.chain_id).priority_fee_wei,
    )


class AgentApprover:
    """Approves keys as the agent of the wallet's account, under futures.agent_name. Each approval
    is recorded before it is posted, and posted once.
    """

    def __init__(self, context: AgentContext, futures_table: HyperliquidTable) -> None:
        """Set the context and its venue table. Raises ConfigError unless the account is the
        wallet's own.
        """
        wallet = context.config.wallet.address
        if futures_table.account not in (None, wallet):
            raise ConfigError(
                f"futures.account: {futures_table.account} is not the wallet {wallet}, and "
                "only an account's own key can approve agents",
                "run this with the config of that wallet, or approve the key's "
                f"address under {futures_table.agent_name} at the venue",
            )
        is_mainnet = futures_table.network == "mainnet"
        self._context = context
        self._agent_name = futures_table.agent_name
        self._connection = HyperliquidConnection(
            futures_table.api_url, is_mainnet=is_mainnet, timeout_s=VENUE_TIMEOUT_S
        )
        self._client = HyperliquidClient(self._connection, wallet, {}, self._now_ms)
        self._rules = AgentApprovalRules(wallet, wallet, self._agent_name, is_mainnet)

    def require_account(self) -> None:
        """Raise Refused while the venue does not know the account, Retryable without an answer."""
        role_answer = self._connection.info(type="userRole", user=self._rules.account.lower())
        if not isinstance(role_answer, dict) or role_answer.get("role") != "user":
            raise Refused(
                f"the venue has no account of {self._rules.account}",
                remedy="deposit USDC at the venue first, and check futures.network",
                code=ErrorCode.VENUE,
            )

    def approved_agent(self) -> HyperliquidAgent | None:
        """Return the approved agent of the configured name; None without one. Raises Retryable."""
        return next(
            (agent for agent in self._client.agents() if agent.name == self._agent_name), None
        )

    def is_fresh(self, address: str) -> bool:
        """True if the venue has never known a key as an agent or in another role. Raises
        Retryable.
        """
        try:
            require_fresh_agent(self._connection, address, self._former_agents(address))
        except Refused:
            return False
        return True

    def load_signer(self) -> ApprovalSigner:
        """Load the wallet's key and return the signer of approvals. Raises ConfigError."""
        context = self._context
        ask_passphrase = getpass.getpass if sys.stdin.isatty() else None
        chain_table = context.config.chain
        wallet_source = context.key_source or wallet_key_source(context.loaded_config)
        key = keys.load_key(
            wallet_source, chain_table.chain_id, ask=ask_passphrase, is_fork=chain_table.fork
        )
        if not isinstance(key, ApprovalKey):
            raise ConfigError(
                "wallet: this key cannot sign the approval of an agent",
                "approve the agent key's address at the venue",
            )
        return ApprovalSigner(key, self._rules, context.clock)

    def approve(self, signer: ApprovalSigner, address: str, until_ms: int) -> HyperliquidAgent:
        """Approve a key until the venue's time `until_ms`. Raises Refused if signer or venue
        rejects it, Retryable with the code `unknown_if_sent` if the venue does not list it, or cannot
        be asked, because the approval may still arrive.
        """
        trust = self._context.store.trust
        expected_agent = HyperliquidAgent(self._agent_name, address, until_ms)
        nonce_ms = trust.take_approval_nonce(self._now_ms())
        approval = new_approval(
            self._connection, signer.address, expected_agent, nonce_ms, self._former_agents(address)
        )
        action = approval_action(approval)
        signature = signer.sign(approval_message(action), approval)
        trust.record_agent_expiry(address, until_ms)
        named_agent = None
        try:
            post_approval(self._connection, action, signature)
            named_agent = self.approved_agent()
        except Retryable:
            with suppress(Retryable):  # an unread list is no reason to think that nothing was sent
                named_agent = self.approved_agent()
        if named_agent != expected_agent:
            raise Retryable(
                f"the approval of {address} was sent and may be in force, but the venue's list of"
                " agents does not confirm it",
                "see trimtab doctor; trimtab delegate --send approves another key",
                code=ErrorCode.UNKNOWN_IF_SENT,
            )
        return named_agent

    def _former_agents(self, address: str) -> tuple[str, ...]:
        return (address,) if self._context.store.trust.agent_expiry_ms(address) else ()

    def _now_ms(self) -> int:
        return self._context.clock.now_s() * 1000


def require_sendable(config: Config) -> None:
    """Raise ConfigError for a chain on which transactions may cost more than their gas (T13)."""
    chain_table = config.chain
    if not chain_table.is_local and (reason := unsupported_chain_reason(chain_table.chain_id)):
        raise ConfigError(
            f"chain.chain_id is {chain_table.chain_id}: {reason}, so nothing is sent",
            "use a chain with known fees, such as 1 (Ethereum) or 8453 (Base), or paper trading",
        )
