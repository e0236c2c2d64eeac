"""Draw docs/loss-by-width.svg: the loss of three coins and cash on Base, 50,000 dollars, against the
width of the range, costs and drift stacked, with marks for the rule and for two bands.

    .venv/bin/python scripts/make/loss_picture.py
"""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent.app.start.capital import draft_config
from agent.app.start.tracking_losses import portfolio_of_config
from agent.backtest.loss.picture import WIDTH_FACTORS, LossCurve, loss_curve
from agent.config.networks.presets import PRESETS
from agent.model import Destination, Policy, Threshold

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "loss-by-width.svg"
TARGETS = (("WETH", "25%"), ("cbBTC", "25%"), ("AERO", "20%"), ("USDC", "30%"))
VALUE = 50_000
OWN_POLICY = Policy(Threshold(None, 2_000), Destination.HALFWAY, 3_600, 0)
WIDTH = 720
HEIGHT = 400
LEFT = 60
RIGHT = 20
TOP = 30
BOTTOM = 60
MAX_BPS = 30
BPS = 10_000


def curve() -> LossCurve:
    """Return the curve of the picture."""
    config = draft_config(None, PRESETS["base"], TARGETS, str(VALUE))
    portfolio = portfolio_of_config(config, Fraction(1), Fraction(VALUE))
    if portfolio is None:
        raise SystemExit("nothing is traded")
    return loss_curve(portfolio, OWN_POLICY)


def x_of(factor: float) -> int:
    """Return the place of a width, on a logarithmic scale."""
    first = math.log(WIDTH_FACTORS[0])
    last = math.log(WIDTH_FACTORS[-1])
    share = (math.log(factor) - first) / (last - first)
    return round(LEFT + share * (WIDTH - LEFT - RIGHT))


def y_of(share: float) -> int:
    """Return the place of a loss."""
    loss_share = share * BPS / MAX_BPS
    return round(HEIGHT - BOTTOM - loss_share * (HEIGHT - TOP - BOTTOM))


def area(below: list[float], above: list[float], colour: str) -> str:
    """Return the area between two lines over the widths."""
    places = [x_of(factor) for factor in WIDTH_FACTORS]
    upper = [f"{x},{y_of(share)}" for x, share in zip(places, above, strict=True)]
    lower = [f"{x},{y_of(share)}" for x, share in zip(places, below, strict=True)]
    return f'<polygon points="{" ".join([*upper, *reversed(lower)])}" fill="{colour}" clip-path="url(#frame)"/>'


def label(x: int, y: int, text: str, anchor: str = "middle") -> str:
    """Return a text."""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def svg(loss_by_width: LossCurve) -> str:
    """Return the picture."""
    costs = [loss.costs for _, loss in loss_by_width.points]
    totals = [loss.total for _, loss in loss_by_width.points]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="13" fill="#333">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<clipPath id="frame"><rect x="{LEFT}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}"/></clipPath>',
        area([0.0] * len(costs), costs, "#8fb4d9"),
        area(costs, totals, "#f0c08a"),
    ]
    for bps in range(0, MAX_BPS + 1, 10):
        y = y_of(bps / BPS)
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#0002"/>')
        parts.append(label(LEFT - 8, y + 4, str(bps), "end"))
    for factor, text in ((0.25, "¼"), (0.5, "½"), (1, "1"), (2, "2"), (4, "4")):
        parts.append(label(x_of(factor), HEIGHT - BOTTOM + 20, f"×{text}"))
    for mark in loss_by_width.marks:
        if mark.width_factor is None:
            continue
        x = x_of(mark.width_factor)
        y = y_of(mark.loss.total)
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" fill="#b03060" stroke="#fff"/>')
        text = f"{mark.name}: {mark.loss.total * BPS:.0f}"
        is_rule = mark is loss_by_width.marks[0]
        parts.append(label(x - 9 if is_rule else x + 9, y - 8, text, "end" if is_rule else "start"))
    parts += [
        label(LEFT, 18, "Loss, bps of the portfolio a year", "start"),
        label((WIDTH + LEFT) // 2, HEIGHT - 12, "width of the range beside the rule's"),
        label(LEFT + 18, y_of(0.0004), "costs", "start"),
        label(WIDTH - RIGHT - 18, y_of(0.0004), "drift", "end"),
        "</svg>\n",
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PICTURE.write_text(svg(curve()), encoding="utf-8")
