"""What Cinder and Keystone answer when they refuse, or do not answer, as the library's errors."""

import contextlib
from collections.abc import Iterator

from cinderclient.exceptions import ClientException, OverLimit
from keystoneauth1 import exceptions as keystone_errors

from store_lib.drivers.cinder.errors import Refused, quoted
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    ErrorStatus,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StoreError,
)


@contextlib.contextmanager
def asking_cinder(doing: str) -> Iterator[None]:
    """Turn the errors of cinderclient and keystoneauth in a block into the library's.

    :param doing: what is asked for, as in ``"create a volume"``
    """
    try:
        yield
    except ClientException as error:
        raise _refused(error, doing) from error
    except keystone_errors.ClientException as error:
        raise _unreachable(error, doing) from error


def _refused(error: ClientException, doing: str) -> StoreError:
    code = error.code
    text = f"Cinder was asked to {doing} and answered {code}: {quoted(error.message)}"
    if code == 404:
        return NotFound(text)
    if code == 401:
        return NotAuthenticated(f"{text} The token has expired or was revoked.")
    if code == 403:
        return Forbidden(f"{text} The user needs a role that Cinder's policy allows this to.")
    if code == 413 and not (isinstance(error, OverLimit) and error.retry_after):
        return StorageFull(f"{text} Raise the project's quota in Cinder, or delete volumes.")
    if code in (408, 413, 429) or code >= 500:
        return RemoteServiceUnavailable(text)
    if code == 400:
        return Refused(text)
    return BackendException(text)


def _unreachable(error: keystone_errors.ClientException, doing: str) -> StoreError:
    told = type(error).__name__
    if isinstance(error, keystone_errors.SSLError):
        return RemoteServiceUnavailable(
            f"Cinder could not be asked to {doing}: no verified TLS connection. Give its "
            "authority in cinder_ca_certificates_file, or mend its certificate.",
            status=ErrorStatus.PERMANENT,
        )
    if isinstance(error, keystone_errors.ConnectionError):
        return RemoteServiceUnavailable(
            f"Cinder or Keystone could not be asked to {doing}: {told}. Check that they run "
            "where the catalog says."
        )
    if isinstance(error, keystone_errors.Unauthorized):
        return AuthorizationFailure(
            f"Keystone refuses the login that is needed to {doing} (401). Check the user, the "
            "password, the project and their domains, or the application credential."
        )
    if (getattr(error, "http_status", None) or 0) >= 500:
        return RemoteServiceUnavailable(f"Cinder could not be asked to {doing}: {told}.")
    return BackendException(f"Cinder could not be asked to {doing}: {told}.")
