"""What the vSphere API and its data server say, as the library's errors."""

from collections.abc import Collection
from typing import Any

from urllib3.response import BaseHTTPResponse

from store_lib.clients.network_errors import BUSY, Server, quoted
from store_lib.clients.response_headers import retry_after
from store_lib.exceptions import (
    AuthorizationFailure,
    BackendException,
    Duplicate,
    ErrorStatus,
    Forbidden,
    InUseByStore,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StorageWriteDenied,
    StoreError,
)
from store_lib.redaction import hide

#: The faults that mean something of their own; all others are a BackendException.
_FAULTS: dict[str, type[StoreError]] = {
    "AlreadyExists": Duplicate,
    "CannotAccessFile": StorageWriteDenied,
    "CannotCreateFile": StorageWriteDenied,
    "CannotDeleteFile": InUseByStore,
    "FileAlreadyExists": Duplicate,
    "FileLocked": InUseByStore,
    "FileNotFound": NotFound,
    "HostCommunication": RemoteServiceUnavailable,
    "HostNotConnected": RemoteServiceUnavailable,
    "HostNotReachable": RemoteServiceUnavailable,
    "InaccessibleDatastore": RemoteServiceUnavailable,
    "InvalidDatastore": NotFound,
    "InvalidLogin": AuthorizationFailure,
    "ManagedObjectNotFound": RemoteServiceUnavailable,
    "NoDiskSpace": StorageFull,
    "NoPermission": Forbidden,
    "NotAuthenticated": NotAuthenticated,
    "ResourceInUse": InUseByStore,
    "TaskInProgress": RemoteServiceUnavailable,
    "Timedout": RemoteServiceUnavailable,
}

_ADVICE = {
    "CannotAccessFile": "Check the datastore, and the user's permission on it.",
    "CannotCreateFile": "Check the datastore, and the user's permission on it.",
    "CannotDeleteFile": "Something on the datastore still uses it; try again later.",
    "FileLocked": "Something on the datastore still uses it; try again later.",
    "InvalidDatastore": "Check vmware_datastores, or the dsName of the URI.",
    "InvalidLogin": "Check vmware_server_username and vmware_server_password.",
    "NoDiskSpace": "Make room on the datastore, or add another one.",
    "NoPermission": "Give the user the privileges that the driver's page lists.",
    "ResourceInUse": "Something on the datastore still uses it; try again later.",
}


def fault_error(fault: str, said: str, doing: str, server: Server) -> StoreError:
    """Return the error for a fault of the API.

    :param fault: its type
    :param said: the server's own words
    :param doing: what was asked for, such as ``moving [ds] a to [ds] b``
    """
    name = fault.rpartition(":")[2]
    kind = _FAULTS.get(name, BackendException)
    said = " ".join(said.split())[:200]
    text = f"{server.base} refused {doing}: {name}{f' ({said})' if said else ''}."
    advice = _ADVICE.get(name)
    # A session may have ended between two calls, twice in a row: that is worth another attempt.
    status = ErrorStatus.TEMPORARY if kind is NotAuthenticated else None
    return kind(f"{text} {advice}" if advice else text, status=status)


def data_error(response: BaseHTTPResponse, doing: str, server: Server) -> StoreError:
    """Return the error that an answer of the data server means."""
    status = response.status
    text = f"{server.base} refused {doing}: it answered {status}"
    if status == 401:
        return not_authenticated(server)
    if status == 403:
        return Forbidden(f"{text}. {_ADVICE['NoPermission']}")
    if status in (404, 410):
        return NotFound(f"{text}. There is no such file.")
    if status in (413, 507):
        return StorageFull(f"{text}. {_ADVICE['NoDiskSpace']}")
    if 300 <= status < 400:
        return BackendException(
            f"{text}, a redirect, which is not followed: the login is good for this server alone. "
            "Name the server that serves the data in vmware_server_host."
        )
    if status in BUSY:
        return RemoteServiceUnavailable(
            f"{text}{quoted(response)}.", retry_after=retry_after(response.headers)
        )
    return BackendException(f"{text}{quoted(response)}.")


def not_authenticated(server: Server) -> NotAuthenticated:
    """Return the error for a session that ended, which another attempt may begin anew."""
    return NotAuthenticated(
        f"{server.base} does not accept the session that was just begun. Check the user's "
        "privileges, and that the server's clock and the sessions' time limit are sane.",
        status=ErrorStatus.TEMPORARY,
    )


def soap_error(error: Any, doing: str, server: Server, secrets: Collection[str] = ()) -> StoreError:
    """Return the error for an exception of oslo.vmware.

    :param error: it, which may wrap an error of ours that a transport raised within the library
    :param secrets: what was sent that no message may show
    """
    cause = getattr(error, "cause", None)
    while cause is not None:
        if isinstance(cause, StoreError):
            return cause
        cause = getattr(cause, "cause", None)
    faults = getattr(error, "fault_list", None)
    if faults:
        details = getattr(error, "details", None) or {}
        said = str(details.get("privilegeId") or getattr(error, "msg", ""))
        return fault_error(str(faults[0]), hide(said, secrets), doing, server)
    said = hide(str(error), secrets)[:300]
    return BackendException(
        f"{server.base} did not understand {doing}, or was not understood "
        f"({type(error).__name__}: {said}). Check that it is a vCenter Server or ESXi "
        "host, and the description in vmware_wsdl_location if it is set."
    )
