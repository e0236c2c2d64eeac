"""Build the signer, executor and composer of a session once, and take the wallet's lock for each
act.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agent.chain.endpoints import Endpoint
from agent.chain.rpc import HttpTransport
from agent.chain.safe import foreign_signer
from agent.chain.sender import QuorumSender
from agent.chain.watch import PoolKind, PoolRef
from agent.config.load import LoadedConfig, key_source
from agent.config.schema import Config
from agent.execution.executor import JournaledExecutor, ReadOnlySigner
from agent.execution.external_signer import ProposingExecutor, require_no_open_proposals
from agent.execution.step_context import StepActors, StepOutcome
from agent.execution.submitter import SubmissionSettings, Submitter, signable_nonces
from agent.model import ExecutionConfig, Limits
from agent.ports import Sender, SigningKey
from agent.signing import keys
from agent.signing.rules import LocalSigner, SigningRules
from agent.store.files.locks import lock_path, service_lock, store_lock_path, wait_for_lock
from agent.store.recorder import FileOutbox
from agent.venues.composer import RouterComposer
from agent.wiring.context import AgentContext, paper_actors, store_file


def signing_rules(
    config: Config,
    limits: Limits,
    execution: ExecutionConfig,
    tokens: tuple[str, ...],
    pools: Sequence[PoolRef] = (),
    payouts: tuple[str, ...] = (),
) -> SigningRules:
    """Return the signing rules: the configured router alone, under its kind, and the contracts that
    liquidity goes through.
    """
    routers, rebalancers = (
        ((), (execution.router,))
        if execution.router_kind == "rebalancer"
        else ((execution.router,), ())
    )
    chain_id, wallet, deadline_s = (
        config.chain.chain_id,
        config.wallet.address,
        config.execution.deadline,
    )
    rules = SigningRules(
        chain_id,
        wallet,
        routers,
        tokens,
        deadline_s,
        limits.gas_price_wei,
        rebalancers,
        config.chain.wrapped_native,
    )
    through = dict(execution.liquidity)
    return replace(
        rules,
        managers=(through["uniswap_v3"],) if "uniswap_v3" in through else (),
        v2_routers=(through["uniswap_v2"],) if "uniswap_v2" in through else (),
        oracles=tuple(pool.address for pool in pools if pool.kind is PoolKind.V3),
        payouts=payouts,
        pairs=(
            tuple(pool.address for pool in pools if pool.kind is PoolKind.V2)
            if "uniswap_v2" in through
            else ()
        ),
    )


@dataclass(frozen=True, slots=True)
class WalletSession:
    """Signer, key and settings of a process, built once. It holds no lock of its own."""

    context: AgentContext
    confirm: Callable[[StepOutcome], bool]
    progress: Callable[[str], None]
    key: SigningKey | None
    submit: Endpoint | None

    @contextmanager
    def held(self, *, takes_back: bool = False) -> Iterator[StepActors]:
        """Wait for the wallet's lock and yield the actors of one act; the lock is released in the
        end.

        The actors are built anew for each act, since another process may have sent, paid or
        confirmed meanwhile. Raises LockHeld if the lock takes too long. Raises ConfigChanged if
        another config was confirmed since the context was opened, unless the act only `takes_back`
        pending transactions or allowances.
        """
        with self.locked():
            if not takes_back:
                self.context.store.configs.require_present(
                    self.context.loaded.digest, self.context.confirmed
                )
            yield self._actors()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the wallet's lock without signing: no other process acts for the wallet. Raises
        LockHeld if waiting takes too long.
        """
        context, wait_s = self.context, self.context.config.service.wallet_wait
        with wait_for_lock(
            *lock_locations(context.loaded),
            patience_s=wait_s,
            sleep=context.clock.sleep,
            tell=self.progress,
        ):
            yield

    def _actors(self) -> StepActors:
        context, config = self.context, self.context.config
        rules = signing_rules(
            config,
            context.limits,
            context.execution,
            context.tokens,
            context.pools,
            context.payouts,
        )
        nonces = partial(signable_nonces, context.store.journal)
        context.endpoints.tell = self.progress
        if context.paper is not None:
            return paper_actors(
                context,
                rules,
                submission_settings(config, context.limits),
                self.confirm,
                self.progress,
            )
        sender: Sender = QuorumSender(
            context.endpoints,
            config.chain.chain_id,
            self.submit,
            config.execution.submit_public_fallback,
        )
        proposes, key = config.wallet.mode == "propose", self.key
        if proposes:
            owner, sender = foreign_signer(
                rules, nonces, context.endpoints, sender, context.line, safe=config.wallet.safe
            )
        else:
            require_no_open_proposals(context.store.journal, context.store.proposals)
        submitter = Submitter(
            journal=context.store.journal,
            budgets=context.store.budgets,
            signer=(
                ReadOnlySigner(config.wallet.address)
                if proposes or key is None
                else LocalSigner(key, rules, nonces)
            ),
            sender=sender,
            clock=context.clock,
            settings=submission_settings(config, context.limits),
            is_paused=context.switch.is_paused,
            is_hard=context.switch.is_hard,
            tell=lambda event: self.progress(event.text or event.name),
        )
        executor = JournaledExecutor(submitter)
        if proposes:
            executor = ProposingExecutor(
                submitter, context.store.proposals, owner, FileOutbox(context.loaded.proposals_path)
            )
        return StepActors(
            executor, RouterComposer(sender, config.wallet.address, context.clock), self.confirm
        )


