import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alphapack.api.problems import SHOWN_CHARS_MAX, FieldError, Refused, shown


def test_a_problem_document_has_the_members_of_rfc_9457():
    document = msgspec.json.decode(Refused(404, "expected a symbol, found none").body)
    assert document == {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "expected a symbol, found none"}


def test_fields_at_fault_are_listed_where_they_are_known():
    document = msgspec.json.decode(Refused(422, "two", [FieldError("a", "x"), FieldError("b", "y")]).body)
    assert document["errors"] == [{"key": "a", "message": "x"}, {"key": "b", "message": "y"}]


@settings(deadline=None, derandomize=True)
@given(text=st.text(alphabet=st.characters(exclude_categories=()), max_size=300))
def test_what_a_client_sent_is_shown_short_on_one_line_and_encodable(text):
    seen = shown(text)
    assert len(seen.splitlines()) == 1 and seen.isprintable()
    assert msgspec.json.decode(Refused(404, seen).body)["detail"] == seen
    assert len(seen) <= 10 * (SHOWN_CHARS_MAX + 3) + 2


@pytest.mark.parametrize(("text", "seen"), [("BTC", "'BTC'"), ("a\r\nb", r"'a\r\nb'"), ("\ud800", "'?'"), ("x" * 81, f"'{'x' * 80}...'")])
def test_examples_of_what_is_shown(text, seen):
    assert shown(text) == seen
