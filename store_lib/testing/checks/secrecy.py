"""Secrecy: no message, representation, URI or log line contains a configured secret."""

import contextlib
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from store_lib.exceptions import StoreError
from store_lib.redaction import redact_uri
from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect
from store_lib.testing.target import Target


class _Lines(logging.Handler):
    """A handler that keeps the lines of all loggers."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        self.lines.append(text)


@contextlib.contextmanager
def _logged() -> Iterator[list[str]]:
    root, handler = logging.getLogger(), _Lines()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


@check(needs="secrets")
def check_secrets_do_not_leak(target: Target) -> None:
    """No URI, error, traceback, representation or debug log line contains a secret option."""
    with _logged() as lines:
        texts = _use(target)
    texts["log lines"] = "\n".join(lines)
    for where, text in texts.items():
        for secret in target.profile.secrets:
            expect(
                secret not in text,
                f"{where}: expected no configured secret, got one in "
                f"{text.replace(secret, '<SECRET>')[:500]!r}",
            )


def _use(target: Target) -> dict[str, str]:
    """Use the store in ways that produce text, and return the texts by origin."""
    uri, _ = target.sample(1000)
    store = target.store
    driver = store.driver
    assert driver is not None
    shown = {
        "a URI": uri,
        "a redacted URI": redact_uri(uri),
        "repr of a location": repr(driver.parse(uri)) + str(driver.parse(uri)),
        "repr of the store": repr(store) + repr(target.stores),
        "repr of the driver": repr(driver) + repr(driver.conf) + str(driver.conf),
        "repr of a stat": repr(store.stat(uri)),
    }
    secret = target.profile.secrets[0]
    scheme = target.profile.schemes[0]
    nothing = target.profile.uri_of(target.new_id()) or f"{uri}-nothing"
    calls: dict[str, Callable[[], Any]] = {
        "stat of nothing": lambda: store.stat(nothing),
        "get of nothing": lambda: store.get(nothing),
        "delete of nothing": lambda: store.delete(nothing),
        "stat of a URI with the secret": lambda: store.stat(f"{scheme}://user:{secret}@host/x"),
        "a wrong digest": lambda: store.get(uri, expected={"md5": "00"}).read(),
        "a range beyond": lambda: store.get(uri, 10**12),
    }
    if "add" in target.capabilities:
        object_id = target.new_id()
        result = target.add(Content(10), object_id)
        shown["repr of a result"] = repr(result)
        calls["a second add"] = lambda: target.add(Content(10), object_id)
        calls["an add of a wrong size"] = lambda: target.add(Content(10), size=11)
        calls["an add of a bad id"] = lambda: target.add(Content(10), "\0")
    for name, call in calls.items():
        try:
            call()
        except StoreError as error:
            copied = pickle.loads(pickle.dumps(error))
            texts = (str(error), repr(error), repr(vars(error)), str(copied))
            shown[f"the error of {name}"] = "\n".join(texts)
            shown[f"the traceback of {name}"] = "".join(
                line for line in traceback.format_exception(error) if "user:" not in line
            )
    return shown
