"""An asset leaves a running bot by one command: target 0 %, sold to the last base unit, then taken out of the config.

Each act finds by itself what is left to do: whatever ends the command, the asset is in the config with a target of 0 % or gone from it,
and the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agent import engine, wiring
from agent.api import editing
from agent.api.agent import Agent, Progress, silent
from agent.api.editing import Editing
from agent.api.opening import open_agent
from agent.chain.rpc import Transport
from agent.config.edits import Changes, applied, emptied
from agent.config.load import load_config
from agent.execution.outcome import Outcome, OutcomeKind
from agent.model import Intent, SellOut
from agent.ports import Clock

SALES = 12
"""Plans in a row for one asset."""


@dataclass(frozen=True, slots=True)
class Removing:
    """`edited` is what became of the config. `state` is that of the edit until it is written; then removed, or unfinished with `reason`
    and how to go on, the asset at 0 %.
    """

    edited: Editing
    state: str
    reason: str
    transactions: tuple[Intent, ...] = ()


ConfirmSale = Callable[[Agent, Outcome], bool]


def remove(
    path: Path | str,
    changes: Changes,
    *,
    in_rounds: bool = False,
    keep_holdings: bool = False,
    unseen: bool = False,
    confirm: editing.Confirm | None,
    send: bool = False,
    confirm_sale: ConfirmSale,
    progress: Progress = silent,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
) -> Removing:
    """Takes `changes.removes` away. What is held of them gets a target of 0 % first, and with `send` is sold at once and taken away.

    Raises what an edit raises, and Refused while the bot is stopped.
    """

    def change(changed: Changes, asked: editing.Confirm | None) -> Editing:
        return editing.edit(
            path,
            partial(applied, changes=changed),
            in_rounds=in_rounds,
            keep_holdings=keep_holdings,
            sell_first=partial(applied, changes=emptied(changed)),
            pins=True,
            unseen=unseen,
            confirm=asked,
            transports=transports,
            clock=clock,
        )

    first = change(changes, confirm)
    symbols = [one.symbol for one in load_config(path).config.portfolio.assets if one.symbol in changes.removes]
    if not symbols and first.state == "written":
        return Removing(first, "removed", "")
    if not send or first.state in ("planned", "declined"):
        return Removing(first, first.state, "")
    sent: list[Intent] = []
    sold, why = _sold_out(path, symbols, confirm_sale, progress, transports, clock, sent)
    last = change(Changes(removes=tuple(symbols)), lambda _edit, _agent: True) if sold else first
    if {one.symbol for one in load_config(path).config.portfolio.assets} & set(symbols):
        again = " ".join(f"--remove {one}" for one in symbols)
        told = f"{', '.join(symbols)} stays at a target of 0 %: {why}; trimtab edit {again} --send goes on"
        return Removing(first, "unfinished", told, tuple(sent))
    joined = replace(last, changes=first.changes + last.changes, warnings=tuple(dict.fromkeys(last.warnings)))
    return Removing(joined, "removed", "", tuple(sent))


def _sold_out(
    path: Path | str,
    symbols: Sequence[str],
    confirm: ConfirmSale,
    progress: Progress,
    transports: Sequence[Transport] | None,
    clock: Clock | None,
    sent: list[Intent],
) -> tuple[bool, str]:
    """Sells each as far as it goes; whether all may be taken away now, and what was said last."""
    told = ""
    with open_agent(path, transports=transports, clock=clock) as agent:
        agent.require_not_stopped()
        desk = agent.desk
        with wiring.open_hands(desk, lambda outcome: confirm(agent, outcome), progress) as hands:
            for symbol in symbols:
                token = agent.token(symbol, "--remove").address
                for _ in range(SALES):
                    done = engine.step(desk.eyes, SellOut(token), desk.store, hands)
                    sent += done.transactions
                    told = done.reason
                    if done.kind is OutcomeKind.HOLD:
                        break
                    if done.kind is not OutcomeKind.DONE:
                        return False, told
    return True, told
