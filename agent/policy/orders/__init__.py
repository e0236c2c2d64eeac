"""Conditional orders, the exits that they fire, and failures of exits."""
