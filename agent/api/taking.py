"""Liquidity positions that the store does not know, or no longer should: taken over, or forgotten, on the owner's word."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from agent import wiring
from agent.api.agent import Agent
from agent.chain.positions import resolve
from agent.chain.strays import find_strays
from agent.config.contracts import factories
from agent.config.fields import parse_address
from agent.config.load import load_config
from agent.errors import ConfigError
from agent.lp import exact, own
from agent.model import ConfirmedPosition, LpMove
from agent.model.positions import position_name

Document = dict[str, Any]


def take_position(agent: Agent, number: str) -> Document:
    """From here on the V3 position of that number counts like one that the agent opened. Raises ConfigError for one that is not
    the wallet's, holds nothing, or counts already.
    """
    if not number.isdecimal():
        raise ConfigError(
            f"position: {number!r} is no number of a V3 position", "see trimtab lp; a pair is confirmed in portfolio.positions"
        )
    desk, store = agent.desk, agent.desk.store
    venue, lp = desk.config.venues.uniswap_v3, desk.config.lp
    if venue is None or lp is None:
        raise ConfigError("position: the config has no [venues.uniswap_v3] or no [lp]", "add them: they say how positions are judged")
    name = position_name("uniswap_v3", venue.position_manager, int(number))
    step = agent.step_input()
    if name in {one.name for one in step.portfolio.positions}:
        raise ConfigError(f"position {name} counts already", "see trimtab lp")
    head = step.snapshot.head
    at = {"blockHash": head.hash, "requireCanonical": True}
    strays = find_strays(desk.line, step.snapshot.owner, venue.position_manager, (), (), at).found
    stray = next((one for one in strays if one.name == name and one.liquidity > 0), None)
    if stray is None:
        raise ConfigError(f"position {name}: the wallet holds no such position with liquidity", "see trimtab lp")
    one = ConfirmedPosition("uniswap_v3", venue.position_manager, int(number), *stray.tokens, (0, 0), None, lp.volatility, lp.horizon)
    assets = {asset.token.address for asset in step.portfolio.assets}
    if not set(stray.tokens) <= assets:
        raise ConfigError(f"position {name} holds tokens that are no assets of the portfolio", "leave it: trimtab lp forget")
    (ref,) = resolve(desk.line, (one,), factories(desk.config))
    if ref.place is None:
        raise ConfigError(f"position {name} does not exist", "see trimtab lp")
    place = ref.place
    mint = LpMove(
        "uniswap_v3", venue.position_manager, int(number), place.pool, *stray.tokens, place.fee_pips,
        (place.tick_lower, place.tick_upper), stray.liquidity, 0, (0, 0), head.number,
    )  # fmt: skip
    store.decide_position(name, mint, desk.clock.now_s())
    amounts = _holds(agent, name)
    store.decide_position(name, own.taken_over(mint, amounts), desk.clock.now_s())
    return {"position": name, "taken": True, "amounts_raw": [str(raw) for raw in amounts]}


def _holds(agent: Agent, name: str) -> tuple[int, int]:
    """What it would pay now: that is what it counts as having cost."""
    position = next((one for one in agent.step_input().snapshot.positions if one.name == name), None)
    return (0, 0) if position is None else exact.principal(position)


def forget_position(config: Path | str, which: str) -> Document:
    """A position that the agent opened, or has found, no longer counts: `which` is the number of a V3 position, or a pair's address.

    Raises ConfigError for one that the store does not know.
    """
    loaded = load_config(config)
    venue = loaded.config.venues.uniswap_v3
    if which.isdecimal():
        name = position_name("uniswap_v3", "" if venue is None else venue.position_manager, int(which))
    else:
        name = position_name("uniswap_v2", parse_address(which, "position"), None)
    with wiring.books(loaded) as (store, _):
        now_s = int(time.time())
        moves = store.liquidity_moves()
        if name not in store.history(now_s).undecided and not own.is_open(moves, name):
            raise ConfigError(
                f"position {name}: the store does not know it as one of its own",
                "see trimtab lp; what the config confirms is removed from portfolio.positions",
            )
        store.decide_position(name, None, now_s)
    return {"position": name, "taken": False}
