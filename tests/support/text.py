"""Checks of messages by their fields, numbers and names, never by their sentences."""

from __future__ import annotations


def mentions(text: object, *terms: str) -> bool:
    """Return whether the text has each of the terms, in any order and case."""
    found = str(text).casefold()
    return all(term.casefold() in found for term in terms)
