"""Set-up commands: init, doctor, trust, deploy, wallet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click
import typer
from click.core import ParameterSource

from agent import app as api
from agent.cli.display.terminal import (
    Document,
    ask,
    emit,
    err,
    hidden_prompt,
    is_interactive,
    note,
    out,
    require_answerable,
    safe_text,
    say,
    show_spinner,
    without_known_secrets,
)
from agent.cli.options import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigPath,
    Heading,
    PasswordDescriptor,
    PasswordEnv,
    Send,
    Yes,
    command,
    command_group,
    config_option,
)
from agent.errors import EXIT_REFUSED, EXIT_USAGE, OUTCOME_EXIT_CODES, ConfigError, Interrupted
from agent.figures import as_sentence, format_figure
from agent.units import format_bps, parse_bps

if TYPE_CHECKING:
    from agent.app.documents.owner import InitDocument
    from agent.app.start.guide import InitAnswers
    from agent.app.start.setup import FuturesStart
    from agent.cli.display.tables import FigureTable

DEFAULT_NUMERAIRE = "USDC"
"""Numeraire of a new config without --numeraire, and always with the dialogue."""


@command(Heading.SET_UP, 10)
def init(
    wallet: Annotated[str | None, typer.Option("--wallet", help="Address of the wallet.")] = None,
    rpc: Annotated[
        list[str] | None,
        typer.Option(
            "--rpc", help="VARIABLE=OPERATOR, once per endpoint; the variable holds the URL."
        ),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", help="SYMBOL=SHARE, once per token: WETH=50%.")
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template", help="Portfolio template instead of targets; see trimtab templates."
        ),
    ] = None,
    stable: Annotated[
        str | None,
        typer.Option("--stable", help="Share of stable tokens in the template stable-reserve."),
    ] = None,
    network: Annotated[
        str,
        typer.Option("--network", help="Chain, or the config file of a trimtab localchain."),
    ] = "ethereum",
    numeraire: Annotated[
        str, typer.Option("--numeraire", help="Symbol of the unit of account.")
    ] = DEFAULT_NUMERAIRE,
    price: Annotated[
        str | None,
        typer.Option("--price", help="Dollars per coin of the numeraire; default: its price feed."),
    ] = None,
    token_list: Annotated[
        Path | None, typer.Option("--token-list", help="Token list file to resolve symbols.")
    ] = None,
    token_list_sha256: Annotated[
        str | None, typer.Option("--token-list-sha256", help="Expected SHA-256 of the token list.")
    ] = None,
    futures: Annotated[
        str | None,
        typer.Option(
            "--futures", help="Add futures by a profile: conservative, moderate or aggressive."
        ),
    ] = None,
    futures_venue: Annotated[
        Path | None,
        typer.Option(
            "--futures-venue",
            help="Futures venue: hyperliquid, hyperliquid-testnet, or a TOML file of contracts.",
        ),
    ] = None,
    futures_target: Annotated[
        list[str] | None,
        typer.Option(
            "--futures-target",
            help="SYMBOL=SHARE of the notional, negative for a short; default: as the portfolio.",
        ),
    ] = None,
    use_cash: Annotated[
        str | None,
        typer.Option("--use-cash", help="Maximum numeraire to use from the wallet; default: all."),
    ] = None,
    ceiling: Annotated[
        str | None,
        typer.Option(
            "--ceiling",
            help="Largest value to manage, and to pay out in a day; default: from --use-cash, at"
            " least 1000 dollars.",
        ),
    ] = None,
    alert: Annotated[
        str | None,
        typer.Option(
            "--alert", help="NAME=VARIABLE of an alert target; the variable holds its address."
        ),
    ] = None,
    safe: Annotated[
        bool, typer.Option("--safe", help="The wallet is a Safe: its owners sign each proposal.")
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Writes a commented config. In a terminal, asks for missing options. Shows the addresses;
    sends nothing.
    """
    targets = [_parse_pair(option_text, "--target") for option_text in target or ()]
    endpoints = [_parse_pair(option_text, "--rpc") for option_text in rpc or ()]
    alert_pair = None if alert is None else _parse_pair(alert, "--alert")
    local_start = api.local_start(network)
    missing_options = [
        option_name
        for option_name, given_value in (
            ("--wallet", wallet or local_start),
            ("--rpc", endpoints or local_start),
            ("--target or --template", targets or template),
        )
        if not given_value
    ]
    option_values = {
        "--stable": stable,
        "--numeraire": numeraire != DEFAULT_NUMERAIRE,
        "--price": price,
        "--token-list": token_list or token_list_sha256,
        "--futures": futures or futures_venue or futures_target,
    }
    unsupported_options = [
        extra_option for extra_option, given_value in option_values.items() if given_value
    ]  # the dialogue would drop them
    answers = api.InitAnswers(
        network=network,
        wallet=wallet or "",
        targets=targets,
        numeraire=numeraire,
        endpoints=endpoints,
        token_list=token_list,
        token_list_sha256=token_list_sha256,
        template=template or "",
        stable_share=stable,
        numeraire_price=price,
        use_cash=use_cash or "",
        alert_target=alert_pair,
        max_live_value=ceiling or "",
        is_safe=safe,
    )
    if missing_options and not unsupported_options and not yes and not as_json and is_interactive():
        context = click.get_current_context()
        given_options = {
            option_name
            for parameter in context.command.params
            if context.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
            for option_name in parameter.opts
        }
        answered_fields = {
            question.field
            for question in api.QUESTIONS
            if not given_options.isdisjoint(question.options)
        }
        _init_guided(config, answers, answered_fields)
        return
    if not answers.wallet and local_start is not None:
        answers = replace(answers, wallet=local_start.wallet)
    if not answers.wallet or not (endpoints or local_start):
        raise ConfigError(
            f"{missing_options[0]}: missing",
            f"give {' and '.join(missing_options)}; see trimtab init --help, or run it in a terminal"
            + (
                f" without {' and '.join(unsupported_options)}, which the dialogue does not take"
                if unsupported_options
                else ""
            ),
        )
    answers = replace(answers, futures=_futures_start(futures, futures_venue, futures_target or ()))
    _finish_init(answers.write(config), as_json)


