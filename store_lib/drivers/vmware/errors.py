"""Turns faults of the vSphere API and statuses of its data server into the library's errors."""

from collections.abc import Collection
from typing import Any

from urllib3.response import BaseHTTPResponse

from store_lib.clients.http import error_for_response
from store_lib.clients.network_errors import Server
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

#: The error class for a fault; the class for all other faults is BackendException.
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


#: What to do about statuses of the data server.
_STATUS_ADVICE = {
    403: _ADVICE["NoPermission"],
    413: _ADVICE["NoDiskSpace"],
    507: _ADVICE["NoDiskSpace"],
    **dict.fromkeys(
        (301, 302, 303, 307, 308),
        "The login is for this server alone: name the server that serves the data in "
        "vmware_server_host.",
    ),
}


def fault_error(fault: str, quote: str, doing: str, server: Server) -> StoreError:
    """Return the error for a fault of the API.

    :param fault: the fault's type
    :param quote: the server's message
    :param doing: what was requested, such as ``moving [ds] a to [ds] b``
    """
    name = fault.rpartition(":")[2]
    kind = _FAULTS.get(name, BackendException)
    quote = " ".join(quote.split())[:200]
    text = f"{server.base} refused {doing}: {name}{f' ({quote})' if quote else ''}."
    advice = _ADVICE.get(name)
    # A session may end between two calls, even twice in a row: another attempt may succeed.
    status = ErrorStatus.TEMPORARY if kind is NotAuthenticated else None
    return kind(f"{text} {advice}" if advice else text, status=status)


def data_error(response: BaseHTTPResponse, doing: str, path: str, server: Server) -> StoreError:
    """Return the error for a response of the data server.

    :param doing: what was requested, such as ``Reading``
    :param path: the file's path
    """
    if response.status == 401:
        return not_authenticated(server)
    return error_for_response(response, doing, f"{path} at {server.base}", advice=_STATUS_ADVICE)


def not_authenticated(server: Server) -> NotAuthenticated:
    """Return the error for a session that has ended; another attempt may begin a new session."""
    return NotAuthenticated(
        f"{server.base} does not accept the session that was just begun. Check the user's "
        "privileges, the server's clock and the time limit of its sessions.",
        status=ErrorStatus.TEMPORARY,
    )


def soap_error(error: Any, doing: str, server: Server, secrets: Collection[str] = ()) -> StoreError:
    """Return the error for an exception of oslo.vmware.

    :param error: the exception, which may wrap an error that our transport raised
    :param secrets: secrets of the request, which no message may show
    """
    cause = getattr(error, "cause", None)
    while cause is not None:
        if isinstance(cause, StoreError):
            return cause
        cause = getattr(cause, "cause", None)
    faults = getattr(error, "fault_list", None)
    if faults:
        details = getattr(error, "details", None) or {}
        quote = str(details.get("privilegeId") or getattr(error, "msg", ""))
        return fault_error(str(faults[0]), hide(quote, secrets), doing, server)
    quote = hide(str(error), secrets)[:300]
    return BackendException(
        f"{server.base} did not understand {doing}, or was not understood "
        f"({type(error).__name__}: {quote}). Check that it is a vCenter Server or ESXi "
        "host, and the description in vmware_wsdl_location if it is set."
    )
