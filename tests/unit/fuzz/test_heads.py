"""Header fields: ranges, lengths, dates, tags, cookies, redirects, hosts with ports."""

import functools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest
from urllib3 import HTTPHeaderDict

from store_lib.clients import ranges, response_headers
from store_lib.clients.addresses import AddressRules
from store_lib.clients.hosts import is_host_name, join_host, split_host
from store_lib.clients.network_errors import OptionNames, Server, quoted
from store_lib.clients.sessions import _redirected as session_redirected
from store_lib.drivers.http.client import _redirected as http_redirected
from store_lib.drivers.http.location import HttpLocation
from store_lib.drivers.swift.client import SwiftResponse
from store_lib.drivers.swift.errors import error_for_response
from store_lib.drivers.swift.segments import dynamic_manifest, is_static
from store_lib.drivers.vmware.errors import data_error
from store_lib.drivers.vmware.soap import _session_cookie
from store_lib.exceptions import BackendException, Forbidden, Invalid, LengthRequired, StoreError
from store_lib.wsgi import request_body
from tests.unit.fuzz.fuzzing import Parser, feed
from tests.unit.fuzz.mutation import CANARY, Mutator
from tests.unit.fuzz.test_uris import shows_no_secret

_SERVER = Server("http://host", OptionNames("ca", "connect", "read"))
_HEADERS = {
    "Content-Length": "10",
    "Content-Range": "bytes 5-14/100",
    "ETag": '"abc"',
    "Last-Modified": "Fri, 20 Nov 2026 16:30:27 GMT",
    "Date": "Fri, 20 Nov 2026 16:30:30 GMT",
    "Accept-Ranges": "bytes",
    "Retry-After": "120",
    "Content-Encoding": "identity",
    "X-Object-Manifest": "segments/a%20b/",
    "X-Static-Large-Object": "True",
    "Content-Location": "/v1/AUTH_a/c/o",
    "X-Symlink-Target": "c/o",
    "Set-Cookie": f'vmware_soap_session="{CANARY}"; Path=/; HttpOnly; Secure',
}
_PIECES = [
    *("bytes", "bytes */*", "*/100", "-", "/", "W/", '"', "GMT", "+0000", "-9999", "gzip"),
    *("Fri, 20 Nov 2026 16:30:27 GMT", "Friday, 20-Nov-26 16:30:27 GMT", "1e400", ", ", ";"),
    *("Fri Nov 20 16:30:27 2026", "20 Nov 0000", "99999999999999999999", "chunked", "none"),
]


class _Response:
    """As much of an answer as what judges it looks at."""

    def __init__(self, status: int, fields: dict[str, str], body: bytes = b"") -> None:
        self.status = status
        self.headers = HTTPHeaderDict(fields)
        self.body = body

    def read1(self, amount: int, decode_content: bool = False) -> bytes:
        return self.body[:amount]

    def close(self) -> None:
        """Nothing to close."""


def _fields(mutator: Mutator) -> dict[str, str]:
    return mutator.fields(_HEADERS, _PIECES)


def _judge(fields: dict[str, str]) -> bool:
    """Read every field as the clients do."""
    response: Any = _Response(200, fields)
    found = 0
    later = response_headers.retry_after(response.headers)
    assert later is None or 0 <= later < math.inf
    for date in (fields.get("Date"), fields.get("Last-Modified")):
        seconds = response_headers.parse_http_date(date)
        assert seconds is None or math.isfinite(seconds)
        found += seconds is not None
    tag = response_headers.validator(response)
    assert tag is None or (min(tag) >= " " and tag in fields.values())
    span = response_headers.content_range(fields.get("Content-Range", ""))
    if span is not None:
        assert all(each is None or -1 <= each < 10**19 for each in span)
        found += 1
    dynamic = dynamic_manifest(response.headers)
    assert dynamic is None or not {".", ".."} & {dynamic[0]}
    is_static(response.headers)
    _session_cookie(response)
    for read in (
        lambda: response_headers.content_length(response),
        lambda: SwiftResponse(200, response.headers, b"").size,
    ):
        try:
            size = read()
        except BackendException:
            continue
        assert size is None or 0 <= size < 10**19
        found += 1
    return found > 0


