"""The dialogue of `trimtab init`: one question at a time. Each answer is checked at once and can be
changed before anything is written. Plain lines of at most 80 columns.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import app as api
from agent.cli.display.past_results import past_costs_text, past_result_text, past_years_text
from agent.cli.display.terminal import err, escape_control_codes
from agent.errors import ConfigError
from agent.units import whole_number

if TYPE_CHECKING:
    from agent.app.documents.owner import InitDocument
    from agent.app.start.guide import InitAnswers

MAX_COLUMNS = 78


@dataclass(frozen=True, slots=True)
class InitQuestion:
    """A question of api.QUESTIONS at the terminal: `default_answer` answers an empty line (None: an
    answer is needed, which `remedy` describes), `apply_answer` checks an answer, `more` explains it
    further.
    """

    field: str
    default_answer: Callable[[InitAnswers], str | None]
    apply_answer: Callable[[InitAnswers, str], InitAnswers]
    remedy: str = ""
    more: Callable[[InitAnswers], str] = lambda _: ""

    @property
    def name(self) -> str:
        """Return its name."""
        return api.QUESTION_BY_FIELD[self.field].name


def guided_init(
    path: Path, answers: InitAnswers, answered_fields: Collection[str] = ()
) -> InitDocument | None:
    """Ask every question except those in `answered_fields`; the answers to these are only checked.
    Then show all answers, and write the config once the user confirms; otherwise return None.
    """
    questions = _questions()
    question_by_field = {question.field: question for question in questions}
    option_answers = answers
    _say("New config. Nothing is sent, and nothing is written before you confirm it.")
    _say("Ctrl-C ends without a trace; each answer can be changed at the end.")
    for question in questions:
        if question.field in answered_fields:
            option_text = question.default_answer(option_answers) or ""
            answers = _check_or_ask(question, answers, option_text)
        else:
            answers = _ask(question, answers)
    while True:
        _say("")
        for question_number, question in enumerate(questions, 1):
            _say(f"{question_number} {question.name:<10} {answers.texts[question.field]}", "  ")
        _show_year_costs(answers)
        reply = _read_line("Write it? yes, no, or the number of an answer to change: ")
        if reply.lower() in ("y", "yes"):
            try:
                return answers.write(path)
            except ConfigError as error:
                _show_error(error)
        elif reply.lower() in ("n", "no"):
            return None
        elif (number := whole_number(reply)) and number <= len(questions):
            question = questions[number - 1]
            answers = _ask(question, answers)
            if question.field == "network":
                if not answers.endpoints:  # those of another network are dropped
                    answers = _ask(question_by_field["endpoints"], answers)
                basket = question_by_field["basket"]
                answers = _check_or_ask(basket, answers, basket.default_answer(answers) or "")
            elif question.field == "cash":
                answers = _ask(question_by_field["ceiling"], answers)


def _check_or_ask(question: InitQuestion, answers: InitAnswers, option_text: str) -> InitAnswers:
    """Check an answer of an option, or one for another network; ask if it is not valid."""
    try:
        return question.apply_answer(answers, option_text)
    except ConfigError as error:
        _show_error(error)
        return _ask(question, answers)


def _ask(question: InitQuestion, answers: InitAnswers) -> InitAnswers:
    _say("")
    hint = api.QUESTION_BY_FIELD[question.field].hint
    _say(f"{question.name}. {hint}{question.more(answers)}")
    while True:
        default_answer = question.default_answer(answers)
        reply = _read_line(
            f"{question.name}{'' if default_answer is None else f' [{default_answer}]'}: "
        )
        if not reply and default_answer is None:
            _show_error(ConfigError(f"{question.name}: nothing was entered", question.remedy))
            continue
        try:
            return question.apply_answer(answers, reply or default_answer or "")
        except ConfigError as error:
            _show_error(error)


def _questions() -> tuple[InitQuestion, ...]:
    from agent.config.networks.presets import PRESETS

    def basket_text(answers: InitAnswers) -> str:
        lines = [": a number of this list, or your own, like WETH=50% USDC=50%"]
        baskets = api.baskets(answers.network)
        for basket_number, basket in enumerate(baskets, 1):
            targets_text = " ".join(f"{symbol} {share}" for symbol, share in basket.targets)
            lines.append(
                f"{basket_number} {basket.name}: {targets_text}; from {basket.minimum_capital} USDC"
            )
            if basket.past_result is not None:
                lines += [
                    f"  {past_result_text(basket.past_result, short=True)}",
                    f"  {past_costs_text(basket.past_result)}",
                ]
            if basket.other_year_results:
                lines.append(f"  {past_years_text(basket.other_year_results, short=True)}")
            lines.append(f"  {basket.past_falls}")
        has_past = any(basket.past_result is not None for basket in baskets)
        basis_text = (
            f"Past: {api.PAST_BASIS}; other years on Binance's prices; not a forecast. "
            if has_past
            else ""
        )
        lines.append(f"{basis_text}From: minimum capital on an ordinary day.")
        return "\n".join(lines)

    def network_text(answers: InitAnswers) -> str:
        lines = [" Minimum capital of the baskets there, in USDC on an ordinary day:"]
        for network in PRESETS:
            capital_texts = [
                f"{basket.name} {basket.minimum_capitals[network]}"
                for basket in api.baskets("ethereum")
            ]
            lines.append(f"{network}: {', '.join(capital_texts)}")
        return "\n".join(lines)

    return (
        InitQuestion(
            "network",
            lambda answers: answers.network,
            lambda answers, answer_text: answers.with_network(answer_text),
            more=network_text,
        ),
        InitQuestion(
            "wallet",
            lambda answers: answers.wallet or None,
            lambda answers, answer_text: answers.with_wallet(answer_text),
            "write the address that holds the portfolio, 0x… with 40 digits",
        ),
        InitQuestion(
            "endpoints",
            lambda answers: _pairs_text(answers.endpoints) or None,
            lambda answers, answer_text: answers.with_endpoints(answer_text),
            "for example RPC_URL_1=alchemy RPC_URL_2=infura",
        ),
        InitQuestion(
            "basket",
            lambda answers: answers.template or _pairs_text(answers.targets) or None,
            lambda answers, answer_text: answers.with_basket(
                answer_text, api.baskets(answers.network)
            ),
            "write a number or a name of the list, or for example WETH=50% USDC=50%",
            basket_text,
        ),
        InitQuestion(
            "cash",
            lambda answers: answers.use_cash or "all",
            lambda answers, answer_text: answers.with_cash(answer_text),
        ),
        InitQuestion(
            "ceiling",
            lambda answers: answers.ceiling,
            lambda answers, answer_text: answers.with_ceiling(answer_text),
        ),
        InitQuestion(
            "alert",
            lambda answers: answers.alert_target[1] if answers.alert_target else "none",
            lambda answers, answer_text: answers.with_alert(answer_text),
            more=lambda _: " Or none.",
        ),
    )


def _show_year_costs(answers: InitAnswers) -> None:
    """Print whether the amount is worth it, if the answers make a config."""
    try:
        lines = answers.year_costs()
    except ConfigError as error:
        _show_error(error)
        return
    _say("")
    for line in lines:
        _say(line)


def _pairs_text(pairs: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs)


def _read_line(prompt: str) -> str:
    """Return a line from the terminal. Raises KeyboardInterrupt at the end of input."""
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise KeyboardInterrupt
    return line.strip()


def _show_error(error: ConfigError) -> None:
    _say(f"{error.message}", "! ")
    if error.remedy:
        _say(error.remedy, "  ")


def _say(text: str, indent: str = "") -> None:
    """Print lines of at most MAX_COLUMNS columns; further ones of a paragraph are indented."""
    for line in text.split("\n") or [""]:
        first_indent = indent + line[: len(line) - len(line.lstrip())]
        wrapped_lines = textwrap.wrap(
            escape_control_codes(line.strip()),
            MAX_COLUMNS,
            initial_indent=first_indent,
            subsequent_indent=f"{first_indent}  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        err.file.write("\n".join(wrapped_lines or [""]) + "\n")
    err.file.flush()
