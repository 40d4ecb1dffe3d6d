"""Tests of the error tree: form, pickling, and no secret in any text."""

import ast
import inspect
import pickle
import re

import pytest

from store_lib import exceptions
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    BadStoreUri,
    Duplicate,
    ErrorStatus,
    Invalid,
    NotFound,
    RemoteServiceUnavailable,
    StoreError,
    being_added,
    duplicate,
    not_found,
)
from store_lib.location import scheme_of
from store_lib.redaction import redact, redact_uri
from tests.unit.test_packaging import ROOT

CLASSES = [
    cls for _, cls in inspect.getmembers(exceptions, inspect.isclass) if issubclass(cls, StoreError)
]


@pytest.mark.parametrize("cls", CLASSES)
def test_pickles_with_everything(cls: type[StoreError]) -> None:
    """Every error survives a process boundary with its attributes and notes."""
    error = cls(store="fast", operation="add", object_id="x", status=ErrorStatus.EXHAUSTED)
    error.add_note("a note")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error) == copy.msg
    assert (copy.store, copy.operation, copy.object_id) == ("fast", "add", "x")
    assert copy.status is ErrorStatus.EXHAUSTED
    assert copy.__notes__ == ["a note"]


@pytest.mark.parametrize("cls", CLASSES)
def test_form(cls: type[StoreError]) -> None:
    """Every class has a template, and makes a text without any of its keywords."""
    assert cls.message
    assert "%(" not in str(cls())
    assert cls.__doc__


def test_formatting() -> None:
    """Keywords fill the template or the given text, and a stray per cent sign does no harm."""
    assert str(NotFound(image="abc")) == "Object abc not found"
    assert str(NotFound(image=None)) == "Object None not found"
    assert NotFound("Gone: %(image)s", image=5).msg == "Gone: 5"
    assert str(Invalid("100 % wrong")) == "100 % wrong"
    assert str(Invalid("100 %z wrong", image=1)) == "100 %z wrong"


def test_one_text_for_objects_that_are_missing_or_there() -> None:
    """What is known besides stands in brackets behind the text that all drivers share."""
    assert str(not_found("a%s")) == "Object a%s not found"
    assert str(not_found("a", "404 %s")) == "Object a not found (404 %s)"
    assert str(duplicate("a%s")) == "Object a%s already exists"
    assert str(duplicate("a", "on %(image)s")) == "Object a already exists (on %(image)s)"
    adding = "Object a is being added right now, by this or another process"
    assert str(being_added("a")) == adding
    assert str(being_added("a", "to store x")) == f"{adding} (to store x)"
    for error in (duplicate("a"), being_added("a")):
        assert (type(error), error.status) == (Duplicate, ErrorStatus.PERMANENT)
    assert being_added("a", status=ErrorStatus.TEMPORARY).status is ErrorStatus.TEMPORARY


def test_duplicates_have_no_text_of_their_own() -> None:
    """No driver writes the text for an id that is taken: all of them call these functions."""
    callers = set()
    for directory in ("store_lib", "tests/toy_driver"):
        for path in (ROOT / directory).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and re.search(
                    r"\bDuplicate$", ast.unparse(node.func)
                ):
                    callers.add(path.relative_to(ROOT).as_posix())
    assert callers == {"store_lib/exceptions.py"}


def test_locate_fills_only_blanks() -> None:
    """Who raised knows best; the callers only add what was not known."""
    error = NotFound(store="inner").annotate(store="outer", operation="get")
    assert (error.store, error.operation) == ("inner", "get")


def test_status() -> None:
    """Only what may pass is temporary."""
    assert StoreError().status is ErrorStatus.PERMANENT
    assert RemoteServiceUnavailable().status is ErrorStatus.TEMPORARY
    assert exceptions.MaxRedirectsExceeded(redirects=5).status is ErrorStatus.PERMANENT
    assert exceptions.TimeoutError(timeout=5).status is ErrorStatus.EXHAUSTED


