"""Readers of objects on web servers that could not be opened."""

import gc
import sys
from typing import Any

import pytest

from store_lib.clients.ranges import RangedReader
from store_lib.exceptions import AuthorizationFailure


class Early(RangedReader):
    """A reader that fails before the object itself is asked for, as by a login."""

    def __init__(self) -> None:
        raise AuthorizationFailure("no login")


def test_a_reader_that_was_never_opened_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is printed when one is collected whose making failed, and closing it is no error."""
    told: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    with pytest.raises(AuthorizationFailure):
        Early()
    Early.__new__(Early).close()
    gc.collect()
    assert not told
