"""What heads of answers say: when to come again, and which bytes they are about."""

import pytest
from urllib3 import HTTPResponse

from store_lib.clients import response_headers
from store_lib.clients.response_headers import content_range, retry_after, validator

NOON, LATER = "Mon, 02 Nov 2026 12:00:00 GMT", "Mon, 02 Nov 2026 12:00:30 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": LATER, "Date": NOON}, 30.0),
        ({"Retry-After": NOON, "Date": LATER}, 0.0),
        ({"Retry-After": LATER, "Date": "noon"}, 25.0),
        ({"Retry-After": LATER}, 25.0),
        ({"Retry-After": "-7"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 5000}, None),
        ({"Retry-After": "Mon, 02 Nov 99999999 10:00:01 GMT"}, None),
    ],
)
def test_retry_after(
    headers: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds, or a date by the server's clock, by ours where it does not tell its own."""
    noon = response_headers.parse_http_date(NOON)
    assert noon is not None
    monkeypatch.setattr(response_headers.time, "time", lambda: noon + 5)
    assert retry_after(headers) == seconds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("bytes 0-9/10", (0, 9, 10)),
        (" Bytes  5-9/* ", (5, 9, None)),
        ("bytes */10", (0, -1, 10)),
        ("bytes */*", (0, -1, None)),
        ("bytes 0-9", None),
        ("bytes 0-/10", None),
        ("bytes -1-9/10", None),
        ("items 0-9/10", None),
        (f"bytes 0-{'9' * 5000}/10", None),
        ("", None),
    ],
)
def test_content_range(text: str, found: tuple[int, int, int | None] | None) -> None:
    """A range has a first and a last byte, and a size if known; other text is refused."""
    assert content_range(text) == found


@pytest.mark.parametrize("date", [NOON, NOON.replace(" 2026", "\r\n 2026")])
def test_a_date_that_cannot_be_sent_back_is_no_validator(date: str) -> None:
    """A date may be folded into two lines; If-Range says none of it then."""
    head = HTTPResponse(headers={"Last-Modified": date, "Date": LATER})
    assert validator(head) == (NOON if date == NOON else None)
