"""The four ways to a new config ask the same questions: options, dialogue, set-up page and New portfolio."""

from __future__ import annotations

import os
import re
from html import unescape
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.main import get_command

from agent.app.start import guide
from agent.app.start.guide import InitAnswers, check_setup
from agent.app.start.questions import QUESTIONS
from agent.cli.display import dialogue
from agent.cli.main import app
from agent.errors import ConfigError

if not all(map(find_spec, ("fastapi", "uvicorn", "argon2", "pyotp"))) and not os.environ.get("CI"):
    pytest.skip("the set-up page needs its extra", allow_module_level=True)

from agent.web import setup
from agent.web.new_portfolios import COPY_PAGE, NEW_PAGE
from agent.web.pages import page_environment
from agent.web.setup import QUESTION_PAGES

FIELDS = tuple(question.field for question in QUESTIONS)


def test_options__of_init_answer_each_question() -> None:
    init = get_command(app).commands["init"]  # type: ignore[attr-defined]
    options = {name for parameter in init.params for name in parameter.opts}
    assert {name for question in QUESTIONS for name in question.options} <= options


def test_dialogue__asks_each_question_in_its_order() -> None:
    assert tuple(question.field for question in dialogue._questions()) == FIELDS


def test_pages__ask_each_question_in_its_order() -> None:
    assert tuple(field for page in QUESTION_PAGES for field in page.fields) == FIELDS
    assert ("name", *FIELDS) == NEW_PAGE.fields
    assert set(COPY_PAGE.fields) <= set(NEW_PAGE.fields)


def test_answers__have_words_for_each_question() -> None:
    assert tuple(InitAnswers().texts) == FIELDS
    assert set(guide.parse_answers({})[1]) <= set(FIELDS)


@pytest.mark.parametrize(
    ("message", "remedy", "text"),
    [
        pytest.param("cbBTC: '6,5' is not a share", "write digits", "cbBTC: '6,5' is not a share. Write digits.", id="symbol"),
        pytest.param("--wallet: 0xAb is no address", "trimtab wallet create", "0xAb is no address. trimtab wallet create.", id="address"),
        pytest.param("limits.turnover is off", "", "limits.turnover is off.", id="key"),
        pytest.param("basket: no weights, but a basket", "", "No weights, but a basket.", id="words"),
    ],
)
def test_error__keeps_the_case_of_the_names_it_begins_with(message: str, remedy: str, text: str) -> None:
    assert guide.error_text(ConfigError(message, remedy)) == text


@pytest.mark.parametrize("page", [*QUESTION_PAGES, NEW_PAGE], ids=lambda page: page.template)
def test_page__names_and_explains_its_questions_as_declared(page: setup.SetupPage) -> None:
    answers = {**check_setup({"network": "ethereum"}), "answer_texts": {"network": "ethereum"}, "errors": {}}
    html = (
        page_environment()
        .get_template("setup.html")
        .render(
            title="",
            page=page,
            pages=QUESTION_PAGES,
            open_paths=[],
            typed={},
            errors={},
            answers=answers,
            csrf="",
            share="share:",
            config=str(Path()),
            practice_name=setup.PRACTICE_NAME,
        )
    )
    text = unescape(re.sub("<[^>]+>", "", html))
    for question in QUESTIONS:
        if question.field in page.fields and (question.field, page) != ("network", NEW_PAGE):
            assert question.hint in text, "New portfolio takes no file as a network"
            assert question.field == "basket" or f">{question.name}</label>" in html
