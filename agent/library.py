"""An agent with the commands that open their own connection as methods too: what `open_agent` gives to
Python programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import app as api
from agent.app import agent as connected
from agent.app.agent import Agent
from agent.app.paper import DEFAULT_START, PaperStart, open_paper
from agent.calls import ArgumentKind, CallChecks
from agent.chain.rpc import Transport
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError
from agent.ports import Clock, SigningKey
from agent.units import Amount, plain_amount

if TYPE_CHECKING:
    from agent.app.documents.owner import DoctorDocument, PauseDocument
    from agent.app.documents.positions import WeightsDocument
    from agent.app.documents.proposals import ProposalsDocument
    from agent.app.documents.records import ExplanationDocument, ProfitDocument

_TEXT = ArgumentKind("text", lambda text: isinstance(text, str), "write it in quotes")
_CONFIRMATION = ArgumentKind("function", callable, "give a function that returns True or False")
_KIND_BY_ANNOTATION = {
    "str": _TEXT,
    "str | None": replace(_TEXT, is_met=lambda text: isinstance(text, str | None)),
    "bool": ArgumentKind(
        "True or False", lambda choice: isinstance(choice, bool), "write True or False"
    ),
    "int": ArgumentKind(
        "whole number",
        lambda number: isinstance(number, int) and not isinstance(number, bool),
        "write for example 5",
    ),
    "Confirm": replace(_CONFIRMATION, remedy="give a function that returns True to send"),
    "Progress": replace(_CONFIRMATION, remedy="give a function, such as print"),
    "Callable[[str], bool]": _CONFIRMATION,
    "Callable[[WeightsDocument], bool] | None": replace(
        _CONFIRMATION, is_met=lambda accept: accept is None or callable(accept)
    ),
}
_OPTION_BY_ARGUMENT = {"token_in": "--in", "token_out": "--out"}


def _by_arguments(message: str, remedy: str, names: Sequence[str]) -> tuple[str, str]:
    """Return words with arguments in place of the options of the command line."""
    for name in names:
        option = _OPTION_BY_ARGUMENT.get(name, f"--{name}")
        message = re.sub(rf"{option}\b", name, message)
        remedy = re.sub(rf"{option} (\S+)", rf"{name}=\1", remedy)
    if "paper" in names:
        message = message.replace("--start", "value")
    return message, remedy


_checks = CallChecks(_KIND_BY_ANNOTATION, reworded=_by_arguments)


@_checks.methods
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

    def weights(
        self, strategy: str = "", accept: Callable[[WeightsDocument], bool] | None = None
    ) -> WeightsDocument:
        """Return the weights that the allocator or signal would choose now, of the portfolio or of a
        `strategy`. A choice that waits for the owner is `waiting`; the next step uses it if `accept`
        returns True for the document. Raises ConfigError without an allocator, Refused if there is
        nothing to accept.

        >>> agent.weights()["kind"]
        'inverse_volatility'
        """
        return api.weights(self, strategy=strategy, accept=accept)

    def doctor(self) -> DoctorDocument:
        """Check the whole setup by the agent's endpoints and clock, with a remedy for each problem.

        >>> {check["check"]: check["state"] for check in agent.doctor()["checks"]}["config"]
        'ok'
        """
        context = self.context
        return api.doctor(context.loaded_config, context.endpoints.endpoints, context.clock.now_s)

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


@contextmanager
@_checks
def open_agent(
    config: LoadedConfig | Path | str = "trimtab.toml",
    *,
    paper: bool = False,
    value: Amount | Mapping[str, Amount] | None = None,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
    key: SigningKey | None = None,
    record_folder: Path | None = None,
) -> Iterator[LibraryAgent]:
    """Connect to chain and store; close them at the end of the block.

    `key` replaces the config's signing key, `record_folder` the folder of its [record]. With `paper`
    the agent trades on paper, in books of their own and without a key. `value` begins its wallet: on
    target, worth so many whole coins of the numeraire, or with the amounts of a mapping, such as
    {"USDC": 500}; else it is a copy of the real one. A later run goes on; it takes the same `value`
    or none. Raises ConfigError.

    >>> with open_agent("trimtab.toml") as agent:
    ...     agent.status()
    PortfolioStatus(block ...)
    """
    if paper and key is not None:
        raise ConfigError("key: paper trading signs nothing", "omit it")
    if value is not None and not paper:
        raise ConfigError(
            "value: the wallet of the config has its own", "omit it, or add paper=True"
        )
    opened = (
        open_paper(
            config,
            _paper_start(value),
            clock=clock,
            transports=transports,
            record_folder=record_folder,
        )
        if paper
        else connected.open_agent(
            config, clock=clock, transports=transports, record_folder=record_folder, key=key
        )
    )
    with opened as agent:
        yield LibraryAgent(agent.context)


def _paper_start(value: Amount | Mapping[str, Amount] | None) -> PaperStart:
    """Return how a paper wallet begins. Raises ConfigError for what is no amount."""
    if value is None:
        return DEFAULT_START
    if not isinstance(value, Mapping):
        return PaperStart(plain_amount(value, "value"))
    if not value:
        raise ConfigError("value: no amounts", 'write for example value={"USDC": 500}')
    amounts = (f"{symbol}={plain_amount(amount, 'value')}" for symbol, amount in value.items())
    return PaperStart(amounts=",".join(amounts))
