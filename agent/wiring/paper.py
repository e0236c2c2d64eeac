"""What paper trading is put together from: the real chain to read, a chain of its own to act on, and no key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.backtest.keyless import KeylessSigner
from agent.backtest.router import Place
from agent.chain.panel import Panel
from agent.chain.panel_sender import PanelSender
from agent.chain.rules import SigningRules
from agent.config.load import LoadedConfig
from agent.config.schema import Config
from agent.errors import ConfigError, OperatorNeeded
from agent.execution.executor import Executor
from agent.execution.nonces import signable
from agent.execution.outcome import Hands, Outcome
from agent.execution.settings import Settings
from agent.model import Execution
from agent.paper.chain import PaperChain
from agent.ports import Reader
from agent.store.store import Store
from agent.venues.composer import RouterComposer

if TYPE_CHECKING:
    from agent.wiring.desk import Desk


def prepare(loaded: LoadedConfig, store: Store) -> None:
    """Lets the paper store trust what the live one trusts now. Raises ConfigError for what is not simulated."""
    config = loaded.config
    if config.portfolio.positions or (config.lp is not None and config.lp.targets):
        raise ConfigError("paper: liquidity positions are not simulated", "leave positions and lp.targets out of a copy of the config")
    if config.execution.router != "swap_router_02":
        raise ConfigError("paper: SwapRouter02 alone is simulated", 'write execution.router = "swap_router_02" into a copy of the config')
    store.trust_as(live_file(loaded))


def live_file(loaded: LoadedConfig) -> Path:
    """The file of the live store, which is only read."""
    return Path(loaded.live_url.removeprefix("sqlite:///"))


def paper_chain(config: Config, execution: Execution, panel: Panel, store: Store, reader: Reader) -> PaperChain:
    """The chain of paper trading. Of what could send it gets the newest header alone."""
    sender = PanelSender(panel, config.chain.chain_id)
    return PaperChain(store, reader, sender.head, Place(config.wallet.address, execution.router, config.chain.wrapped_native))


def paper_hands(
    desk: Desk, rules: SigningRules, patience: Settings, confirm: Callable[[Outcome], bool], progress: Callable[[str], None]
) -> Hands:
    """Executor and composer over the paper chain. What pays the block's fee is in it, the rest waits: there is nobody to outbid."""
    if desk.paper is None or not desk.loaded.paper:
        raise OperatorNeeded("this desk is not about paper trading", "open it by trimtab paper")
    executor = Executor(
        journal=desk.store,
        signer=KeylessSigner(rules, partial(signable, desk.store)),
        sender=desk.paper,
        clock=desk.clock,
        settings=replace(patience, bump_after_s=None),
        is_paused=desk.switch.is_paused,
        is_hard=desk.switch.is_hard,
        on_event=lambda event: progress(event.text or event.name),
    )
    return Hands(executor, RouterComposer(desk.paper, desk.config.wallet.address, desk.clock), confirm)
