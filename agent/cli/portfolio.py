"""Portfolio commands: status, quote, plan, rebalance, swap, limit."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent import app as api
from agent.cli.display.several import PortfolioAnswer, answer_for_each
from agent.cli.display.terminal import (
    READING_CHAIN_TEXT,
    Spinner,
    ask,
    ask_with_changes,
    emit,
    err,
    note,
    out,
    require_answerable,
    say,
    show_spinner,
)
from agent.cli.money import dry_run_text, noting_executions, proposes
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    ConfigPaths,
    Heading,
    OnPaper,
    PrintStyle,
    Send,
    Verbose,
    Yes,
    command,
    mark_paper,
    paper_or_live,
)
from agent.errors import EXIT_OK, EXIT_REFUSED, OUTCOME_EXIT_CODES, ConfigError
from agent.figures import replace_pool_addresses
from agent.files import replace_file
from agent.units import format_time

if TYPE_CHECKING:
    from agent.app import Agent, LimitOrderRequest, StoppableClock
    from agent.app.documents.plans import LimitPricesDocument
    from agent.app.documents.records import WaitingOrdersDocument
    from agent.cli.display.terminal import Document
    from agent.execution.step_context import StepOutcome
    from agent.model import LimitOrder


@command(Heading.LOOK, 10)
def status(config: ConfigPaths = None, paper: OnPaper = False, as_json: AsJson = False) -> None:
    """Shows holdings, weights, bands and the agent's next decision."""
    from agent.app.documents.status import status_document
    from agent.cli.display import futures_tables, plan_tables, status_tables

    def ask_one(path: Path) -> PortfolioAnswer:
        with show_spinner(READING_CHAIN_TEXT), api.open_agent(paper_or_live(path, paper)) as agent:
            portfolio_status = agent.status()
            is_safe = agent.context.config.wallet.safe
        document = mark_paper(status_document(portfolio_status), paper)

        def show() -> None:
            status_tables.show_status(out, document, is_safe=is_safe)
            if "futures" in document:
                futures_tables.show_futures_summary(out, document)
            _show_target_reasons(document)
            plan_tables.show_execution(out, document)

        return PortfolioAnswer(document, show)

    answer_for_each(config, as_json, ask_one)