@contextmanager
def open_actors(
    context: AgentContext,
    confirm: Callable[[StepOutcome], bool],
    progress: Callable[[str], None],
    *,
    signs: bool = True,
) -> Iterator[StepActors]:
    """Yield the actors of one act under the wallet's lock: key and executor. Without `signs` no key
    is needed.
    """
    with open_wallet_session(context, confirm, progress, signs=signs).held() as actors:
        yield actors


@contextmanager
def open_service(
    context: AgentContext, confirm: Callable[[StepOutcome], bool], progress: Callable[[str], None]
) -> Iterator[WalletSession]:
    """Serve the wallet until the block ends, and take its lock for each act alone. Raises LockHeld
    at once if another run serves it.
    """
    with service_lock(*lock_locations(context.loaded)):
        yield open_wallet_session(context, confirm, progress)


def open_wallet_session(
    context: AgentContext,
    confirm: Callable[[StepOutcome], bool],
    progress: Callable[[str], None],
    *,
    signs: bool = True,
) -> WalletSession:
    """Return a session that takes the wallet's lock act by act; the key is loaded here.

    No key is loaded without `signs`, with an external signer, or for paper trading.
    """
    config = context.config
    if context.paper is not None:
        return WalletSession(context, confirm, progress, None, None)
    submit_url = config.execution.submit_url.get_secret_value()
    submit = Endpoint(HttpTransport(submit_url, "submit")) if submit_url else None
    key = None
    if signs and config.wallet.mode != "propose":
        ask = getpass.getpass if sys.stdin.isatty() else None
        key = keys.load_key(
            context.key or key_source(context.loaded),
            config.chain.chain_id,
            ask=ask,
            fork=config.chain.fork,
        )
    return WalletSession(context, confirm, progress, key, submit)


def lock_locations(loaded: LoadedConfig) -> tuple[Path, int, str, Path]:
    """Path of the wallet's lock with its chain id and wallet, and path of the lock beside the
    store.
    """
    chain, wallet, file = (
        loaded.config.chain,
        loaded.config.wallet.address,
        store_file(loaded).resolve(),
    )
    alone = chain.local or loaded.paper  # a paper store never blocks the wallet itself
    return (
        lock_path(chain.chain_id, wallet, file, local_chain=alone),
        chain.chain_id,
        wallet,
        store_lock_path(file),
    )


def submission_settings(config: Config, limits: Limits) -> SubmissionSettings:
    """Submission settings of this config: blocks of live chains come every 2 to 12 s, those of
    local chains at once.
    """
    local = config.chain.local
    return SubmissionSettings(
        confirmations=config.chain.confirmations,
        poll_s=0.2 if local else 2.0,
        mined_timeout_s=30.0 if local else 180.0,
        final_timeout_s=10.0 if local else 30.0 * config.chain.confirmations,
        max_fee_wei=limits.gas_price_wei,
        bump_after_s=20.0 if local else 30.0,
        gas_per_day_wei=limits.gas_per_day_wei,
    )
