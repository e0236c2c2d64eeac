"""The `trimtab` command: builds the command line. Commands import what they need only when they
run.
"""

from __future__ import annotations

import atexit
import errno
import gc
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import Annotated, Any

import click
import typer

from agent import cli
from agent.cli.display import terminal
from agent.cli.display.help import CommandLine
from agent.cli.display.hints import running_command
from agent.cli.display.terminal import print_error
from agent.cli.options import DECLARED_COMMANDS, DeclaredCommand
from agent.errors import ConfigError, OperatorNeeded, TrimtabError, internal_error

_SECRET_PATTERN = re.compile(r"(0x)?[0-9a-fA-F]{64}|https?://\S+|(?<=')(\w+ ){11,}\w+")
"""A private key, URL or recovery phrase typed in place of a name."""
GC_THRESHOLD = 300_000
"""Objects between two passes of the garbage collector. Imports create about as many permanent
objects; scanning them took a fifth of the time of `status`.
"""
TYPER_INTERRUPTED_EXIT = 128 + 2
"""Typer's exit code of Ctrl-C; no command returns it."""


def declared_commands() -> list[DeclaredCommand]:
    """Load every module of agent/cli, and return the commands in their order."""
    for module in iter_modules(cli.__path__):
        import_module(f"agent.cli.{module.name}")
    return sorted(DECLARED_COMMANDS, key=lambda declared_command: declared_command.sort_key)


def build_app(commands: Iterable[DeclaredCommand]) -> typer.Typer:
    """Build the command line of these commands."""
    typer_app = typer.Typer(
        name="trimtab",
        cls=CommandLine,
        help="Keeps a wallet's tokens at their target weights, with every cost bounded.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="rich",
    )
    typer_app.callback()(_root)
    for command in commands:
        if isinstance(command.function_or_group, typer.Typer):
            for subcommand in command.function_or_group.registered_commands:
                if subcommand.callback is not None:
                    subcommand.help = subcommand.help or help_text(subcommand.callback)
            typer_app.add_typer(
                command.function_or_group, name=command.name, rich_help_panel=command.heading.value
            )
        else:
            heading = command.heading.value
            typer_app.command(
                command.name, help=help_text(command.function_or_group), rich_help_panel=heading
            )(command.function_or_group)
    return typer_app