class _Source:
    """What a reader asks; it gives the answers of the test."""

    display_name = "http://host/object"
    server = _SERVER

    def __init__(self, *responses: Any) -> None:
        self.responses = list(responses)

    def get(self, headers: Any) -> Any:
        return self.responses.pop(0)

    def error_for_response(self, response: Any) -> StoreError:
        return BackendException(f"refused {response.status}")


def _range(given: tuple[list[int], dict[str, str], dict[str, str], int, int | None]) -> bool:
    """Ask for a range, and then for more of the object, and believe only what agrees."""
    statuses, fields, further, offset, length = given
    first, second = (
        _Response(status, each) for status, each in zip(statuses, (fields, further), strict=True)
    )
    source: Any = _Source(first, second)
    answer = ranges.open_range(source, offset, length)
    _sane(answer, offset, length)
    more = ranges.open_range(source, offset + 1, length, answer)
    _sane(more, offset + 1, length)
    assert None in (answer.size, more.size) or answer.size == more.size
    return True


def _sane(answer: ranges.RangeResponse, offset: int, length: int | None) -> None:
    if answer.size is not None:
        assert answer.size >= 0
        assert offset <= answer.size
    if answer.limit is not None:
        assert answer.limit >= 0
        assert length is None or answer.limit <= length
    if answer.needed is not None and answer.limit is not None and length is not None:
        assert answer.needed <= length


def _a_range(mutator: Mutator) -> Any:
    statuses = [mutator.one([206] * 7 + [200, 416, 404, 500]) for _ in range(2)]
    offset, length = mutator.one([(5, 10), (5, 10), (5, None), (5, 0), (0, None), (0, 0), (9, 1)])
    usual = {**_HEADERS, "Content-Range": f"bytes {offset}-{offset + 9}/100"}
    next_one = {**_HEADERS, "Content-Range": f"bytes {offset + 1}-{offset + 10}/100"}
    fields, further = (
        each if mutator.below(2) else mutator.fields(each, _PIECES) for each in (usual, next_one)
    )
    return statuses, fields, further, offset, length


def _refuse(given: tuple[int, dict[str, str], bytes]) -> bool:
    """Make the errors that refusals mean, which quote the body."""
    status, fields, body = given
    response: Any = _Response(status, fields, body)
    response.sent_secrets = [CANARY]
    said = quoted(response)
    assert CANARY not in said
    assert said.isprintable()
    for error in (
        error_for_response(response, "GET", "c/o"),
        data_error(response, "Reading", "x", _SERVER),
    ):
        assert isinstance(error, StoreError)
        assert CANARY not in str(error)
        assert error.retry_after is None or 0 <= error.retry_after < math.inf
    return True


def _a_refusal(mutator: Mutator) -> tuple[int, dict[str, str], bytes]:
    status = mutator.one([400, 401, 403, 404, 409, 413, 416, 429, 498, 500, 503, 507, 301, 999])
    pages = [
        f"<h1>Bad</h1> X-Auth-Token: {CANARY}".encode(),
        f'{{"error": "{CANARY}"}}'.encode(),
        f"at http://u:{CANARY}@host/x?token={CANARY} ".encode(),
    ]
    return status, _fields(mutator), mutator.data(pages, _PIECES)


_TARGETS = [
    "/other/path?x=1",
    "http://host.example/a",
    "https://host.example:443/a",
    "//evil.example/x",
    f"http://user:{CANARY}@host.example/a",
    "http://host.example:8080",
    "file:///etc/passwd",
    "\\\\evil.example\\x",
]
_TARGET_PIECES = [
    "http://",
    "https://",
    "//",
    "\\",
    "@",
    ":443",
    "evil.example",
    "\t",
    "#",
    "[::1]",
]


