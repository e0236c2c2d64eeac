"""The hard pause as a command: pauses at once, shows what it would take back, and takes it back when that is confirmed (T14)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agent import wiring
from agent.api.agent import Progress, silent
from agent.api.books import by_file
from agent.api.opening import open_agent
from agent.api.retreat import TakenBack
from agent.config.load import LoadedConfig, load_config
from agent.errors import OperatorNeeded, TrimtabError
from agent.execution.outcome import Outcome
from agent.store.lock import Held
from agent.store.private import require_private


@dataclass(frozen=True, slots=True)
class Halted:
    """How far a hard pause came.

    `outcome` is None where nothing was sent by this command: `hard` tells whether the switch stands at hard, `held` who else
    has the wallet and takes back instead.
    """

    reason: str
    hard: bool
    found: TakenBack
    outcome: Outcome | None = None
    held: str = ""


def pause_hard(
    config: LoadedConfig | Path | str,
    reason: str,
    *,
    send: bool,
    sure: bool,
    confirm: Callable[[TakenBack], bool],
    progress: Progress = silent,
) -> Halted:
    """Pauses softly before anything else, so that nothing leaves while the chain is read and the owner thinks.

    With `send` and a yes (`sure`: without asking, and then even before the chain is read) the switch goes to hard, and what
    waits and may be taken is taken back: here, or by a run once it has the wallet.
    """
    loaded = config if isinstance(config, LoadedConfig) else load_config(config, guarded=False)
    with ExitStack() as stack:
        try:
            _, switch = stack.enter_context(wiring.books(loaded))
        except TrimtabError as error:
            told = f"paused by {by_file(loaded, error)}, but not hard: {error.message}"
            raise OperatorNeeded(told, f"{error.remedy}; then trimtab pause --hard again") from error
        switch.pause(reason, int(time.time()), hard=send and sure)
    require_private(loaded.path, "config")
    with open_agent(loaded) as agent:
        found = agent.takes_back()
        if not send or not (sure or confirm(found)):
            return Halted(reason, agent.desk.switch.is_hard(), found)
        agent.desk.switch.pause(reason, int(time.time()), hard=True)
        try:
            return Halted(reason, True, found, agent.retreat(reason, progress))
        except Held as held:
            return Halted(reason, True, found, held=held.message)
