"""Another portfolio beside those that a dashboard serves: one more config in their folder, from a
basket or as a copy, without a key.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.app.settings.shown import portfolio_identity
from agent.app.start.amounts import paper_capital
from agent.app.start.guide import InitAnswers, check_setup, error_text, parse_answers
from agent.app.start.past_prices import needed_past_prices
from agent.app.start.questions import question_texts
from agent.config.load import UNSAVED_REMEDY, load_config, load_config_text
from agent.config.networks.presets import PRESETS
from agent.config.tables.fields import parse_address
from agent.config.writing.copies import copy_text
from agent.errors import ConfigError, ErrorCode
from agent.files import create_file, folder_configs
from agent.foreign_text import failure_text, read_toml
from agent.units import format_bps

MAX_PORTFOLIOS = 20
"""Configs in the folder above which the dashboard adds none: it needs 180 MB for each."""
MAX_NAME_CHARS = 40
NAME_PATTERN = re.compile("[a-z0-9]+(-[a-z0-9]+)*")
DEFAULT_NETWORK = "ethereum"


def check_portfolio(
    folder: str,
    source: str,
    is_copy: bool,
    field_texts: Mapping[str, str],
    taken_names: Sequence[str],
) -> dict[str, Any]:
    """Return `errors` by field, the valid answers in words, `answer_texts`, and, without errors,
    the `sha256` of the config that they make: a copy of the portfolio `source`, or one from a
    basket, then with the rest of the document of `check_setup`. `typed` are the answers, or without
    any those that a form begins with: network, wallet and endpoints of `source`. Raises
    ConfigError.
    """
    return _check_and_render(folder, source, is_copy, field_texts, taken_names)[0]


def write_portfolio(
    folder: str,
    source: str,
    is_copy: bool,
    field_texts: Mapping[str, str],
    taken_names: Sequence[str],
    sha256: str,
) -> str:
    """Write the config of these answers, and the folder for its store; return its path. Raises
    ConfigError, also if it is not the one with this `sha256`, and then leaves neither.
    """
    check_document, config_text = _check_and_render(
        folder, source, is_copy, field_texts, taken_names
    )
    if check_document.get("sha256") != sha256:
        raise ConfigError("the answers changed after this page was opened", "compare them again")
    config_path = Path(folder, f"{field_texts['name']}.toml")
    store_folder = config_path.with_suffix("")
    try:
        store_folder.mkdir(mode=0o700)
        try:
            create_file(config_path, config_text.encode())
        except OSError:
            store_folder.rmdir()
            raise
    except FileExistsError:
        raise ConfigError(
            f"name: {config_path.stem} exists already; nothing was changed",
            "write another name",
            code=ErrorCode.EXISTS,
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{config_path}: cannot be written: {error.strerror}",
            "let the account of trimtab serve write to the folder, or use trimtab init in a terminal",
        ) from None
    return str(config_path)


def _check_and_render(
    folder: str,
    source: str,
    is_copy: bool,
    field_texts: Mapping[str, str],
    taken_names: Sequence[str],
) -> tuple[dict[str, Any], str]:
    """Return the document of `check_portfolio`, and the config; empty with errors."""
    field_texts = field_texts or _first_answers(source)
    check_document = (
        _check_copy(folder, source, field_texts) if is_copy else _check_new(field_texts)
    )
    check_document["typed"] = field_texts
    error_by_field = check_document["errors"]
    portfolio_name = field_texts.get("name", "")
    other_config_paths = folder_configs(Path(folder))
    try:
        _require_name(
            portfolio_name,
            [*taken_names, *(other_config_path.stem for other_config_path in other_config_paths)],
        )
        if (Path(folder) / portfolio_name).exists():
            raise ConfigError(
                f"name: the folder {portfolio_name} exists already", "write another name"
            )
        if len(other_config_paths) >= MAX_PORTFOLIOS:
            raise ConfigError(
                f"name: there are {len(other_config_paths)} portfolios, the most that are served together",
                "remove one",
            )
    except ConfigError as error:
        error_by_field["name"] = error_text(error)
    if error_by_field:
        return check_document, ""
    config_path = Path(folder, f"{portfolio_name}.toml")
    wallet = parse_address(field_texts["wallet"], "wallet")
    config_text = (
        Path(source).read_text(encoding="utf-8") if is_copy else _text_from_basket(field_texts)
    )
    try:
        is_wallet_shared = wallet.lower() in [_wallet_of(path) for path in other_config_paths]
    except ConfigError as error:
        error_by_field["wallet"] = error_text(error)
        return check_document, ""
    config_text = copy_text(
        config_text, portfolio_name, wallet, has_own_wallet=not is_wallet_shared
    )
    load_config_text(
        config_text, config_path, str(config_path), loads_env=False, remedy=UNSAVED_REMEDY
    )
    check_document["sha256"] = hashlib.sha256(config_text.encode()).hexdigest()
    check_document["answer_texts"] |= {
        "file": str(config_path),
        "wallet": wallet,
        "key": "none can be added, because another portfolio has this wallet: on paper only"
        if is_wallet_shared
        else "none, so on paper, until one is added in a terminal",
    }
    return check_document, config_text


def _first_answers(source: str) -> Mapping[str, str]:
    identity = portfolio_identity(source)
    endpoints = load_config(source).config.chain.rpc
    if identity.network not in PRESETS:
        return {"network": DEFAULT_NETWORK, "wallet": identity.wallet}
    endpoint_pairs = (
        f"{endpoint.url_env}={endpoint.operator}" for endpoint in endpoints if endpoint.url_env
    )
    return {
        "network": identity.network,
        "wallet": identity.wallet,
        "endpoints": " ".join(endpoint_pairs),
    }


def _check_new(field_texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the document of `check_setup`. The network is one by name: no path that was typed in a
    browser is opened.
    """
    network = field_texts.get("network", DEFAULT_NETWORK)
    is_known = network in PRESETS
    check_document = check_setup(
        {**field_texts, "network": network if is_known else DEFAULT_NETWORK}
    )
    if not is_known:
        check_document["errors"]["network"] = f"It is not known. Choose from {', '.join(PRESETS)}."
    return check_document


