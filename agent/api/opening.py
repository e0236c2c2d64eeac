"""Opens an agent for a config, and the functions that need just one look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from agent import wiring
from agent.api.agent import Agent, Confirm, never
from agent.chain.keys import HandedIn
from agent.chain.rpc import Transport
from agent.config.load import LoadedConfig, load_config
from agent.execution.outcome import Outcome
from agent.model import StepInput
from agent.planning.planner import Quote
from agent.ports import Clock, SigningKey


@contextmanager
def open_agent(
    config: LoadedConfig | Path | str = "trimtab.toml",
    *,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
    key: SigningKey | None = None,
    record: Path | None = None,
) -> Iterator[Agent]:
    """Connects to chain and store; closes them at the end of the block. `key` signs in place of the one that the config names.

    With `record` each step is written into that folder, in place of the config's [record].
    """
    loaded = config if isinstance(config, LoadedConfig) else load_config(config)
    with wiring.open_desk(loaded, transports, clock, record=record) as desk:
        yield Agent(desk if key is None else replace(desk, key=HandedIn(key)))


def snapshot(config: LoadedConfig | Path | str = "trimtab.toml") -> StepInput:
    """One fresh StepInput."""
    with open_agent(config) as agent:
        return agent.step_input()


def quote(token_in: str, token_out: str, amount: str, config: LoadedConfig | Path | str = "trimtab.toml", pool: str | None = None) -> Quote:
    """What a swap would pay now."""
    with open_agent(config) as agent:
        return agent.quote(token_in, token_out, amount, pool)[1]


def plan(config: LoadedConfig | Path | str = "trimtab.toml") -> Outcome:
    """What a rebalance would do now."""
    with open_agent(config) as agent:
        return agent.plan()


def step(config: LoadedConfig | Path | str = "trimtab.toml", *, send: bool = False, confirm: Confirm = never) -> Outcome:
    """One step of the agent; sends only with `send` and a `confirm` that says yes."""
    with open_agent(config) as agent:
        return agent.rebalance(send=send, confirm=confirm)
