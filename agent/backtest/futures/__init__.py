"""Simulation of a futures book: prices, funding, fills and liquidations bar by bar."""