def help_text(command_function: Callable[..., Any]) -> str:
    """Return the help of a command: its docstring with each paragraph on one line, since Typer
    keeps line breaks of later paragraphs and the terminal wraps them again.
    """
    paragraphs = (inspect.getdoc(command_function) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _print_version(is_requested: bool) -> None:
    if is_requested:
        from importlib.metadata import version

        typer.echo(f"trimtab {version('trimtab')}")
        raise typer.Exit


def _root(
    _version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            is_eager=True,
            callback=_print_version,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    running_command.config = None
    running_command.on_paper = False


app = build_app(declared_commands())


def _safe_message(error: click.ClickException) -> str:
    """Return the message without text that may be a key, a recovery phrase or an endpoint's URL."""
    message = error.format_message()
    if _has_extra_arguments(error):
        return (
            "too many arguments; they are not repeated here, because keys and passwords are typed"
            " at a prompt, never passed as arguments"
        )
    if _is_negative_amount(error):
        return "AMOUNT must be above 0"
    return _SECRET_PATTERN.sub("(hidden)", message)


def _has_extra_arguments(error: click.ClickException) -> bool:
    return error.format_message().startswith("Got unexpected extra argument")


def _is_negative_amount(error: click.ClickException) -> bool:
    """True if an amount with a minus was read as an option."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return False
    argument_names = [
        parameter.name
        for parameter in error.ctx.command.params
        if isinstance(parameter, click.Argument)
    ]
    return re.match(r"-[0-9.]", error.option_name) is not None and "amount" in argument_names


def _grouped_name_error(error: click.ClickException) -> ConfigError | None:
    """Return the error for a name of a grouped option that was written as an option of its own."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None:
        return None
    command_name = error.ctx.info_name
    spellings = (
        grouped_option.spelling_of(error.option_name)
        for command in DECLARED_COMMANDS
        if command.name == command_name
        for grouped_option in command.grouped_options
    )
    return next(
        (
            ConfigError(f"{error.option_name}: no option of {command_name}", f"write {text}")
            for text in spellings
            if text is not None
        ),
        None,
    )


COMMAND_BY_WORD = {
    "proposal approve": "trimtab proposal sign",
    "proposal cancel": "trimtab cancel --send",
    "proposal confirm": "trimtab proposal sign",
    "proposal reject": "trimtab cancel --send",
    "proposal send": "trimtab proposal execute --send",
    "proposal withdraw": "trimtab cancel --send",
}
"""What does what the words of a Safe's owner say, where the most similar command does something else."""


def _other_word_error(error: click.ClickException) -> ConfigError | None:
    """Return the error for a word of `COMMAND_BY_WORD`, with its command."""
    match = re.match(r"No such command '(\w+)'", error.message)
    context = error.ctx if isinstance(error, click.UsageError) else None
    if match is None or context is None:
        return None
    command = COMMAND_BY_WORD.get(f"{context.info_name} {match[1]}")
    if command is None:
        return None
    return ConfigError(f"{match[0]}.", f"write {command}; see trimtab {context.info_name} --help")


def _number_remedy(number_type: object) -> str:
    """Return what to write where a whole number is expected; empty elsewhere."""
    if not isinstance(number_type, click.types.IntParamType):
        return ""
    lowest = getattr(number_type, "min", None)
    highest = getattr(number_type, "max", None)
    lowest_text = "" if lowest is None else f" from {lowest}"
    highest_text = "" if highest is None else f" to {highest}"
    return f"write a whole number{lowest_text}{highest_text}; "


def _usage_remedy(error: click.ClickException) -> str:
    """Return the required options where one is missing, the arguments where there are too many, the numbers allowed where one is wrong, and
    the command whose help describes the expected input.
    """
    command_names = ["trimtab"]
    click_context = error.ctx if isinstance(error, click.UsageError) else None
    while click_context is not None and click_context.parent is not None:
        command_names.insert(1, click_context.info_name or "")
        click_context = click_context.parent
    command_line = " ".join(command_names)
    help_remedy = f"see {command_line} --help"
    has_extra = _has_extra_arguments(error)
    is_usage_wrong = has_extra or isinstance(error, click.MissingParameter)
    if not is_usage_wrong or not isinstance(error, click.UsageError) or error.ctx is None:
        number_type = getattr(getattr(error, "param", None), "type", None)
        return f"{_number_remedy(number_type)}{help_remedy}"
    usage = [
        f"{parameter.opts[0]} {parameter.human_readable_name.upper()}"
        if isinstance(parameter, click.Option)
        else parameter.human_readable_name
        if parameter.required
        else f"[{parameter.human_readable_name}]"
        for parameter in error.ctx.command.params
        if parameter.required or (has_extra and isinstance(parameter, click.Argument))
    ]
    return f"write {' '.join((command_line, *usage))}; {help_remedy}"


def main() -> None:
    """Run the command line.

    Exit codes: 0 done or nothing to do, 2 invalid input, 10 refused, 11 retry later, 12 operator
    needed, 13 a run hung, 14 a replay decided differently, 15 a run is not healthy. Ctrl-C: 12 with
    --send, 130 without, 0 of a run.
    """
    gc.set_threshold(GC_THRESHOLD)
    # skip garbage collection at exit, which would take as long as a cycle of the agent
    atexit.register(gc.freeze)
    terminal.replace_unencodable()
    as_json = "--json" in sys.argv
    process_exit = terminal.command_exit(sys.argv[1:])
    try:
        with terminal.exit_after_interrupt(process_exit):
            exit_code = _run(as_json, process_exit)
            sys.stdout.flush()
    except KeyboardInterrupt:  # before the signal handlers were set, or after they were removed
        exit_code = _report_interruption(as_json, process_exit)
    except OSError as error:  # the report is lost, but the transactions are in the journal
        terminal.report_lost_output(error)
        exit_code = 0 if _is_closed_help_pipe(error.errno) else OperatorNeeded.exit_code
    sys.exit(exit_code)


def _is_closed_help_pipe(error_number: int | None) -> bool:
    """Return whether a pipe was closed while help or version was printed, as by head: the reader
    has all that it wants.
    """
    prints_help = {"--help", "-h", "--version", "-V"} & {*sys.argv} or sys.argv[1:2] == ["help"]
    return error_number == errno.EPIPE and bool(prints_help)


_PATH_ERRNOS = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""Answers of the system to a path that cannot be used, of which it says the same at each look."""


def _run(as_json: bool, process_exit: terminal.ProcessExit) -> int:
    """Run one command and return its exit code. Raises OSError if an output cannot be written."""
    try:
        exit_code = app(standalone_mode=False)
        if exit_code == TYPER_INTERRUPTED_EXIT:
            raise KeyboardInterrupt
    except SystemExit as ending:
        if isinstance(ending.__context__, OSError):  # Rich's and Typer's answer to a closed pipe
            raise ending.__context__ from None
        raise
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        exit_code = 2
    except click.ClickException as error:
        exit_code = print_error(
            _grouped_name_error(error)
            or _other_word_error(error)
            or ConfigError(_safe_message(error), _usage_remedy(error)),
            as_json,
        )
    except (click.exceptions.Abort, KeyboardInterrupt):
        exit_code = _report_interruption(as_json, process_exit)
    except TrimtabError as error:
        exit_code = print_error(error, as_json)
    except Exception as error:  # a bug: the traceback is for the report, the document for machines
        if isinstance(error, OSError) and terminal.is_output_error(error):
            raise
        if isinstance(error, OSError) and error.filename and error.errno in _PATH_ERRNOS:
            path_error = ConfigError(
                f"{error.filename}: {error.strerror}",
                "check the path, and the rights to its folders",
            )
            return print_error(path_error, as_json)
        if (
            process_exit.was_interrupted
        ):  # native code may turn a KeyboardInterrupt into another error
            return _report_interruption(as_json, process_exit)
        sys.stderr.write(terminal.without_known_secrets(traceback.format_exc()))
        exit_code = print_error(
            internal_error(error, "this is a bug; report it with the lines above"), as_json
        )
    return exit_code if isinstance(exit_code, int) else 0


def _report_interruption(as_json: bool, process_exit: terminal.ProcessExit) -> int:
    return (
        print_error(process_exit.error, as_json)
        if process_exit.claim_report()
        else process_exit.error.exit_code
    )
