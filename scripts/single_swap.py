#!/usr/bin/env python3
"""One swap by hand through the public Python API: shows the plan, asks, signs, sends, reports.

    .venv/bin/python scripts/single_swap.py trimtab.toml WETH USDC 0.1 [--send] [--yes]

Without --send nothing is sent. The guards of the agent's own trades apply.
"""

import argparse
import sys

from agent.app import StepOutcome, open_agent
from agent.errors import TrimtabError
from agent.units import decimal_text


def describe(outcome: StepOutcome) -> None:
    """Print the legs. If a guard refuses, the outcome's reason says so."""
    portfolio = outcome.step_input.portfolio
    for leg in outcome.plan.legs if outcome.plan else ():
        token_in = portfolio.token(leg.token_in)
        token_out = portfolio.token(leg.token_out)
        sold_text = f"{decimal_text(leg.amount_in_raw, token_in.decimals)} {token_in.label}"
        minimum_text = f"at least {decimal_text(leg.min_out_raw, token_out.decimals)}"
        bought_text = f"{decimal_text(leg.amount_out_raw, token_out.decimals)} {token_out.label}"
        print(f"sell {sold_text} for {bought_text}, {minimum_text}, in {leg.venue} pool {leg.pool}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("config", "token_in", "token_out", "amount"):
        parser.add_argument(name)
    for name in ("--send", "--yes"):
        parser.add_argument(name, action="store_true")
    args = parser.parse_args()
    if args.send and not (args.yes or sys.stdin.isatty()):
        parser.error("a confirmation is needed, and there is no terminal to ask: add --yes")

    def confirm(outcome: StepOutcome) -> bool:
        describe(outcome)
        return args.yes or input("Sign and send? [y/N] ").strip().lower() == "y"

    try:
        with open_agent(args.config) as agent:
            pair = (args.token_in, args.token_out)
            outcome = agent.swap(*pair, args.amount, send=args.send, confirm=confirm)
            if not args.send:
                describe(outcome)
            print(f"{outcome.kind.value}: {outcome.reason}")
            for change in agent.realised_changes(outcome):
                print("{symbol}: {realised_raw} of {planned_raw} planned units".format(**change))
    except TrimtabError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0 if outcome.kind.value in ("planned", "done") else 10


if __name__ == "__main__":
    sys.exit(main())
