"""Fields of the config's tables: addresses of services, amounts."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from agent.config.tables.fields import PlainDecimal, is_base_url


@pytest.mark.parametrize(
    ("url", "is_base"),
    [
        pytest.param("https://a.b", True, id="https"),
        pytest.param("https://a.b/path", True, id="path"),
        pytest.param("http://localhost:8080", True, id="http on this machine"),
        pytest.param("http://a.b", False, id="http elsewhere"),
        pytest.param("https://a.b/", False, id="slash at the end"),
        pytest.param("https://a.b?c", False, id="query"),
        pytest.param("https://a.b?", False, id="empty query"),
        pytest.param("https://a.b#", False, id="empty fragment"),
        pytest.param("https://a.b/path?#", False, id="empty query and fragment"),
    ],
)
def test_base_url__is_one_to_which_a_path_is_appended(url: str, is_base: bool) -> None:
    assert is_base_url(url) is is_base


@pytest.mark.parametrize("amount", ["1.5", " 2 ", 3])
def test_plain_decimal__is_text_without_blanks(amount: object) -> None:
    assert TypeAdapter(PlainDecimal).validate_python(amount) == str(amount).strip()


@pytest.mark.parametrize("amount", ["-1", "1e5", "1.", "", 1.5, True, None])
def test_plain_decimal__in_another_form_is_refused(amount: object) -> None:
    with pytest.raises(ValidationError, match="is not an amount"):
        TypeAdapter(PlainDecimal).validate_python(amount)