def _init_guided(config: Path, answers: InitAnswers, answered_fields: set[str]) -> None:
    from agent.cli.display.dialogue import guided_init

    if config.exists():
        raise api.existing_config_error(config)
    if answers.endpoints:
        api.require_endpoints(
            answers.endpoints, "--rpc", is_local=answers.is_local, option="--rpc "
        )
    try:
        document = guided_init(config, answers, answered_fields)
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing was written") from None
    if document is None:
        note("Nothing written.")
        raise typer.Exit(EXIT_REFUSED)
    _finish_init(document, as_json=False)


def _finish_init(document: InitDocument, as_json: bool) -> None:
    """Show the new config, then read the past prices that its rules need."""
    if not as_json:
        _show_init(document)
    with show_spinner("Looking for past prices") as spinner:
        price_lines = api.read_first_prices(Path(document["config"]), spinner.update)
    if price_lines:
        document["past_prices"] = list(price_lines)
    emit(document, as_json, lambda: None)
    for line in price_lines:
        note(line)


def _show_init(document: InitDocument) -> None:
    from agent.app.start.guide import ESTIMATE_NOTE
    from agent.cli.display import tables

    say(f"Written: {document['config']}")
    figure_table = tables.table("Addresses", ("token", "target", "address"))
    for asset in document["assets"]:
        target_text = format_bps(parse_bps(asset["target"], "target"))
        figure_table.add_row(asset["symbol"], target_text, asset["address"])
        figure_table.add_row(
            "  its price feed",
            "",
            asset["feed"] or "none: a pool's time-weighted price",
            style="dim",
        )
    out.print(figure_table)
    if document["token_list_sha256"] is not None:
        say(
            f"SHA-256 of the token list: {document['token_list_sha256']}; pin it with"
            " --token-list-sha256"
        )
    for warning in document["warnings"]:
        note(warning)
    if document["numeraire_usd"] != "1":
        say(
            f"Caps are counted in {document['numeraire']}, converted at"
            f" {document['numeraire_usd']} dollars each."
        )
    if document["ceiling"] is not None:
        from agent.model.limits import ABOVE_CEILING_TEXT

        say(
            f"At most {format_figure(document['ceiling'], 'amount')} {document['numeraire']} are"
            " managed (portfolio.max_live_value) and paid out in a day (limits.payout_per_day)."
            f" If the portfolio is worth more, {ABOVE_CEILING_TEXT}."
        )
    say("Compare the addresses with a source you trust. Next:")
    for line in document["next"]:
        say(f"  {line}")
    if document["year_costs"]:
        say(f"{ESTIMATE_NOTE}:")
    for line in document["year_costs"]:
        say(line)


