"""What os-brick or a device said, as the library's errors."""

import errno

from store_lib.exceptions import (
    BackendException,
    BadStoreConfiguration,
    StorageFull,
    StorageWriteDenied,
    StoreError,
)
from store_lib.redaction import hide

#: Characters of somebody else's message that ours may quote.
_QUOTED = 300


def is_refusal(error: StoreError) -> bool:
    """Tell whether Cinder does not do this in the state that a volume is in (400)."""
    return getattr(error.__cause__, "code", None) == 400


def on_device(error: Exception, doing: str, volume_id: str) -> StoreError:
    """Return the library's error for one that came from an attached device.

    :param doing: as in ``"write to"``
    """
    code = getattr(error, "errno", None)
    text = f"Could not {doing} volume {volume_id}: {quoted(error)}"
    if code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
        return StorageFull(text)
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageWriteDenied(
            f"{text} Let the service run as root, or let os-brick's helper change the owner."
        )
    return BackendException(f"{text} Look at this host's kernel log for the device.")


def on_attach(error: Exception, doing: str, volume_id: str, helper: str) -> StoreError:
    """Return the library's error for one of os-brick's.

    :param doing: ``"attach"`` or ``"detach"``
    :param helper: the command that os-brick's helper is started with; empty for none
    """
    if isinstance(error, StoreError):
        return error
    name = type(error).__name__
    if helper and (name == "FailedToDropPrivileges" or _is_missing(error, helper)):
        return BadStoreConfiguration(
            f"To {doing} volume {volume_id} root's rights are needed, and os-brick's helper "
            f"does not start with `{helper}`. Set helper_command in [privsep_osbrick] to a "
            "command that starts privsep-helper as root, as in `sudo privsep-helper "
            "--config-file FILE`, and allow it in sudoers; or run as root."
        )
    if isinstance(error, OSError) and error.errno is not None:
        return on_device(error, doing, volume_id)
    return BackendException(
        f"os-brick could not {doing} volume {volume_id} on this host: {name}: {quoted(error)} "
        "Check that what the backend needs (iscsid, multipathd, an NFS client, a Ceph keyring) "
        "is set up here."
    )


def _is_missing(error: Exception, helper: str) -> bool:
    return isinstance(error, FileNotFoundError) and error.filename == helper.split()[0]


def quoted(error: object) -> str:
    """Return a message of somebody else's in one line, without passwords, as a sentence."""
    from oslo_utils.strutils import mask_password  # comes with the clients

    text = " ".join(hide(mask_password(str(error)), ()).split())[:_QUOTED]
    return text if text.endswith((".", "!", "?")) else f"{text}."
