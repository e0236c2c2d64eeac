"""Commands about the portfolio: status, quote, plan, rebalance, swap, run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Send, Yes
from agent.cli.output import emit, err, fail, out, waiting
from agent.errors import EXIT_REFUSED, ConfigError, TrimtabError

if TYPE_CHECKING:
    from agent.api import Agent
    from agent.engine import Outcome

Symbol = Annotated[str, typer.Option(help="Symbol or address of a configured token.")]


def register(app: typer.Typer) -> None:
    """Adds this module's commands."""
    for command in (status, quote, plan, rebalance, swap, run):
        app.command()(command)


def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Holdings, weights, bands, and what the agent would do now."""
    from agent import api
    from agent.cli import documents, tables

    with waiting("Reading the chain", as_json), api.open_agent(config) as agent:
        step, decided = agent.status()
    document = documents.status(step, decided)
    emit(document, as_json, lambda: out.print(tables.holdings(document), tables.decision(document), sep="\n"))


def quote(
    token_in: Annotated[str, typer.Option("--in", help="Token to sell.")],
    token_out: Annotated[str, typer.Option("--out", help="Token to buy.")],
    amount: Annotated[str, typer.Option("--amount", help="How much to sell, in whole coins.")],
    pool: Annotated[str | None, typer.Option("--pool", help="Ask this pool alone.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """What a swap would pay now, over the best split of pools or in one pool."""
    from agent import api
    from agent.cli import documents, tables

    with waiting("Reading the chain", as_json), api.open_agent(config) as agent:
        step, found = agent.quote(token_in, token_out, amount, pool)
        decimals = _decimals(agent)
    document = documents.quote(found, step)
    emit(document, as_json, lambda: out.print(tables.legs(document, decimals)))


def plan(
    config: ConfigPath = DEFAULT_CONFIG,
    input_file: Annotated[Path | None, typer.Option("--input", help="Plan from a saved input instead of the chain.")] = None,
    save_input: Annotated[Path | None, typer.Option("--save-input", help="Save what the plan was made from.")] = None,
    as_json: AsJson = False,
) -> None:
    """The swaps that would restore the targets, with costs and every guard's verdict. Sends nothing."""
    from agent import api

    if input_file is not None:
        outcome = api.plan_from_input(_read(input_file))
    else:
        with waiting("Reading the chain", as_json), api.open_agent(config) as agent:
            outcome = agent.plan()
    if save_input is not None:
        _write(save_input, api.input_text(outcome.step_input))
    raise typer.Exit(_show(outcome, as_json))


def rebalance(config: ConfigPath = DEFAULT_CONFIG, send: Send = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """One step of the agent: decide, plan, and with --send sign and send the whole rebalance in one transaction."""
    from agent import api

    with api.open_agent(config) as agent, waiting("Reading the chain", as_json) as progress:
        outcome = agent.rebalance(send=send, confirm=_confirmer(agent, yes, as_json), progress=progress)
        raise typer.Exit(_show(outcome, as_json, sent=send, agent=agent))


def swap(
    token_in: Annotated[str, typer.Option("--in", help="Token to sell.")],
    token_out: Annotated[str, typer.Option("--out", help="Token to buy.")],
    amount: Annotated[str, typer.Option("--amount", help="How much to sell, in whole coins.")],
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """One swap by hand, under the same guards."""
    from agent import api

    with api.open_agent(config) as agent, waiting("Reading the chain", as_json) as progress:
        confirm = _confirmer(agent, yes, as_json)
        outcome = agent.swap(token_in, token_out, amount, send=send, confirm=confirm, progress=progress)
        raise typer.Exit(_show(outcome, as_json, sent=send, agent=agent))


def run(
    config: ConfigPath = DEFAULT_CONFIG,
    once: Annotated[bool, typer.Option("--once", help="One step, then exit.")] = False,
    every: Annotated[str, typer.Option("--every", help="How often to look, such as 10m.")] = "10m",
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Steps on and on until stopped. Errors that may pass are waited out; what needs a person ends the run."""
    from agent import api

    with api.open_agent(config) as agent:
        confirm = _confirmer(agent, yes, as_json)
        code = 0
        for result in agent.run(send=send, confirm=confirm, every=every, once=once):
            if isinstance(result, TrimtabError):
                code = fail(result, as_json)
            else:
                code = _show(result, as_json, sent=send, agent=agent)
        raise typer.Exit(code)


def _confirmer(agent: Agent, yes: bool, as_json: bool) -> Any:
    """Asks once before anything is sent, after showing the plan and the parameters that bind it."""

    def confirm(outcome: Outcome) -> bool:
        if yes:
            return True
        if as_json or not err.is_terminal:
            raise ConfigError("--send needs a confirmation and nobody can be asked here", "add --yes, or run it in a terminal")
        from agent.cli import documents, tables

        tables.show_plan(err, documents.plan(outcome), _decimals(agent))
        err.print(tables.parameters(agent.parameters()))
        return typer.confirm("Sign and send this?", err=True)

    return confirm


def _show(outcome: Outcome, as_json: bool, sent: bool = False, agent: Agent | None = None) -> int:
    from agent.cli import documents, tables

    decimals = {asset.token.label: asset.token.decimals for asset in outcome.step_input.portfolio.assets}
    decimals |= {hub.label: hub.decimals for hub in outcome.step_input.portfolio.hubs}
    document = documents.rebalance(outcome, agent.realised(outcome)) if sent and agent else documents.plan(outcome)
    if outcome.after is not None and agent is not None:
        document["weights_after_bps"] = agent.weights(outcome.after)

    def show() -> None:
        if outcome.kind.value not in ("done", "failed", "declined"):
            tables.show_plan(out, document, decimals)
            if outcome.kind.value == "planned":
                out.print("Dry run: nothing was sent. Add --send to sign and send.")
            return
        if document["transactions"]:
            out.print(tables.transactions(document))
            out.print(tables.realised(document, decimals))
        out.print(f"{outcome.kind.value}: {outcome.reason}", markup=False)

    emit(document, as_json, show)
    return EXIT_REFUSED if outcome.kind.value in ("refused", "halt", "failed") and (sent or outcome.kind.value == "refused") else 0


def _decimals(agent: Agent) -> dict[str, int]:
    portfolio = agent.portfolio
    return {t.label: t.decimals for t in (*(a.token for a in portfolio.assets), *portfolio.hubs)}


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"--input {path}: {error.strerror}", "name a file that plan --save-input wrote") from None


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise ConfigError(f"--save-input {path}: {error.strerror}", "choose a folder that exists and can be written") from None
