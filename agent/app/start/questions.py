"""The questions that make a new config: the options and the dialogue of `trimtab init`, the set-up
page and New portfolio ask these.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.app.start.amounts import NUMERAIRE
from agent.config.networks.presets import PRESETS
from agent.model.limits import ABOVE_CEILING_TEXT


@dataclass(frozen=True, slots=True)
class SetupQuestion:
    """A question: the field of its answer, its name, what an answer says, and the options of
    `trimtab init` that answer it.
    """

    field: str
    name: str
    hint: str
    options: tuple[str, ...]


QUESTIONS = (
    SetupQuestion(
        "network",
        "Network",
        f"The one on which the wallet has its money: {', '.join(PRESETS)}; or the config file of a"
        " running trimtab localchain.",
        ("--network",),
    ),
    SetupQuestion(
        "wallet",
        "Wallet",
        "Its address, 0x…; trimtab wallet create makes a new one.",
        ("--wallet",),
    ),
    SetupQuestion(
        "endpoints",
        "Endpoints",
        "Through whom the network is read. Providers such as Alchemy and Infura give a URL, which is"
        " a secret: put it into an environment variable, and type VARIABLE=OPERATOR of each here, such"
        " as RPC_URL_1=alchemy RPC_URL_2=infura. Two different ones must agree before money moves.",
        ("--rpc",),
    ),
    SetupQuestion("basket", "Basket", "What the portfolio holds", ("--template", "--target")),
    SetupQuestion(
        "cash",
        "Cash",
        f"How much of the wallet's {NUMERAIRE} the agent may use, such as 1,000 of 5,000; the rest is"
        " left alone.",
        ("--use-cash",),
    ),
    SetupQuestion(
        "ceiling",
        "Ceiling",
        f"The most, in {NUMERAIRE}, that the agent manages, gains and tokens that the wallet holds"
        " already included, and pays out in a day (portfolio.max_live_value). Above it"
        f" {ABOVE_CEILING_TEXT}.",
        ("--ceiling",),
    ),
    SetupQuestion(
        "alert",
        "Alerts",
        "Where to send what needs you: by mail, Telegram and others. Not the address itself, which is"
        " a secret, but the name of the environment variable that has it, such as TRIMTAB_ALERTS. Its"
        " value, in the environment or in .env beside the config, is in apprise's format (mailto,"
        " tgram, …; docs/alerts.md).",
        ("--alert",),
    ),
)
QUESTION_BY_FIELD = {question.field: question for question in QUESTIONS}


def question_texts() -> dict[str, dict[str, str]]:
    """Return name and hint of each question, by field."""
    return {
        question.field: {"name": question.name, "hint": question.hint} for question in QUESTIONS
    }