def test_relations() -> None:
    """What callers of glance_store rely on: one root, and no built-in TimeoutError."""
    assert issubclass(BackendException, StoreError)
    assert not issubclass(exceptions.TimeoutError, TimeoutError)
    assert issubclass(exceptions.UnknownStore, exceptions.UnknownScheme)
    assert BadStoreConfiguration("x").readable is False
    copy = pickle.loads(pickle.dumps(BadStoreConfiguration("x", readable=True)))
    assert copy.readable is True


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://AKIA:{SECRET}@host/bucket/key",
        f"s3+https://AKIA:{SECRET}/x@y@host:80/bucket/key",
        f"swift+https://acct:user:{SECRET}@host/v3/container/obj",
        f"swift://us%3Aer:{SECRET}/with/slash@host/c/o",
        f"https://user:{SECRET}@host/path?q=1",
        f"https://host/path?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}",
        f"https://host/v1/a/c/o?temp_url_sig={SECRET}&temp_url_expires=5",
        f"https://host/x?api_key={SECRET}",
        f"http://user:pa'ss {SECRET}?#<>@host/",
        f"file:///x@y and http://u:{SECRET}@h/",
        f"text before swift://u:{SECRET}@h/c/o and after http://u:{SECRET}@h/",
        f"s3:/AK:{SECRET}@h/b/k",
        f"s3:AK:{SECRET}@h/b/k",
        f"s3:/AK:{SECRET}@{SECRET}/b/k",
        f"s3:/AK:{SECRET} {SECRET}@h/b/k",
        f"s3;//AK:{SECRET}@h/b/k",
        f"http:/u:{SECRET}@h/x",
        f"://u:{SECRET}@h",
        f"u:{SECRET}@h/x://y",
        f"http:/h/x?{SECRET}",
        f"http://h/x?{SECRET}",
        f"HTTPS://h/x?name={SECRET}",
        f"http://u:{SECRET}?x@h/y?{SECRET}",
        f"file://u:{SECRET}@h/x",
    ],
)
def test_redaction(uri: str) -> None:
    """No credential of a URI is printed, whatever its form."""
    assert SECRET not in redact_uri(uri)
    assert SECRET not in str(BadStoreUri(uri=uri))
    assert redact_uri(uri).count("***") >= 1


@pytest.mark.parametrize(
    "uri",
    [
        "file:///images/a@b",
        "rbd://fsid/pool/image/snap",
        "vsphere://host/folder/dir/id?dcPath=dc&dsName=ds",
        "https://host/path",
    ],
)
def test_redaction_leaves_the_rest(uri: str) -> None:
    """What holds no secret is shown as it is."""
    assert redact_uri(uri) == uri


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no s3:/AK:key@h/b/k there", "no s3:*** there"),
        ("http:u:key@h/x://y", "http:***://y"),
        ("://u:key@h", "://***@h"),
        ("file: mail to a@b:80, c@d", "file: mail to a@b:80, c@d"),
    ],
)
def test_mistyped_uris_in_a_text(text: str, shown: str) -> None:
    """A word with a colon and an @ after it, as a URI has them, is not shown from the colon on."""
    assert redact(text) == shown


def test_scheme() -> None:
    """The scheme is read strictly, in lower case."""
    assert scheme_of("FILE:///x") == "file"
    assert scheme_of("swift+https://x") == "swift+https"
    for bad in ("", "x", "://x", "1a://x", "file:/x", "a_b://x", "a b://x", "a:b://x"):
        with pytest.raises(BadStoreUri, match="Expected a location URI"):
            scheme_of(bad)
    with pytest.raises(BadStoreUri, match="got NoneType"):
        scheme_of(None)  # type: ignore[arg-type]
    with pytest.raises(BadStoreUri) as caught:
        scheme_of(f"nothing u:{SECRET}@host")
    assert caught.value.status is ErrorStatus.PERMANENT


def test_docstring_shows_the_tree() -> None:
    """The tree drawn in the module's docstring names every class, and no other."""
    drawn = set(re.findall(r"^ *[|`\- ]*([A-Z]\w+)", exceptions.__doc__ or "", re.M))
    assert {cls.__name__ for cls in CLASSES} <= drawn
