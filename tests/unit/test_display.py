"""Names and URIs that cannot be printed: no text that the library shows has them as they are."""

import itertools
import logging
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from store_lib import Store, Stores
from store_lib.display import get_logger, printable
from store_lib.exceptions import NotFound, StoreError, UnknownScheme
from store_lib.glance import backend
from store_lib.options import NAMESPACE
from tests.unit.memory_driver import MemoryDriver, memory_store
from tests.unit.test_packaging import ROOT

#: Line breaks, an escape sequence, control characters, marks of direction, half a character.
ODD = [
    "\n",
    "\r\n",
    "\x1b[31m",
    "\0",
    "\x07",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202e",
    "\u2066",
    "\udcff",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a b \u00e9 \u4e2d \\n", "a b \u00e9 \u4e2d \\n"),
        ("a\nb\x1b[0m\0", "a\\nb\\x1b[0m\\x00"),
        ("\u202e\u2066\udcff\U000e0001", "\\u202e\\u2066\\udcff\\U000e0001"),
    ],
    ids=itertools.count(),
)
def test_printable(text: str, shown: str) -> None:
    """What prints stays, and all else is an escape sequence."""
    assert printable(text) == shown


def test_some_may_stay() -> None:
    """Line breaks stay in texts of several lines."""
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_arguments_of_log_records(caplog: pytest.LogCaptureFixture) -> None:
    """Texts and errors among them are printable, numbers are numbers."""
    log = get_logger("store_lib.test")
    log.warning("%s, %d, %s, %.1f", "a\nb", 5, ValueError("\x1b"), 1.5)
    log.warning("%(a)s 100 %%", {"a": 1})
    assert [each.getMessage() for each in caplog.records] == ["a\\nb, 5, \\x1b, 1.5", "1 100 %"]


def test_notes_of_errors() -> None:
    """A note is shown beside the text, and as it."""
    error = NotFound("a\nb")
    error.add_note("c\nd")
    assert (str(error), error.__notes__) == ("a\\nb", ["c\\nd"])


@pytest.fixture
def memory() -> Store:
    """A store of a driver that looks at nothing."""
    driver: MemoryDriver = memory_store()[1]
    return Store("mem", "memory", driver, driver.conf)


def calls(store: Store, stores: Stores, odd: str) -> Iterator[Callable[[], Any]]:
    """Yield every call that takes an id or a URI."""
    uris = [
        f"memory://mem/{odd}",
        f"file:///x/{odd}",
        f"http://127.0.0.1:9/{odd}",
        odd,
        f"{odd}://",
    ]
    uris += [f"http://a:b@h{odd}/", f"file:/{odd}", f"a{odd}://b"]
    for uri in uris:
        for each in (store, stores):
            yield lambda each=each, uri=uri: each.get(uri)
            yield lambda each=each, uri=uri: each.stat(uri)
            yield lambda each=each, uri=uri: each.delete(uri)
            yield lambda each=each, uri=uri: each.copy(uri, "id")
        yield lambda uri=uri: stores.get(uri, store="files")
        yield lambda uri=uri: stores.delete(uri, store="files")
        yield lambda uri=uri: store.set_acls(uri, public=True)
        yield lambda uri=uri: store.url(uri)
        yield lambda uri=uri: backend.get_from_backend(uri)
    for object_id in (odd, f"a{odd}b"):
        yield lambda object_id=object_id: store.add(object_id, b"x")
        yield lambda object_id=object_id: stores.add(object_id, b"x")
        yield lambda object_id=object_id: store.copy("memory://mem/there", object_id)
        yield lambda object_id=object_id: stores[object_id]
        yield lambda object_id=object_id: stores.add("id", b"x", store=object_id)
        yield lambda object_id=object_id: store.sweep(0, object_id=object_id)
        yield lambda object_id=object_id: store.add("id", b"x", digests=[object_id])
        yield lambda object_id=object_id: store.add("id", b"x", expected={"md5": object_id})
        yield lambda object_id=object_id: store.set_acls("memory://mem/a", read_tenants=[object_id])


@pytest.mark.parametrize("odd", ODD, ids=itertools.count())
def test_every_operation(
    odd: str, memory: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The texts of errors and of log records have one line, and can be encoded."""
    caplog.set_level(logging.DEBUG)
    values = {
        "DEFAULT": {"enabled_backends": {"files": "file", "web": "http"}},
        "glance_store": {"default_backend": "files"},
        "files": {"filesystem_store_datadir": str(tmp_path)},
        "web": {"http_denied_addresses": "127.0.0.0/8"},
    }
    texts = []
    with Stores.from_mapping(values, strict=True) as stores:
        for call in calls(memory, stores, odd):
            try:
                call()
            except StoreError as error:
                texts += [str(error), repr(error), *getattr(error, "__notes__", ())]
    assert len(texts) > 100
    for text in (*texts, *(record.getMessage() for record in caplog.records)):
        assert text.isprintable(), ascii(text)


@pytest.mark.parametrize("odd", ODD, ids=itertools.count())
def test_locations_of_every_driver(odd: str) -> None:
    """A URI that is taken is shown printable, and one that is refused too."""
    for point in entry_points(group=NAMESPACE):
        found = point.load().location_class
        for scheme in found.schemes:
            for rest in (
                odd,
                f"/{odd}",
                f"h/b/{odd}",
                f"u:p@h/b/{odd}",
                f"h/folder/{odd}?dcPath=a",
            ):
                uri = f"{scheme}://{rest}"
                try:
                    location = found.parse(uri)
                    shown = f"{location}{location!r}"
                except StoreError as error:
                    shown = f"{error}{error!r}"
                assert shown.isprintable(), ascii((uri, shown))


def test_a_scheme_is_shown_that_no_store_has() -> None:
    """It is a word of letters by then, so that nothing else is shown of a mistyped URI."""
    stores = Stores.from_mapping({"DEFAULT": {"enabled_backends": {}}})
    with pytest.raises(UnknownScheme, match="'nothing'"):
        stores.get("nothing://x")
    for get in (stores.get, backend.get_from_backend):
        with pytest.raises(StoreError) as caught:
            get("s3:/AK:s3cr3t@h://x")
        assert "s3cr3t" not in str(caught.value)


def test_every_module_logs_printable_texts() -> None:
    """The library's loggers come from one place; the test kit's are for those who test."""
    for path in (ROOT / "store_lib").rglob("*.py"):
        if path.name != "display.py" and "testing" not in path.parts:
            assert "logging.getLogger(__name__)" not in path.read_text(), path
