"""Names on a datastore: which object ids can be one, and what uploads under way are called."""

import re

#: What the names of uploads under way begin with; no object's does.
UPLOAD_PREFIX = "store_lib-upload-"

# On VMFS, NFS and vSAN alike, and for every tool that shows a datastore, these need no escaping.
_OBJECT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@~,-]{0,199}")
_UPLOAD = re.compile(rf"{UPLOAD_PREFIX}[0-9a-f]{{32}}-(?P<id>.+)")

_ALLOWED = (
    "Expected 1 to 200 ASCII letters, digits and ._=+@~,- that begin with a letter, a digit or "
    f"an underscore, but not with {UPLOAD_PREFIX}: it becomes the name of a file."
)


def refusal(object_id: str) -> str | None:
    """Return why ``object_id`` cannot be the name of an object's file, or ``None`` when it can."""
    if object_id.startswith(UPLOAD_PREFIX):
        return f"names with this beginning belong to uploads under way. {_ALLOWED}"
    if not _OBJECT.fullmatch(object_id) or object_id.endswith("."):
        return _ALLOWED
    return None


def upload_name(object_id: str, nonce: str) -> str:
    """Return the name of the file in which an upload collects its bytes."""
    return f"{UPLOAD_PREFIX}{nonce}-{object_id}"


def uploaded_object_id(name: str) -> str | None:
    """Return the id of the object that an upload's file was to become; ``None`` for others."""
    found = _UPLOAD.fullmatch(name)
    return found["id"] if found else None


def datastore_path(datastore: str, *segments: str) -> str:
    """Return a path in the form that the API takes: ``[datastore] directory/file``."""
    return f"[{datastore}] {'/'.join(segments)}"