def _check_copy(folder: str, source: str, field_texts: Mapping[str, str]) -> dict[str, Any]:
    loaded_config = load_config(source)
    if loaded_config.path.parent != Path(folder).resolve():
        raise ConfigError(
            f"{source}: not in the folder that is served, {folder}",
            "serve its folder, or copy the file in a terminal",
        )
    portfolio = loaded_config.config.portfolio
    error_by_field = dict[str, str]()
    try:
        InitAnswers().with_wallet(field_texts.get("wallet", ""))
    except ConfigError as error:
        error_by_field["wallet"] = error_text(error)
    target_texts = (f"{asset.symbol} {format_bps(asset.target)}" for asset in portfolio.assets)
    ceiling = "none" if portfolio.max_live_value is None else portfolio.max_live_value
    answer_texts = {
        "copy of": loaded_config.path.stem,
        "network": portfolio_identity(loaded_config).network,
        "basket": " ".join(target_texts),
        "ceiling": f"{ceiling} {portfolio.numeraire}",
        "payouts to": ", ".join(loaded_config.config.wallet.payout_addresses) or "none",
    }
    return {
        "errors": error_by_field,
        "answer_texts": answer_texts,
        "costs": None,
        "questions": question_texts(),
    }


def _text_from_basket(field_texts: Mapping[str, str]) -> str:
    """Return the config that `trimtab init` writes for valid answers."""
    answers, _, _ = parse_answers(field_texts)
    with tempfile.TemporaryDirectory() as scratch_folder:
        config_path = Path(scratch_folder, "trimtab.toml")
        answers.write(config_path)
        return config_path.read_text(encoding="utf-8")


def _require_name(name: str, taken_names: Sequence[str]) -> None:
    """Raise ConfigError for a name that is not plain or is taken."""
    if not NAME_PATTERN.fullmatch(name) or len(name) > MAX_NAME_CHARS:
        raise ConfigError(
            f"name: write 1 to {MAX_NAME_CHARS} characters of a-z and 0-9, with single hyphens between"
            " them",
            "for example weekly-btc",
        )
    if name in taken_names:
        raise ConfigError(f"name: {name} exists already", "write another name")


def _wallet_of(config_path: Path) -> str:
    """Return the wallet's address of a config, in lower case; empty if the file names none. Raises
    ConfigError if it cannot be read: its wallet could be the same.
    """
    try:
        document = read_toml(config_path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"whether another portfolio has this wallet is unknown: {config_path.name} cannot be"
            f" read: {failure_text(error)}",
            "mend it, or move it out of the folder",
        ) from error
    wallet_table = document.get("wallet")
    address = wallet_table.get("address") if isinstance(wallet_table, dict) else None
    return address.lower() if isinstance(address, str) else ""


def next_commands(config: str) -> dict[str, Any]:
    """Return the commands that start a new portfolio on paper, `next`, the past prices that they
    read, and the command that adds its `key`, empty if it has no keystore. Raises ConfigError.
    """
    loaded_config = load_config(config)
    portfolio = loaded_config.config.portfolio
    config_option = f" --config {shlex.quote(config)}"
    capital = paper_capital(portfolio.use_cash, portfolio.max_live_value, portfolio.numeraire)
    missing_variables = [
        endpoint.url_env
        for endpoint in loaded_config.config.chain.rpc
        if endpoint.url_env and not loaded_config.variables.get(endpoint.url_env)
    ]
    keystore = Path(config).with_suffix("") / "wallet.json"
    return {
        "next": [
            *(f"export {variable}=…" for variable in missing_variables),
            f"trimtab user add NAME{config_option}",
            f"trimtab trust{config_option}",
            f"trimtab paper{config_option} --value {capital or 'AMOUNT'}",
        ],
        "needed_prices": needed_past_prices(loaded_config),
        "key": f"trimtab wallet import --keystore {shlex.quote(str(keystore))}"
        if loaded_config.keystore_path is not None
        else "",
    }
