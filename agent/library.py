"""An agent with the commands that open their own connection as methods too: what `open_agent` gives to
Python programs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from inspect import getmembers, isfunction, isgeneratorfunction, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from agent import app as api
from agent.app import agent as connected
from agent.app.agent import Agent
from agent.app.paper import PaperStart, open_paper
from agent.calls import check_call
from agent.chain.rpc import Transport
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError
from agent.ports import Clock, SigningKey
from agent.units import Amount, plain_amount

if TYPE_CHECKING:
    from agent.app.documents.owner import DoctorDocument, PauseDocument
    from agent.app.documents.proposals import ProposalsDocument
    from agent.app.documents.records import ExplanationDocument, ProfitDocument

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")


@dataclass(frozen=True, slots=True)
class MethodArgument:
    """What an argument of a method may be: its name in a sentence, its types, and what to write."""

    noun: str
    types: Any
    remedy: str

    def is_met(self, argument: object) -> bool:
        """Return whether an argument is of the types; True is no whole number."""
        return isinstance(argument, self.types) and (
            self.types is bool or not isinstance(argument, bool)
        )


_TEXT = MethodArgument("text", str, "write it in quotes")
_FUNCTION = MethodArgument("function", Callable, "give a function, such as print")
_KIND_BY_ANNOTATION = {
    "str": _TEXT,
    "str | None": replace(_TEXT, types=(str, type(None))),
    "bool": MethodArgument("True or False", bool, "write True or False"),
    "int": MethodArgument("whole number", int, "write for example 5"),
    "Confirm": replace(_FUNCTION, remedy="give a function that returns True to send"),
    "Progress": _FUNCTION,
    "Callable[[str], bool]": replace(
        _FUNCTION, remedy="give a function that returns True or False"
    ),
}
_OPTION_BY_ARGUMENT = {"token_in": "--in", "token_out": "--out"}


def checked_arguments(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Check the names of a function's arguments, and which are texts, whole numbers, True or False,
    and functions, and let its errors name arguments in place of the options of the command line.
    """
    call = signature(function)
    kind_by_name = {
        name: _KIND_BY_ANNOTATION[parameter.annotation]
        for name, parameter in call.parameters.items()
        if parameter.annotation in _KIND_BY_ANNOTATION
    }

    def check(arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        check_call(function, *arguments, **options)
        for name, argument in call.bind(*arguments, **options).arguments.items():
            kind = kind_by_name.get(name)
            if kind is not None and not kind.is_met(argument):
                raise ConfigError(f"{name}: {repr(argument)[:60]} is no {kind.noun}", kind.remedy)

    @wraps(function)
    def with_arguments(*arguments: Parameters.args, **options: Parameters.kwargs) -> Returned:
        check(arguments, options)
        if isgeneratorfunction(function):
            return cast(
                "Returned", _named_generator(function(*arguments, **options), list(call.parameters))
            )
        with _naming(call.parameters):
            return function(*arguments, **options)

    return with_arguments


def _named_generator(generator: Any, names: Iterable[str]) -> Iterator[Any]:
    with _naming(names):
        yield from generator


@contextmanager
def _naming(names: Iterable[str]) -> Iterator[None]:
    """Let errors name arguments in place of the options of the command line."""
    try:
        yield
    except ConfigError as error:
        message = error.message
        remedy = error.remedy
        for name in names:
            option = _OPTION_BY_ARGUMENT.get(name, f"--{name}")
            message = re.sub(rf"{option}\b", name, message)
            remedy = re.sub(rf"{option} (\S+)", rf"{name}=\1", remedy)
        if (message, remedy) == (error.message, error.remedy):
            raise
        raise type(error)(message, remedy, code=error.code) from error.__cause__


def _checked_methods(agent_class: type[LibraryAgent]) -> type[LibraryAgent]:
    """Return the class whose public methods check their arguments."""
    for name, method in getmembers(agent_class, isfunction):
        if not name.startswith("_"):
            setattr(agent_class, name, checked_arguments(method))
    return agent_class


@_checked_methods
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
@checked_arguments
def open_agent(
    config: LoadedConfig | Path | str = "trimtab.toml",
    *,
    paper: bool = False,
    value: Amount | None = None,
    transports: Sequence[Transport] | None = None,
    clock: Clock | None = None,
    key: SigningKey | None = None,
    record_folder: Path | None = None,
) -> Iterator[LibraryAgent]:
    """Connect to chain and store; close them at the end of the block.

    `key` replaces the config's signing key, `record_folder` the folder of its [record]. With `paper`
    the agent trades on paper, in books of their own and without a key; the first time, `value` is
    that of its wallet, in whole coins of the numeraire, else it is a copy of the real one. Raises
    ConfigError.
    """
    if paper and key is not None:
        raise ConfigError("key: paper trading signs nothing", "omit it")
    if value is not None and not paper:
        raise ConfigError(
            "value: the wallet of the config has its own", "omit it, or add paper=True"
        )
    start = PaperStart("" if value is None else plain_amount(value, "value"))
    opened = (
        open_paper(config, start, clock=clock, transports=transports, record_folder=record_folder)
        if paper
        else connected.open_agent(
            config, clock=clock, transports=transports, record_folder=record_folder, key=key
        )
    )
    with opened as agent:
        yield LibraryAgent(agent.context)
