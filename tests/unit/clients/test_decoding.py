"""The decoder of answers: values that are right pass as they are, all others are one error."""

import pytest

from store_lib.clients import decoding
from store_lib.exceptions import BackendException, NotFound, RemoteServiceUnavailable

_DEEP = b"[" * 100_000

#: Of each function what it takes, and what it refuses.
_GOOD = [
    (decoding.text, "é\n", "é\n"),
    (decoding.boolean, False, False),
    (decoding.size, 0, 0),
    (decoding.size, 2**63 - 1, 2**63 - 1),
    (decoding.digits, "007", 7),
    (decoding.timestamp, "1970-01-01T00:00:01.5", 1.5),
    (decoding.timestamp, "1970-01-01T01:00:00+01:00", 0.0),
    (decoding.fields, {"a": 1}, {"a": 1}),
    (decoding.entries, [{"a": 1}, {}], [{"a": 1}, {}]),
    (decoding.url, "HTTPS://host:8080/v1/AUTH_a", "HTTPS://host:8080/v1/AUTH_a"),
    (decoding.parse_json, b'{"a": [1]}', {"a": [1]}),
]
_BAD = [
    (decoding.text, [None, 1, b"a", ["a"], "\ud800"]),
    (decoding.boolean, [None, 0, 1, "true", []]),
    (decoding.size, [None, True, -1, 2**63, 1.0, "1", [None], float("nan")]),
    (decoding.digits, [None, 1, "", "-1", "1.0", "1e3", " 1", "1\n", "٣", "9" * 19, "9" * 5000]),
    (decoding.timestamp, [None, 1, "", "now", "9" * 99, "\ud800", []]),
    (decoding.fields, [None, [], "a", 1]),
    (decoding.entries, [None, {}, "a", [None], [[]], [{}, 1]]),
    (
        decoding.url,
        [
            *(None, 1, "", "host", "ftp://host", "http://", "http://[::1", "http://h:x/"),
            *("http://h:99999/", "http://u:p@h/", "http://@h/", "http://h/a b"),
            *("http://h/\r\nX: y", "http://\ud800/"),
        ],
    ),
    (decoding.parse_json, [b"", b"<html>", b"{", b"\xff\xfe\xff", _DEEP, b"9" * 5000, ""]),
]


@pytest.mark.parametrize(("function", "value", "wanted"), _GOOD)
def test_what_is_right_is_returned(function, value, wanted):
    """A value of the right type within its bounds is the result."""
    assert function(value) == wanted


@pytest.mark.parametrize(
    ("function", "value"), [(function, value) for function, values in _BAD for value in values]
)
def test_what_is_wrong_is_one_error(function, value):
    """Any other value is refused with what was expected and what was got, short and in ASCII."""
    with (
        pytest.raises(BackendException) as caught,
        decoding.decoding("a thing of a server", advice="Look there."),
    ):
        function(value)
    said = str(caught.value)
    assert said.startswith("Expected a thing of a server, got ")
    assert " belongs. Look there." in said
    assert said.isascii()
    assert said.isprintable()
    assert len(said) < 400
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("error", [TypeError("CANARY"), RecursionError(), OverflowError()])
def test_whatever_goes_wrong_is_the_answer(error):
    """What a block raises besides is the answer's fault, and is named without its text."""
    with (
        pytest.raises(RemoteServiceUnavailable, match=type(error).__name__) as caught,
        decoding.decoding("a thing", raising=RemoteServiceUnavailable),
    ):
        raise error
    assert "CANARY" not in str(caught.value)


def test_a_field_that_is_not_there_is_named():
    """An object without a field says which one."""
    with (
        pytest.raises(BackendException, match="got none with 'size' in it"),
        decoding.decoding("a thing"),
    ):
        decoding.fields({})["size"]


def test_errors_of_the_library_pass():
    """An error that somebody has worded already stays as it is."""
    error = NotFound("gone")
    with pytest.raises(NotFound) as caught, decoding.decoding("a thing"):
        raise error
    assert caught.value is error


def test_what_was_sent_is_not_shown():
    """An answer that quotes the request does not get its secrets, or a URI's login, shown."""
    answers = [
        "CANARY-token",
        ["CANARY-token"],
        {"CANARY-token": 1},
        "http://me:CANARY@host/",
        ["http://me:CANARY@host/"],
        "x" * 190 + "CANARY-token",
    ]
    for answer in answers:
        with (
            pytest.raises(BackendException) as caught,
            decoding.decoding("a thing", secrets=["CANARY-token"]),
        ):
            decoding.size(answer)
        assert "CANARY" not in str(caught.value), answer


def test_large_values_are_cut():
    """A value of any size or depth is shown by its beginning."""
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    for value in (
        deep,
        list(range(10**6)),
        "x" * 10**6,
        10**4200,
        "\x1b[2J",
        b"\xff" * 10**6,
        object(),
    ):
        told = decoding.display(value)
        assert len(told) <= 200
        assert told.isascii()
        assert told.isprintable()
