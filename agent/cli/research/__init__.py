"""Commands on recorded prices. Importing the package declares them."""

from agent.cli.research import backtest, trials, whatif

__all__ = ["backtest", "trials", "whatif"]
