"""Second opinions on a plan's trades, as keys of its document."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import Decimal, Raw
from agent.layers.opinions.services import SERVICES, Sale, ask
from agent.model import LegFunding, Plan, Portfolio
from agent.units import BPS, ceil_int, decimal_text

if TYPE_CHECKING:
    from agent.execution.step_context import StepOutcome
    from agent.layers.config import LayerTables


class AnswerDocument(TypedDict):
    """What a service would pay for a trade, and how much more that is than the plan's amount, in
    bps, rounded up; None if unknown, and `text` says why.
    """

    service: str
    amount_raw: Raw | None
    more_bps: Decimal | None
    text: str


class SecondOpinionDocument(TypedDict):
    """Answers about one token that a plan buys: base units that it sells for it, by symbol, and
    that it buys.
    """

    sell: dict[str, Raw]
    buy: str
    planned_raw: Raw
    answers: list[AnswerDocument]
    text: str


class LivePlanKeys(TypedDict):
    """Keys of this layer in the document of a plan that is shown."""

    second_opinions: NotRequired[list[SecondOpinionDocument]]


def live_plan_keys(tables: LayerTables, outcome: StepOutcome) -> LivePlanKeys:
    """Return what the services of [second_opinions] would pay for the plan's trades; nothing
    without the table or without trades.
    """
    table, plan, portfolio = tables.second_opinions, outcome.plan, outcome.step_input.portfolio
    if table is None or plan is None or not (trades := trades_of(plan, portfolio)):
        return {}
    sales = [
        Sale(token, bought, raw)
        for bought, (sold, _) in trades.items()
        for token, raw in sold.items()
    ]
    api_key = os.environ.get(table.zero_x_env or "", "")
    answers = iter(ask(table.services, api_key, outcome.step_input.snapshot.head.chain_id, sales))
    documents: list[SecondOpinionDocument] = []
    for bought, (sold, planned_raw) in trades.items():
        answers_of_trade = [next(answers) for _ in sold]
        answer_documents = [
            _answer_document(name, planned_raw, [answers[name] for answers in answers_of_trade])
            for name in table.services
        ]
        sell = {portfolio.token(token).label: str(raw) for token, raw in sold.items()}
        buy, texts = (
            portfolio.token(bought).label,
            [document["text"] for document in answer_documents],
        )
        documents.append(
            {
                "sell": sell,
                "buy": buy,
                "planned_raw": str(planned_raw),
                "answers": answer_documents,
                "text": f"Elsewhere, {' and '.join(sell)} to {buy}: {', '.join(texts)}; before gas",
            }
        )
    return {"second_opinions": documents}


def trades_of(plan: Plan, portfolio: Portfolio) -> dict[str, tuple[Counter[str], int]]:
    """Return for each token that the plan buys what it sells for it, in base units by token, and
    the base units that it buys. Native coin counts as its wrapped token. What legs collect in the
    router is followed to the leg that spends it, which spends all of it.
    """
    collected: defaultdict[str, Counter[str]] = defaultdict(Counter)
    trades: dict[str, tuple[Counter[str], int]] = {}
    for leg in plan.legs:
        sold, bought = map(portfolio.pricing_token, (leg.token_in, leg.token_out))
        spent = Counter({sold: leg.amount_in_raw})
        if leg.source is LegFunding.ROUTER:
            spent = collected.pop(sold, Counter[str]())
        if leg.sink is LegFunding.ROUTER:
            collected[bought].update(spent)
        elif bought not in spent:  # else it only wraps or unwraps
            spent_before, raw_before = trades.get(bought, (Counter[str](), 0))
            trades[bought] = spent_before + spent, raw_before + leg.amount_out_raw
    return trades


def _answer_document(name: str, planned_raw: int, answers: Sequence[int | str]) -> AnswerDocument:
    """Return the document of one service's answers to the sales of a trade, summed."""
    service, raw = SERVICES[name].label, 0
    for answer in answers:
        if isinstance(answer, str):
            text = f"{answer} ({service})"
            return {"service": service, "amount_raw": None, "more_bps": None, "text": text}
        raw += answer
    more_bps = decimal_text(ceil_int(Fraction(raw - planned_raw, planned_raw) * BPS * 10), 1)
    sign = "" if more_bps.startswith("-") else "+"
    text = f"{sign}{more_bps} bps ({service})"
    return {"service": service, "amount_raw": str(raw), "more_bps": more_bps, "text": text}
