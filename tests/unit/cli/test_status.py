"""The exit status of every error, and their documentation."""

import re
from pathlib import Path

import pytest

from store_lib import exceptions
from store_lib.cli.status import ExitStatus, status_of
from store_lib.exceptions import ErrorStatus, StoreError

PAGE = Path(__file__).parents[3] / "doc/command_line.rst"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (exceptions.NotFound(image="x"), 3),
        (exceptions.Duplicate(image="x"), 4),
        (exceptions.BadStoreConfiguration("bad"), 5),
        (exceptions.DriverLoadFailure(driver_name="x", reason="y"), 5),
        (exceptions.UnknownStore(store_id="x", known="y"), 5),
        (exceptions.UnknownScheme(scheme="x"), 5),
        (exceptions.Forbidden(), 6),
        (exceptions.NotAuthenticated(), 6),
        (exceptions.StorageWriteDenied(), 6),
        (exceptions.StorageFull(), 7),
        (exceptions.SizeMismatch(expected=1, got=2), 8),
        (exceptions.DigestMismatch(algorithm="md5", expected="a", got="b"), 8),
        (exceptions.InvalidObjectId(object_id_repr="x", reason="y"), 2),
        (exceptions.InvalidRange("bad"), 2),
        (exceptions.UnknownHashingAlgo(algo="x"), 2),
        (exceptions.BadStoreUri(uri="x"), 2),
        (exceptions.RemoteServiceUnavailable(), 9),
        (exceptions.TransferStalled(timeout=1, done=0), 9),
        (exceptions.DeadlineExceeded(timeout=1, done=0), 9),
        (exceptions.ObjectChanged(), 9),
        (exceptions.BackendException("busy", status=ErrorStatus.TEMPORARY), 9),
        (exceptions.BackendException("busy", status=ErrorStatus.EXHAUSTED), 9),
        (exceptions.NotSupported(store_id="x", what="y"), 10),
        (exceptions.StoreAddDisabled(), 10),
        (exceptions.StoreRandomGetNotSupported(offset=0, chunk_size=1), 10),
        (exceptions.BackendException("broken"), 1),
        (exceptions.InUseByStore(), 1),
        (OSError("broken"), 1),
        (RuntimeError("broken"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_status(error, status):
    """Every kind of error ends with its documented status."""
    assert status_of(error) == status


def test_every_error_has_a_status():
    """Every error class has a status."""
    for name in dir(exceptions):
        kind = getattr(exceptions, name)
        if isinstance(kind, type) and issubclass(kind, StoreError):
            assert 1 <= status_of(kind()) <= 10, name


def test_the_documentation_has_every_status():
    """The table of the command line page and the enumeration agree."""
    documented = {int(each) for each in re.findall(r"^(\d+) ", PAGE.read_text(), re.MULTILINE)}
    assert documented == {*ExitStatus, 143}
