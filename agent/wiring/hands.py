"""What acting needs: signer, executor, composer, under the lock of the wallet."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from agent.chain import keys
from agent.chain.foreign import foreign_signer
from agent.chain.panel import Endpoint
from agent.chain.panel_sender import PanelSender
from agent.chain.rpc import HttpTransport
from agent.chain.rules import SigningRules
from agent.chain.signer import LocalSigner
from agent.chain.watch import PoolKind, PoolRef
from agent.config.key_source import key_source
from agent.config.schema import Config
from agent.execution.executor import Executor
from agent.execution.onlooker import Onlooker
from agent.execution.outcome import Hands, Outcome
from agent.execution.proposals import ProposingExecutor, require_none_open
from agent.execution.settings import Settings
from agent.model import Execution, Limits
from agent.ports import Sender
from agent.store.lock import lock_path, wallet_lock
from agent.store.proposals import FileOutbox
from agent.venues.composer import RouterComposer
from agent.wiring.desk import Desk, store_file


def signing_rules(
    config: Config, execution: Execution, tokens: tuple[str, ...], pools: Sequence[PoolRef] = (), payouts: tuple[str, ...] = ()
) -> SigningRules:
    """What may be signed here: the configured router alone, as what it is; and what liquidity goes through."""
    routers, rebalancers = ((), (execution.router,)) if execution.router_kind == "rebalancer" else ((execution.router,), ())
    chain_id, wallet, deadline_s = config.chain.chain_id, config.wallet.address, config.execution.deadline
    rules = SigningRules(chain_id, wallet, routers, tokens, deadline_s, rebalancers, config.chain.wrapped_native)
    through = dict(execution.liquidity)
    return replace(
        rules,
        managers=(through["uniswap_v3"],) if "uniswap_v3" in through else (),
        v2_routers=(through["uniswap_v2"],) if "uniswap_v2" in through else (),
        oracles=tuple(pool.address for pool in pools if pool.kind is PoolKind.V3),
        payouts=payouts,
        pairs=tuple(pool.address for pool in pools if pool.kind is PoolKind.V2) if "uniswap_v2" in through else (),
    )


@contextmanager
def open_hands(desk: Desk, confirm: Callable[[Outcome], bool], progress: Callable[[str], None], *, signs: bool = True) -> Iterator[Hands]:
    """What acting needs: the wallet's lock, its key, the executor. Held until the block ends. Without `signs` it needs no key."""
    config = desk.config
    chain_id, wallet = config.chain.chain_id, config.wallet.address
    path = lock_path(chain_id, wallet, store_file(desk.loaded), local_chain=config.chain.local)
    with wallet_lock(path, chain_id, wallet):
        rules = signing_rules(config, desk.execution, desk.tokens, desk.pools, desk.payouts)
        desk.panel.tell = progress
        submit_url = config.execution.submit_url.get_secret_value()
        submit = Endpoint(HttpTransport(submit_url, "submit")) if submit_url else None
        sender: Sender = PanelSender(desk.panel, chain_id, submit, config.execution.submit_public_fallback)
        acting: dict[str, Any] = {
            "journal": desk.store,
            "clock": desk.clock,
            "settings": settings(config, desk.limits),
            "is_paused": desk.switch.is_paused,
            "is_hard": desk.switch.is_hard,
            "on_event": lambda event: progress(event.text or event.name),
        }
        if config.wallet.mode != "propose":
            require_none_open(desk.store, desk.store)
        if config.wallet.mode == "propose":
            owner, sender = foreign_signer(rules, desk.panel, sender, desk.line, safe=config.wallet.safe)
            outbox = FileOutbox(desk.loaded.proposals_path)
            executor: Executor = ProposingExecutor(book=desk.store, owner=owner, sender=sender, outbox=outbox, **acting)
        elif not signs:
            executor = Executor(signer=Onlooker(wallet), sender=sender, **acting)
        else:
            ask = getpass.getpass if sys.stdin.isatty() else None
            key = keys.load_key(desk.key or key_source(desk.loaded), chain_id, ask=ask, fork=config.chain.fork)
            executor = Executor(signer=LocalSigner(key, rules), sender=sender, **acting)
        yield Hands(executor, RouterComposer(sender, wallet, desk.clock), confirm)


def settings(config: Config, limits: Limits) -> Settings:
    """How patiently transactions are followed: blocks of live chains come every 2 to 12 s, of local ones at once."""
    local = config.chain.local
    return Settings(
        confirmations=config.chain.confirmations,
        poll_s=0.2 if local else 2.0,
        mined_timeout_s=30.0 if local else 180.0,
        final_timeout_s=10.0 if local else 30.0 * config.chain.confirmations,
        max_fee_wei=limits.gas_price_wei,
        bump_after_s=20.0 if local else 30.0,
        gas_per_day_wei=limits.gas_per_day_wei,
    )
