"""Decisions from a step's input: targets, triggers, orders, cash flows, liquidity and strategies.
Pure.
"""
