"""An agent with the commands that open their own connection as methods too: what `open_agent` gives to
Python programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from agent import app as api
from agent.app import agent as connected
from agent.app.agent import Agent

if TYPE_CHECKING:
    from agent.app.documents.owner import DoctorDocument, PauseDocument
    from agent.app.documents.proposals import ProposalsDocument
    from agent.app.documents.records import ExplanationDocument, ProfitDocument

Parameters = ParamSpec("Parameters")


class LibraryAgent(Agent):
    """An agent whose methods have the names of the commands.

    >>> from agent import open_agent
    >>> with open_agent("trimtab.toml") as agent:
    ...     problems = [check for check in agent.doctor()["checks"] if check["state"] == "fail"]
    """

    def explain(self, step_id: str | None = None) -> ExplanationDocument:
        """Explain a past step, by default the newest, in sentences.

        >>> agent.explain()["sentences"][0]
        'Step ...'
        """
        return api.explain(self.context.loaded_config, step_id)

    def pnl(
        self, period: str = "all", benchmark: str | None = None, period_count: int = 12
    ) -> ProfitDocument:
        """Return profit and loss of the last periods, newest last: "day", "week", "month", "year" or
        "all". Raises ConfigError for an empty ledger.

        >>> agent.pnl()["period"]
        'all'
        """
        return api.pnl(self.context.loaded_config, period, benchmark, period_count)

    def doctor(self) -> DoctorDocument:
        """Check the whole setup, with a remedy for each problem.

        >>> {check["check"]: check["state"] for check in agent.doctor()["checks"]}["config"]
        'ok'
        """
        return api.doctor(self.context.loaded_config)

    def pause(self, reason: str) -> PauseDocument:
        """Stop all sending at once, of other processes too, until `resume`.

        >>> agent.pause("a look at the pools first")["paused"]
        True
        """
        return api.pause(self.context.loaded_config, reason)

    def resume(self, confirm: Callable[[str], bool]) -> PauseDocument:
        """End the pause and any stop; `confirm` is asked before the end of a stop that sells
        everything.

        >>> agent.resume(confirm=lambda warning: False)["paused"]
        False
        """
        return api.resume(self.context.loaded_config, confirm)

    def proposals(self) -> ProposalsDocument:
        """Return the open proposals to the owners of a Safe, with their signatures. Raises
        ConfigError unless the wallet is a Safe.

        >>> [proposal["state"] for proposal in agent.proposals()["proposals"]]
        ['waiting']
        """
        return api.list_proposals(self)


def _with_commands(
    open_connected: Callable[Parameters, AbstractContextManager[Agent]],
) -> Callable[Parameters, AbstractContextManager[LibraryAgent]]:
    """Return the function with the commands on the agent that it opens."""

    @contextmanager
    @wraps(open_connected)
    def open_with_commands(
        *arguments: Parameters.args, **options: Parameters.kwargs
    ) -> Iterator[LibraryAgent]:
        with open_connected(*arguments, **options) as agent:
            yield LibraryAgent(agent.context)

    return open_with_commands


open_agent = _with_commands(connected.open_agent)
