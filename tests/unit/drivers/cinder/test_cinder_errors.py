"""What Cinder, Keystone, os-brick and devices say becomes the library's errors, without secrets."""

import errno

import pytest
from cinderclient import exceptions as cinder_errors
from keystoneauth1 import exceptions as keystone_errors

from store_lib.clients.keystone import keystone_error
from store_lib.drivers.cinder.client import CinderAdapter
from store_lib.drivers.cinder.errors import attach_error, device_error
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    BadStoreConfiguration,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StorageWriteDenied,
    StoreError,
)


class _Answer:
    def __init__(self, code: int, **headers: str) -> None:
        self.status_code = code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reason = "a reason"


_PERMANENT, _TEMPORARY = ErrorStatus.PERMANENT, ErrorStatus.TEMPORARY


@pytest.mark.parametrize(
    ("code", "kind", "status"),
    [
        (400, BackendException, _PERMANENT),
        (401, NotAuthenticated, _PERMANENT),
        (403, Forbidden, _PERMANENT),
        (404, NotFound, _PERMANENT),
        (409, BackendException, _PERMANENT),
        (413, StorageFull, _PERMANENT),
        (429, RemoteServiceUnavailable, _TEMPORARY),
        (500, RemoteServiceUnavailable, _TEMPORARY),
        (503, RemoteServiceUnavailable, _TEMPORARY),
    ],
)
def test_an_answer_has_its_error(code: int, kind: type[StoreError], status: ErrorStatus) -> None:
    """Each status has a class, and says truly whether another try can help."""
    told = {"overLimit": {"message": "so it is", "code": code}}
    with (
        pytest.raises(StoreError, match=f"make it and answered {code}: so it is.") as caught,
        CinderAdapter(None).call("make it"),
    ):
        raise cinder_errors.from_response(_Answer(code), told)
    assert (type(caught.value), caught.value.status) == (kind, status)


@pytest.mark.parametrize("error", [KeyError("volume"), TypeError("None"), RecursionError()])
def test_what_is_no_answer_of_cinders_is_tried_again(error: Exception) -> None:
    """A proxy's page and a truncated answer are errors of the connection to Cinder."""
    with (
        pytest.raises(RemoteServiceUnavailable, match="an answer of Cinder's") as caught,
        CinderAdapter(None).call("make it"),
    ):
        raise error
    assert caught.value.status is _TEMPORARY


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (keystone_errors.ConnectFailure("cut"), RemoteServiceUnavailable, _TEMPORARY),
        (keystone_errors.ConnectTimeout("late"), RemoteServiceUnavailable, _TEMPORARY),
        (keystone_errors.SSLError("bad"), RemoteServiceUnavailable, _PERMANENT),
        (keystone_errors.Unauthorized("no"), AuthorizationFailure, _PERMANENT),
        (keystone_errors.Forbidden("no"), Forbidden, _PERMANENT),
        (keystone_errors.HttpError("no", http_status=429), RemoteServiceUnavailable, _TEMPORARY),
        (keystone_errors.ServiceUnavailable("no"), RemoteServiceUnavailable, _TEMPORARY),
        (keystone_errors.DiscoveryFailure("no"), BackendException, _PERMANENT),
    ],
)
def test_no_answer_has_its_error(
    error: Exception, kind: type[StoreError], status: ErrorStatus
) -> None:
    """What keeps a request from being answered is told apart too."""
    with pytest.raises(StoreError, match="make it") as caught, CinderAdapter(None).call("make it"):
        raise error
    assert (type(caught.value), caught.value.status) == (kind, status)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EACCES, StorageWriteDenied),
        (errno.EROFS, StorageWriteDenied),
        (errno.EIO, BackendException),
        (errno.ENXIO, BackendException),
    ],
)
def test_a_devices_error_has_its_class(number: int, kind: type[StoreError]) -> None:
    """By its number; the volume is named."""
    error = device_error(OSError(number, "so it is"), "write to", "the-volume")
    assert type(error) is kind
    assert "write to volume the-volume" in str(error)


def test_what_os_brick_says_shows_no_password() -> None:
    """A command line with a target's password is masked."""
    said = ValueError("iscsiadm failed: {'auth_password': 'opensesame', 'target': 'it'}")
    error = attach_error(said, "attach", "the-volume", "")
    assert isinstance(error, BackendException)
    assert "opensesame" not in str(error)
    assert "ValueError" in str(error)


def test_a_helper_that_does_not_start_is_a_matter_of_configuration() -> None:
    """The error names the command and the option; another missing file is something else."""
    helper = "sudo privsep-helper"
    missing = FileNotFoundError(errno.ENOENT, "No such file", "sudo")
    error = attach_error(missing, "attach", "the-volume", helper)
    assert isinstance(error, BadStoreConfiguration)
    assert "`sudo privsep-helper`" in str(error)
    assert "helper_command" in str(error)
    missing = FileNotFoundError(errno.ENOENT, "No such file", "/dev/it")
    assert type(attach_error(missing, "attach", "the-volume", helper)) is BackendException


def test_a_refused_login_is_keystones_own_error() -> None:
    """It says the same as for every other store, behind what Cinder was asked to do."""
    refused = keystone_errors.Unauthorized("no")
    with pytest.raises(AuthorizationFailure) as caught, CinderAdapter(None).call("make it"):
        raise refused
    ours = keystone_error(refused, "Keystone", "the store's user")
    assert str(caught.value) == f"Cinder could not be asked to make it: {ours}"