@command(Heading.LOOK, 30)
def quote(
    token_in: Annotated[str, typer.Option("--in", help="Token to sell.")],
    token_out: Annotated[str, typer.Option("--out", help="Token to buy.")],
    amount: Annotated[str, typer.Option("--amount", help="Amount to sell, in whole coins.")],
    pool: Annotated[str | None, typer.Option("--pool", help="Quote only this pool.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Quotes a swap over the best split of pools, or in one pool."""
    from agent.app.documents import plans
    from agent.cli.display import plan_tables

    with show_spinner(READING_CHAIN_TEXT), api.open_agent(config) as agent:
        document = agent.quote(token_in, token_out, amount, pool)
    emit(
        document,
        as_json,
        lambda: plan_tables.show_quote(out, document, plans.decimals_by_label(agent.portfolio)),
    )


@command(Heading.LOOK, 20)
def plan(
    config: ConfigPath = DEFAULT_CONFIG,
    input_file: Annotated[
        Path | None, typer.Option("--input", help="Plan from a saved input, not from the chain.")
    ] = None,
    save_input: Annotated[
        Path | None, typer.Option("--save-input", help="Save the input of the plan to this file.")
    ] = None,
    paper: OnPaper = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Plans the swaps that restore the targets. Shows costs and the verdict of each guard, sends
    nothing.
    """
    agent: Agent | None = None
    extra_fields: dict[str, object] = {}
    if input_file is not None:
        if paper:
            raise ConfigError(
                "--input and --paper cannot be combined",
                "omit --paper: a saved input already contains its wallet and balances",
            )
        outcome = _plan_input_file(input_file)
        hint = "Plan from a file: guards that need live data did not run."
    else:
        with (
            show_spinner(READING_CHAIN_TEXT),
            api.open_agent(paper_or_live(config, paper)) as agent,
        ):
            outcome = agent.plan()
            extra_fields = agent.shown_plan_fields(outcome)
        hint = "To send it: trimtab rebalance --send"
        if paper:
            hint = "To trade it on paper: trimtab paper --once"
    if save_input is not None:
        try:
            replace_file(save_input, api.input_text(outcome.step_input).encode())
        except OSError as error:
            raise ConfigError(
                f"--save-input {save_input}: {error.strerror}",
                "choose an existing writable folder",
            ) from None
    raise typer.Exit(
        show_outcome(
            outcome,
            agent,
            PrintStyle(as_json, verbose),
            send_allowed=False,
            hint=hint,
            extra_fields=extra_fields,
        )
    )


@command(Heading.TRADE, 10)
def rebalance(
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Runs one step: decide, plan, and with --send sign and send. A rebalance is one
    transaction.
    """
    if send:
        require_answerable(yes)
    with api.open_agent(config) as agent, show_spinner(READING_CHAIN_TEXT) as spinner:
        confirm = confirmer(agent, yes, spinner, verbose=verbose)
        with noting_executions(agent) as extra_fields:
            outcome = agent.rebalance(
                send=send, confirm=confirm, progress=noting_waits(spinner.update)
            )
        with spinner.hidden():
            raise typer.Exit(
                show_outcome(
                    outcome,
                    agent,
                    PrintStyle(as_json, verbose),
                    send_allowed=send,
                    extra_fields=extra_fields,
                )
            )


@command(Heading.TRADE, 30)
def swap(
    token_in: Annotated[str, typer.Option("--in", help="Token to sell.")],
    token_out: Annotated[str, typer.Option("--out", help="Token to buy.")],
    amount: Annotated[str, typer.Option("--amount", help="Amount to sell, in whole coins.")],
    price: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--price",
            metavar="PRICE UNIT",
            help="Limit price in either direction, net of fees and impact: 3100 USDC/WETH.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", help="Expiry of the limit order: 4h, or 2027-01-31T18:00Z."),
    ] = None,
    waits_for_fill: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Wait until the order is filled or expired; otherwise trimtab run fills it.",
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Although an equal order is open, which is otherwise continued, or was filled"
            " within the hour.",
        ),
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Swaps two tokens under the same guards. With --price and --until places a limit order (see
    trimtab limit).
    """
    if (price is None) != (until is None) or ((waits_for_fill or again) and price is None):
        raise ConfigError(
            "--price needs --until, and --wait and --again need both",
            f"for example --price 2000 {token_out}/{token_in} --until 4h",
        )
    limit_price = None if price is None else api.limit_price_text(*price, token_in, token_out)
    if send:
        require_answerable(yes)
    if limit_price is not None and until is not None:
        order_request = api.LimitOrderRequest(
            token_in, token_out, amount, limit_price, until, waits_for_fill, again
        )
        raise typer.Exit(
            place_limit_order(
                config, order_request, send=send, yes=yes, verbose=verbose, as_json=as_json
            )
        )
    with api.open_agent(config) as agent, show_spinner(READING_CHAIN_TEXT) as spinner:
        confirm = confirmer(agent, yes, spinner, verbose=verbose)
        with noting_executions(agent) as extra_fields:
            outcome = agent.swap(
                token_in, token_out, amount, send=send, confirm=confirm, progress=spinner.update
            )
        manual_decision = {
            "kind": "rebalance",
            "reason": f"manual swap of {amount} {token_in} for {token_out}",
            "outcome": outcome.kind.value,
        }
        if outcome.kind.value == "refused":
            extra_fields["decision"] = manual_decision
        with spinner.hidden():
            raise typer.Exit(
                show_outcome(
                    outcome,
                    agent,
                    PrintStyle(as_json, verbose),
                    send_allowed=send,
                    extra_fields=extra_fields,
                )
            )


def confirmer(
    agent: Agent,
    yes: bool,
    spinner: Spinner,
    clock: StoppableClock | None = None,
    *,
    verbose: bool = False,
) -> Callable[[StepOutcome], bool]:
    """Return a confirmation that asks once before anything is sent, after showing the plan and its
    binding parameters.
    """

    def confirm(outcome: StepOutcome) -> bool:
        from agent.app import config_versions

        if yes:
            return config_versions.confirm_without_asking(agent.context)
        from agent.app.documents import plans
        from agent.cli.display import plan_tables

        with spinner.hidden(), clock.interruptible() if clock else nullcontext():
            document = plans.plan_document(outcome)
            parameters = agent.confirmed_parameters()
            plan_tables.show_plan(
                err,
                document,
                plans.decimals_by_label(agent.portfolio),
                verbose=verbose,
                details_option="--verbose",
            )
            if verbose:
                err.print(plan_tables.parameters_table(parameters))
            else:
                note(plan_tables.signing_text(parameters))
            question = "Propose this?" if proposes(agent) else "Sign and send this?"
            return config_versions.confirm_changes(
                agent.context, lambda lines: ask_with_changes(lines, question)
            )

    return confirm


def show_outcome(
    outcome: StepOutcome,
    agent: Agent | None,
    style: PrintStyle,
    *,
    send_allowed: bool,
    hint: str = "",
    extra_fields: dict[str, object] | None = None,
) -> int:
    """Print an outcome, with its transactions if sending was allowed, and return the exit code.
    Without an agent, the plan is from a file.
    """
    from agent.app.documents import plans
    from agent.cli.display import plan_tables

    document: Document = (
        plans.plan_document(outcome)
        if agent is None
        else agent.plan_document(outcome, extra_fields or {}, send_allowed=send_allowed)
    )
    decimals_by_symbol = plans.decimals_by_label(outcome.step_input.portfolio)

    def show() -> None:
        for execution_text in document.get("booked_proposals", ()):
            say(f"Booked: {execution_text}")
        kind = document["outcome"]
        if kind not in ("done", "failed", "declined"):
            plan_tables.show_plan(
                out, document, decimals_by_symbol, verbose=style.verbose, details_option="--verbose"
            )
            _show_target_reasons(document)
            for opinion in document.get("second_opinions", ()):
                say(opinion["text"])
        if document.get("transactions"):
            plan_tables.show_step_results(out, document, decimals_by_symbol)
        if kind in ("done", "failed", "declined"):
            say(f"{kind}: {document['reason']}")
            if kind == "done":
                plan_tables.show_off_target_assets(out, document)
        elif kind == "planned":
            if (sandwich := document.get("sandwich")) is not None and sandwich["public"]:
                unit = document["numeraire"]
                note(
                    f"{sandwich['submission']}: a sandwich attack may cost this plan up to"
                    f" {sandwich['at_most']} {unit} and earn an attacker up to"
                    f" {sandwich['profit_at_most']} {unit}, fees and impact included."
                )
            say(hint or dry_run_text(agent))

    emit(document, style.as_json, show, style.one_line)
    return OUTCOME_EXIT_CODES.get(document["outcome"], 0)


def noting_waits(update: Callable[[str], None]) -> Callable[[str], None]:
    """Return a progress callback that also notes on stderr, outside a terminal, which slice or
    block a command waits for, each once: the wait may take minutes.
    """
    last_text = ""

    def progress(progress_text: str) -> None:
        nonlocal last_text
        update(progress_text)
        text_without_seconds = re.sub("waiting [0-9]+ s to be", "waiting to be", progress_text)
        is_wait = text_without_seconds != progress_text or progress_text.startswith("slice ")
        if is_wait and text_without_seconds != last_text and not err.is_terminal:
            note(text_without_seconds)
        last_text = text_without_seconds

    return progress


def format_reason(outcome: StepOutcome) -> str:
    """Return the reason of an outcome, without the kind that it begins with, and with pool
    names in place of addresses.
    """
    from agent.app.describe import pool_names

    reason = replace_pool_addresses(
        outcome.reason, pool_names(outcome.step_input.snapshot, outcome.step_input.portfolio)
    )
    return reason.removeprefix(f"{outcome.kind.value}: ")


def _show_target_reasons(document: Document) -> None:
    """Print the reasons for targets that differ from the config."""
    for reason in document["target_reasons"]:
        say(f"Targets: {reason}.")


def _plan_input_file(path: Path) -> StepOutcome:
    remedy = "use a file written by plan --save-input"
    try:
        return api.plan_saved_input(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--input {path}: {error.strerror}", remedy) from None
    except UnicodeDecodeError:
        raise ConfigError(f"--input {path}: is not text", remedy) from None
    except ConfigError as error:
        raise ConfigError(f"--input {path}: {error.message}", remedy) from None


FAR_LIMIT_BPS = 2_000
"""Distance of a limit from the market beyond which a confirmation is needed, since the price may be
inverted.
"""
FILL_NOTE = "Only trimtab run --send fills open limit orders; trimtab rebalance does not."


@command(Heading.TRADE, 40)
def limit(
    cancel: Annotated[
        str | None,
        typer.Option("--cancel", help="Id of the limit order or gradual execution to cancel."),
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Lists limit orders (trimtab swap --price) and gradual executions. Only trimtab run --send
    fills a limit order.
    """
    if cancel is not None:
        cancelled_document = api.cancel_order_or_execution(config, cancel)
        emit(
            cancelled_document,
            as_json,
            lambda: say(f"Ended: {cancel}. Sent transactions are not reverted."),
        )
        return
    document = api.orders_and_executions(config)
    emit(document, as_json, lambda: _show_limit_orders(document))


def place_limit_order(
    config: Path, request: LimitOrderRequest, *, send: bool, yes: bool, verbose: bool, as_json: bool
) -> int:
    """Place an order, or show its effect; return the exit code."""
    with api.open_agent(config) as agent, show_spinner(READING_CHAIN_TEXT) as spinner:
        order, outcome = api.swap_at_limit(
            agent,
            request,
            send=send,
            confirm=confirmer(agent, yes, spinner, verbose=verbose),
            progress=spinner.update,
            confirm_price=lambda prices: yes or _confirm_distance(prices, spinner),
        )
        prices = api.limit_prices(order, outcome.step_input)
        with spinner.hidden():
            order_fields: dict[str, object] = {"order": api.order_document(order), "prices": prices}
            exit_code = show_outcome(
                outcome,
                agent,
                PrintStyle(as_json, verbose),
                send_allowed=send,
                extra_fields=order_fields,
            )
            if not as_json:
                say(_limit_text(prices))
                say(_order_text(order))
                if order.id and order.state == "open":
                    say(FILL_NOTE)
    if not order.id:
        return exit_code
    if order.state in ("filled", "open") and outcome.kind.value not in ("declined", "failed"):
        return EXIT_OK
    return exit_code or EXIT_REFUSED


def _order_text(order: LimitOrder) -> str:
    """Format an order and its state; an open one with its times, which may be those of an equal
    order that was placed before.
    """
    if not order.id:
        return f"Order (not placed): {order.note}"
    state_text = f"{order.state}: {order.why}" if order.why else order.state
    if order.state == "open":
        state_text = f"open since {format_time(order.begun_s)}, until {format_time(order.until_s)}"
    return f"Order {order.id}: {order.note}; {state_text}"


def _limit_text(prices: LimitPricesDocument) -> str:
    """Format limit and market price, in both directions, and their distance."""
    market_text = "the market price is unknown"
    if prices["market"] is not None and prices["off_bps"] is not None:
        market_text = (
            f"market {' or '.join(prices['market'])}; the limit is {prices['off_bps'] / 100:+.2f} %"
            " from it"
        )
    return f"Limit {' or '.join(prices['limit'])}; {market_text}."


def _confirm_distance(prices: LimitPricesDocument, spinner: Spinner) -> bool:
    """Return whether the limit is near the market, or far from it and confirmed."""
    if prices["off_bps"] is None or abs(prices["off_bps"]) <= FAR_LIMIT_BPS:
        return True
    with spinner.hidden():
        note(_limit_text(prices))
        return ask(f"The limit is more than {FAR_LIMIT_BPS // 100} % from the market. Continue?")


def _show_limit_orders(document: WaitingOrdersDocument) -> None:
    from agent.cli.display import plan_tables, tables

    if not document["orders"] and not document["gradual_executions"]:
        say("No limit orders and no gradual executions. To place an order: trimtab swap --price")
        return
    if document["orders"]:
        out.print(
            tables.table(
                "Open limit orders",
                ("id", "order", "until", "state"),
                rows=(
                    (
                        order["id"],
                        order["note"],
                        order["until"],
                        f"{order['state']}: {order['why']}" if order["why"] else order["state"],
                    )
                    for order in document["orders"]
                ),
            )
        )
    if any(order["state"] == "open" for order in document["orders"]):
        say(FILL_NOTE)
    if document["gradual_executions"]:
        out.print(plan_tables.executions_table(document["gradual_executions"]))