@command(Heading.SET_UP, 70)
def deploy(
    config: ConfigPath = DEFAULT_CONFIG,
    send: Send = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Shows the Rebalancer's address, the same on every chain, and whether it is there; with --send
    the wallet deploys it.
    """
    if not send:
        with show_spinner("Reading the chain"):
            document = api.rebalancer_deployment(config)
        emit(document, as_json, lambda: _show_deployment(document))
        return
    require_answerable(yes)
    with (
        show_spinner("Reading the chain") as spinner,
        api.open_agent(config, allows_undeployed_rebalancer=True) as agent,
    ):

        def confirm(document: Document) -> bool:
            with spinner.hidden():
                (note if as_json else say)(
                    f"Rebalancer {document['address']} on chain {document['chain_id']}: at most"
                    f" {document['most_gas_native']} native coin for gas and"
                    f" {document['most_data_fee_native']} for its data"
                )
                return yes or ask("Deploy it?")

        document = api.deploy_rebalancer(agent, confirm=confirm, progress=spinner.update)
        with spinner.hidden():
            emit(document, as_json, lambda: _show_deployment(document))
    raise typer.Exit(OUTCOME_EXIT_CODES.get(document["outcome"], 0))


def _show_deployment(document: Document) -> None:
    out.print(f"Rebalancer {document['address']} on chain {document['chain_id']}")
    for transaction in document["transactions"]:
        say(
            f"{transaction['kind']} {transaction['status']} in block {transaction['block']}: {transaction['hash']}"
        )
    if document["reason"]:
        say(f"{as_sentence(document['reason'])}.")
    if document["deployed"]:
        say("Its code is there. Write the address into execution.rebalancer, then trimtab trust.")
    elif document["outcome"] == "planned":
        say(
            "It is not there yet. trimtab deploy --send deploys it, or any account does (EIP-1014):"
        )
        out.print(
            f"to    {document['to']}\nvalue {document['value_wei']}\ndata  {document['data']}"
        )
    else:
        note(
            f"{document['outcome']}: {'at most gas was spent' if document['transactions'] else 'nothing changed'}"
        )


@command(Heading.SET_UP, 30)
def doctor(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Checks the whole setup, with a remedy for each problem. Reads config, endpoints, contracts,
    tokens, prices, key, store and clock.
    """
    with show_spinner("Checking"):
        document = api.doctor(config)
    for check in document["checks"]:
        check["finding"] = without_known_secrets(check["finding"])
        check["remedy"] = without_known_secrets(check["remedy"])

    def show() -> None:
        if out.is_terminal:
            out.print(_checks_table(document))
            return
        for check in document["checks"]:
            remedy = f". What to do: {check['remedy']}" if check["remedy"] else ""
            say(f"{check['state']:<4}  {check['check']}: {check['finding'].rstrip('.')}{remedy}")

    emit(document, as_json, show)
    raise typer.Exit(document["exit"])


@command(Heading.SET_UP, 40)
def trust(config: ConfigPath = DEFAULT_CONFIG, yes: Yes = False, as_json: AsJson = False) -> None:
    """Pins all contracts of the config and the pools found, by address and code hash, and the
    market numbers of Hyperliquid, by name. No other contract is ever called. Then reads the past
    prices that a rule of the config needs.
    """
    was_asked = False
    with show_spinner("Reading code hashes") as spinner:

        def confirm(contracts: Document) -> bool:
            nonlocal was_asked
            if yes:
                return True
            with spinner.hidden():
                if not is_interactive():
                    return False
                was_asked = True
                err.print(_contracts_table(contracts))
                return ask("Pin these?")

        document = api.trust(config, confirm, is_unreviewed=yes)
        if document["pinned"] and (price_lines := api.read_past_prices(config, spinner.update)):
            document["past_prices"] = list(price_lines)
    emit(document, as_json, lambda: None if was_asked else out.print(_contracts_table(document)))
    if not document["pinned"]:
        note("Nothing pinned. To pin these: trimtab trust --yes")
        raise typer.Exit(EXIT_REFUSED if was_asked else EXIT_USAGE)
    for line in document.get("past_prices", ()):
        note(line)
    markets_text = " and the venue's market numbers" if "markets" in document else ""
    payout_count = sum(item["role"] == "payout address" for item in document["contracts"])
    payout_text = f"; payout addresses confirmed: {payout_count}" if payout_count else ""
    contract_count = len(document["contracts"]) - payout_count
    note(f"{contract_count} contracts{markets_text} are pinned{payout_text}.")


def _checks_table(document: Document) -> FigureTable:
    """Return a table of the doctor's checks."""
    from agent.cli.display.tables import table

    state_cells = {
        "ok": safe_text("✓", "green"),
        "warn": safe_text("note", "yellow"),
        "fail": safe_text("fails", "bold red"),
    }
    return table(
        "Doctor",
        ("", "check", "finding", "remedy"),
        rows=(
            (state_cells[check["state"]], check["check"], check["finding"], check["remedy"])
            for check in document["checks"]
        ),
    )


def _contracts_table(document: Document) -> FigureTable:
    """Return a table of the contracts that trust would pin."""
    from agent.cli.display.tables import table

    style_by_state = {"new": "yellow", "CHANGED": "bold red"}
    figure_table = table(f"Contracts at block {document['block']}", ("state", "address", "role"))
    for contract in document["contracts"]:
        state_cell = safe_text(contract["state"], style_by_state.get(contract["state"], ""))
        figure_table.add_row(state_cell, contract["address"], contract["role"])
    for market in document.get("markets", ()):
        state_cell = safe_text(market["state"], style_by_state.get(market["state"], ""))
        figure_table.add_row(
            state_cell, f"number {market['number']}", f"futures market {market['market']}"
        )
    return figure_table


def _futures_start(
    profile: str | None, venue: Path | None, targets: Sequence[str]
) -> FuturesStart | None:
    if profile is None:
        if venue is not None or targets:
            raise ConfigError(
                "--futures: no profile given", "choose conservative, moderate or aggressive"
            )
        return None
    target_pairs = [_parse_pair(target_text, "--futures-target") for target_text in targets]
    return api.FuturesStart(profile, venue, target_pairs)


def _parse_pair(pair_text: str, option: str) -> tuple[str, str]:
    name, equals, value = pair_text.partition("=")
    if not equals or not name or not value:
        # the text is not repeated, because a URL pasted here is a secret
        raise ConfigError(
            f"{option}: not NAME=VALUE", "for example --target WETH=50% and --rpc RPC_URL_1=alchemy"
        )
    return name, value


DEFAULT_KEYSTORE = Path("wallet.json")
KeystoreFile = Annotated[
    Path | None,
    typer.Option(
        "--keystore",
        help="The keystore file.",
        show_default="wallet.json, unless --keyring is given",
    ),
]
KeyringName = Annotated[
    str | None,
    typer.Option("--keyring", help="SERVICE/NAME in the keyring of the operating system."),
]
wallet_group = command_group(
    Heading.SET_UP,
    50,
    "wallet",
    "Creates and stores keys. Keys and passwords are typed hidden, never passed as arguments.",
)


@wallet_group.command()
def create(
    keystore: KeystoreFile = None,
    keyring: KeyringName = None,
    password_env: PasswordEnv = None,
    password_fd: PasswordDescriptor = None,
    as_json: AsJson = False,
) -> None:
    """Creates a random key in a keystore file, in the keyring, or in both."""
    document = api.create_wallet(
        _keystore_file(keystore, keyring),
        keyring,
        api.PasswordSource(password_env, password_fd),
        hidden_prompt(),
    )
    _show_wallet(document, as_json)


@wallet_group.command()
def address(
    keystore: Annotated[
        Path | None,
        typer.Option("--keystore", help="The keystore file.", show_default="wallet.json"),
    ] = None,
    keyring: KeyringName = None,
    config: Annotated[Path | None, config_option("The config file, in place of a key.")] = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Unlock the key and compare its address; asks for the password."
        ),
    ] = False,
    password_env: PasswordEnv = None,
    password_fd: PasswordDescriptor = None,
    as_json: AsJson = False,
) -> None:
    """Shows the address of a key."""
    document = api.wallet_address(
        keystore,
        keyring,
        config,
        api.PasswordSource(password_env, password_fd),
        hidden_prompt(),
        verify,
    )
    emit(document, as_json, lambda: say(document["address"]))


