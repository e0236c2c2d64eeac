"""The guided set-up in the browser: checks typed texts like the answers of the dialogue, and writes
the config. The process that serves the pages calls these functions by name.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from agent.app.start.guide import NUMERAIRE, Basket, InitAnswers, baskets, variable_state
from agent.app.start.past_results import PAST_BASIS
from agent.app.start.setup import find_preset
from agent.config.load import load_config
from agent.errors import ConfigError

OWN = "own"
"""Name of the basket of typed weights, whose fields are named SHARE plus the symbol."""
SHARE = "share:"
OPTION = re.compile(r"^(--)?[a-z]+: ")


def check_setup(typed: Mapping[str, str]) -> dict[str, Any]:
    """Return `errors` by field; `shown`, the valid answers in words; `outlook`, whether the amount is
    worth it; `baskets` and `tokens` of the
    network, and the `basis` of past results. A field that is missing has its default.
    """
    answers, errors, known = _answers(typed)
    return {
        "errors": errors,
        "shown": _shown(answers, errors),
        "outlook": [] if errors else _outlook(answers),
        "baskets": [_row(one) for one in known],
        "tokens": [] if "network" in errors else _tokens(answers),
        "basis": PAST_BASIS,
        "numeraire": NUMERAIRE,
    }


def write_setup(path: str, typed: Mapping[str, str]) -> dict[str, Any]:
    """Write the config as `trimtab init` does, and return its document, with the commands that come
    `next` and the `gas` that the wallet needs. Raises ConfigError, and then leaves no file.
    """
    answers, errors, _ = _answers(typed)
    for field, why in errors.items():
        raise ConfigError(f"{field}: {why}", "correct it")
    document = answers.write(Path(path))
    loaded = load_config(path)
    wallet = loaded.config.wallet
    option = "" if Path(path) == Path("trimtab.toml") else f" --config {shlex.quote(path)}"
    steps = list(document["next"])
    if wallet.test_account is None:
        place = next(
            (at for at, line in enumerate(steps) if line.startswith("trimtab")), len(steps)
        )
        steps.insert(
            place,
            "trimtab wallet import  (in a terminal, with the key of the wallet, unless wallet.json"
            " has it already)",
        )
    steps += [
        f"trimtab run{option}  (decides but sends nothing; with --send it trades)",
        f"trimtab serve{option}  (this dashboard, after the first step)",
    ]
    return {**document, "next": steps, "gas": loaded.config.limits.native_floor or ""}


def _answers(typed: Mapping[str, str]) -> tuple[InitAnswers, dict[str, str], list[Basket]]:
    """Return the valid answers, the errors by field, and the baskets of the network."""
    answers, errors = InitAnswers(), dict[str, str]()

    def take(field: str, check: Callable[[InitAnswers, str], InitAnswers], default: str) -> None:
        nonlocal answers
        try:
            answers = check(answers, typed.get(field, "").strip() or default)
        except ConfigError as error:
            errors[field] = _sentence(error)

    take("network", InitAnswers.with_network, "ethereum")
    known = [] if "network" in errors else _baskets(answers)
    take("wallet", InitAnswers.with_wallet, "")
    if not answers.is_local or typed.get("endpoints", "").strip():
        take("endpoints", InitAnswers.with_endpoints, "")
    if known:
        take("basket", lambda found, text: _with_basket(found, text, typed, known), "")
    take("cash", InitAnswers.with_cash, "all")
    take("ceiling", InitAnswers.with_ceiling, "no")
    take("alert", InitAnswers.with_alert, "none")
    return answers, errors, known


def _baskets(answers: InitAnswers) -> list[Basket]:
    return baskets(answers.network) if answers.is_local else _preset_baskets(answers.network)


@cache
def _preset_baskets(network: str) -> list[Basket]:
    return baskets(network)


def _with_basket(
    answers: InitAnswers, chosen: str, typed: Mapping[str, str], known: list[Basket]
) -> InitAnswers:
    if chosen == OWN:
        shares = {
            symbol: text.strip().removesuffix("%").strip()
            for symbol in _tokens(answers)
            if (text := typed.get(SHARE + symbol, "")).strip()
        }
        if not shares:
            raise ConfigError("No weights were entered", "write the share of each token in percent")
        pairs = " ".join(f"{symbol}={share}%" for symbol, share in shares.items())
        return answers.with_basket(pairs, known)
    if chosen not in [one.name for one in known]:
        raise ConfigError("No basket is chosen", "choose a listed one, or type your own weights")
    return answers.with_basket(chosen, known)


def _sentence(error: ConfigError) -> str:
    """Return an error of a field: what is wrong, and what to do."""
    told = [OPTION.sub("", error.message), error.remedy]
    return " ".join(f"{one[0].upper()}{one[1:]}." for one in told if one)


def _shown(answers: InitAnswers, errors: Mapping[str, str]) -> dict[str, str]:
    told = {
        "network": answers.network,
        "wallet": answers.wallet,
        "endpoints": ", ".join(
            f"{name}={operator} ({variable_state(name)})" for name, operator in answers.rpc
        ),
        "basket": answers.template
        or " ".join(f"{name}={share}" for name, share in answers.targets),
        "cash": f"{answers.use_cash or 'all'} {NUMERAIRE}",
        "ceiling": f"{answers.ceiling} {NUMERAIRE} at most are managed",
        "alert": (
            f"{answers.alert[1]} ({variable_state(answers.alert[1])})" if answers.alert else "none"
        ),
    }
    return {field: text for field, text in told.items() if field not in errors}


def _outlook(answers: InitAnswers) -> list[str]:
    try:
        return answers.outlook()
    except ConfigError as error:
        return [_sentence(error)]


def _row(one: Basket) -> dict[str, Any]:
    held = " ".join(f"{symbol} {share}" for symbol, share in one.targets)
    return {
        "name": one.name,
        "about": one.about,
        "held": held,
        "least": one.least,
        "past": one.past,
    }


def _tokens(answers: InitAnswers) -> list[str]:
    return [token.symbol for token in find_preset(answers.network).tokens]
