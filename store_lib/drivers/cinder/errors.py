"""Turns the errors of Cinder, Keystone, os-brick and devices into the library's.

Client libraries are imported late, so that the driver can be listed without them.
"""

import errno
from typing import TYPE_CHECKING

from store_lib.clients.keystone import keystone_error
from store_lib.clients.network_errors import BUSY
from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    Forbidden,
    NotAuthenticated,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
    StorageWriteDenied,
    StoreError,
)
from store_lib.redaction import hide

if TYPE_CHECKING:
    from cinderclient.exceptions import ClientException
    from keystoneauth1.exceptions import ClientException as KeystoneException

#: Characters of another program's message that ours may quote.
_QUOTED = 300


def error_for_response(
    error: "ClientException", action: str, retry_after: float | None
) -> StoreError:
    """Return the error for an error response of Cinder.

    :param action: what Cinder was asked to do, as in ``"create a volume"``
    """
    code = error.code
    text = f"Cinder was asked to {action} and answered {code}: {quoted(error.message)}"
    if code == 404:
        return NotFound(text)
    if code == 401:
        return NotAuthenticated(f"{text} The token has expired or was revoked.")
    if code == 403:
        return Forbidden(f"{text} The user needs a role that Cinder's policy allows this to.")
    if code == 413 and not retry_after:
        return StorageFull(f"{text} Raise the project's quota in Cinder, or delete volumes.")
    if code == 413 or code in BUSY:
        return RemoteServiceUnavailable(text, retry_after=retry_after)
    return BackendException(text)


def is_invalid_state(error: StoreError) -> bool:
    """Return whether Cinder refused a request because of the volume's state (400)."""
    return getattr(error.__cause__, "code", None) == 400


def transport_error(error: "KeystoneException", action: str) -> StoreError:
    """Return the error for a request that Cinder did not answer, or that Keystone refused."""
    return keystone_error(
        error,
        "Keystone",
        "the store's user",
        server="Cinder or Keystone",
        prefix=f"Cinder could not be asked to {action}: ",
        authorities="cinder_ca_certificates_file",
    )


def device_error(error: Exception, action: str, volume_id: str) -> StoreError:
    """Return the library's error for one that an attached device raised.

    :param action: what was to be done with the device, such as ``"write to"``
    """
    code = getattr(error, "errno", None)
    text = f"Could not {action} volume {volume_id}: {quoted(error)}"
    if code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return StorageFull(text)
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageWriteDenied(
            f"{text} Let the service run as root, or let os-brick's helper change the owner."
        )
    return BackendException(f"{text} Look at this host's kernel log for the device.")


def attach_error(error: Exception, action: str, volume_id: str, helper: str) -> StoreError:
    """Return the library's error for one that os-brick raised.

    :param action: ``"attach"``, ``"extend"`` or ``"detach"``
    :param helper: the command that starts os-brick's helper; empty for none
    """
    if isinstance(error, StoreError):
        return error
    name = type(error).__name__
    if helper and (name == "FailedToDropPrivileges" or _is_missing(error, helper)):
        return BadStoreConfiguration(
            f"To {action} volume {volume_id} root's rights are needed, and os-brick's helper "
            f"does not start with `{helper}`. Set helper_command in [privsep_osbrick] to a "
            "command that starts privsep-helper as root, as in `sudo privsep-helper "
            "--config-file FILE`, and allow it in sudoers; or run as root."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return device_error(error, action, volume_id)
    return BackendException(
        f"os-brick could not {action} volume {volume_id} on this host: {name}: {quoted(error)} "
        "Check that what the backend needs (iscsid, multipathd, an NFS client, a Ceph keyring) "
        "is set up here."
    )


def _is_missing(error: Exception, helper: str) -> bool:
    return isinstance(error, FileNotFoundError) and error.filename == helper.split()[0]


def quoted(error: object) -> str:
    """Return another program's message as one sentence in one line, without passwords."""
    from oslo_utils.strutils import mask_password

    text = " ".join(hide(mask_password(str(error)), ()).split())[:_QUOTED]
    return text if text.endswith((".", "!", "?")) else f"{text}."