@wallet_group.command("import")
def import_key(
    keystore: KeystoreFile = None,
    keyring: KeyringName = None,
    index: Annotated[int, typer.Option("--index", help="Account index of a recovery phrase.")] = 0,
    password_env: PasswordEnv = None,
    password_fd: PasswordDescriptor = None,
    as_json: AsJson = False,
) -> None:
    """Imports a private key or a recovery phrase, typed hidden or from standard input."""
    document = api.import_wallet(
        _keystore_file(keystore, keyring),
        keyring,
        api.PasswordSource(password_env, password_fd),
        hidden_prompt(),
        index,
    )
    _show_wallet(document, as_json)


@wallet_group.command("change-password")
def change_password(
    keystore: Annotated[
        Path, typer.Option("--keystore", help="The keystore file.")
    ] = DEFAULT_KEYSTORE,
    password_env: PasswordEnv = None,
    password_fd: PasswordDescriptor = None,
    new_password_env: Annotated[
        str | None,
        typer.Option("--new-password-env", help="Environment variable with the new password."),
    ] = None,
    new_password_fd: Annotated[
        int | None,
        typer.Option(
            "--new-password-fd", help="Open file descriptor to read the new password from."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Changes the password of a keystore file."""
    old_password = api.PasswordSource(password_env, password_fd)
    new_password = api.PasswordSource(
        new_password_env, new_password_fd, "--new-password-env", "--new-password-fd"
    )
    document = api.change_password(keystore, old_password, new_password, hidden_prompt())
    emit(
        document,
        as_json,
        lambda: say(f"{document['keystore']} of {document['address']} has a new password."),
    )
    _show_warnings(document)


def _keystore_file(keystore: Path | None, keyring: str | None) -> Path | None:
    return DEFAULT_KEYSTORE if keystore is None and keyring is None else keystore


def _show_wallet(document: Document, as_json: bool) -> None:
    def show() -> None:
        say(f"Address: {document['address']}")
        if document["keystore"]:
            say(f"Keystore: {document['keystore']}")
        if document["keyring"]:
            say(f"Keyring: {document['keyring']}")
        say("In the config, under [wallet]:")
        for line in document["config"]:
            say(f"  {line}")

    emit(document, as_json, show)
    _show_warnings(document)


def _show_warnings(document: Document) -> None:
    for warning in document["warnings"]:
        note(f"Note: {warning}.")
