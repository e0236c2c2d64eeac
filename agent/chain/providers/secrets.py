"""Parts of an address that may be secrets: tokens in its path, query and credentials."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit


def secret_parts(address: str) -> list[str]:
    """Return path, query and credentials of a URL, as a whole and in pieces, as written and
    decoded; [] for a text that is no URL. Services put their tokens in different places.
    """
    if "://" not in address:
        return []
    try:
        split_url = urlsplit(address)
        credentials = (split_url.username, split_url.password)
    except ValueError:
        return []
    query_values = [pair.partition("=")[2] for pair in split_url.query.split("&")]
    parts = (
        split_url.path.strip("/"),
        *split_url.path.split("/"),
        split_url.query,
        *query_values,
        split_url.fragment,
        *(part or "" for part in credentials),
    )
    return list(dict.fromkeys(form for part in parts if part for form in (part, unquote(part))))