def _redirect(target: str) -> bool:
    """Follow a redirect only to where one may lead."""
    response: Any = _Response(302, {"Location": target})
    taken = 0
    for origin in ("http://host.example/a", "https://host.example/a/b"):
        place = HttpLocation.parse(origin)
        try:
            found = http_redirected(place, response)
        except StoreError as error:
            shows_no_secret(target, str(error))
        else:
            taken += 1
            assert found.login is None
            assert (place.scheme, found.scheme) != ("https", "http")
        try:
            url = session_redirected(origin, target)
        except BackendException as error:
            shows_no_secret(target, str(error))
        else:
            taken += 1
            assert urlsplit(url).hostname == "host.example"
            assert urlsplit(url).scheme in ("http", "https")
            assert not (origin.startswith("https:") and url.startswith("http:"))
    return taken > 0


_HOSTS = ["host.example:8080", "[::1]:443", "10.0.0.1", "a_b-c.d.", "[fe80::1]", "xn--bcher-kva"]


def _host(text: str) -> bool:
    host, port = split_host(text, 80)
    assert split_host(join_host(host, port, 80), 80) == (host, port)
    assert 1 <= port <= 65535
    assert ":" in host or is_host_name(host)
    return True


_ENTRIES = ["10.0.0.0/8", "host.example", "::1", "[2001:db8::/32]", "0x7f.1", "127.1", "1.2.3"]


def _rules(given: tuple[str, str]) -> bool:
    """Make lists of hosts, and hold a host against them: what is denied stays so."""
    entry, host = given
    denied = AddressRules(("a", "b"), denied=[entry])
    AddressRules(("a", "b"), allowed=[entry])
    try:
        denied.check_host(host, proxied=True)
    except Forbidden:
        pass
    else:
        same = host.rstrip(".").lower() == entry.strip().rstrip(".").lower()
        assert not (same and is_host_name(host))
    return True


def _a_rule(mutator: Mutator) -> tuple[str, str]:
    host = mutator.one(_HOSTS) if mutator.below(2) else mutator.text(_ENTRIES)
    return mutator.text(_ENTRIES, ["/8", "/33", ".", ":"]), host


_ENVIRON = {"CONTENT_LENGTH": "10", "HTTP_TRANSFER_ENCODING": "chunked"}


def _body(given: tuple[dict[str, str], list[int], bool]) -> bool:
    """Read a request's body: all that was declared, or an error."""
    environ, pieces, terminated = given
    waiting = [b"x" * each for each in pieces]

    def pull(amount: int) -> bytes:
        assert amount > 0
        if not waiting:
            return b""
        piece, waiting[0] = waiting[0][:amount], waiting[0][amount:]
        if not waiting[0]:
            del waiting[0]
        return piece

    stream = SimpleNamespace(read=pull)
    body = request_body({**environ, "wsgi.input": stream, "wsgi.input_terminated": terminated})
    if body.size is not None and body.size > 10_000:
        return False
    data = body.read()
    assert body.size is None or len(data) == body.size
    assert body.size is not None or len(data) == sum(pieces)
    return True


def _a_body(mutator: Mutator) -> Any:
    pieces = [1 + mutator.below(7) for _ in range(mutator.below(5))]
    return mutator.fields(_ENVIRON, ["chunked", "gzip"]), pieces, mutator.below(2) == 0


_text: Callable[..., Callable[[Mutator], str]] = functools.partial(functools.partial, Mutator.text)

pytestmark = pytest.mark.deep("fuzz", always=True)

PARSERS = [
    Parser("header fields", _fields, _judge),
    Parser("ranges of objects", _a_range, _range, (StoreError,)),
    Parser("pages of errors", _a_refusal, _refuse),
    Parser("redirects", _text(corpus=_TARGETS, pieces=_TARGET_PIECES), _redirect),
    Parser("hosts with ports", _text(corpus=_HOSTS), _host, (ValueError,)),
    Parser("lists of hosts", _a_rule, _rules, (ValueError,)),
    Parser("bodies of WSGI requests", _a_body, _body, (Invalid, LengthRequired)),
]


def test_heads(parser: Parser, batches: range, record_property: Any) -> None:
    """A field means what the rules of HTTP say, or is no field at all."""
    feed(parser, batches, record_property)
