"""Checks of callers' arguments: sizes, ranges, ids, tenants and callbacks."""

import math
from collections.abc import Collection
from typing import Any

from store_lib.display import shown
from store_lib.exceptions import Invalid, InvalidObjectId, InvalidRange

#: Maximum size of an object in bytes, and maximum offset.
LARGEST = 2**63 - 1


#: Maximum length of an object id in bytes.
LONGEST_ID = 255
#: Prefixes that some backend or file system uses itself, so object ids must not have them.
RESERVED = (".store_lib", ".segments", ".fuse_hidden", ".nfs", "store_lib-upload-")

_PORTABLE = (
    f"Expected 1 to {LONGEST_ID} bytes in UTF-8 of printable characters without '/', neither '.' "
    f"nor '..', and not beginning with {', '.join(RESERVED)}: every kind of store must be able to "
    "hold a copy under the same id."
)


def check_portable(object_id: str) -> None:
    """Raise unless every kind of store can hold an object with this id.

    :raises InvalidObjectId: some store cannot
    """
    reason = None
    if not object_id or object_id in (".", ".."):
        reason = "it is empty, '.' or '..'."
    elif "/" in object_id or not object_id.isprintable():
        reason = "it has a '/' or a character that cannot be printed."
    elif len(object_id) > LONGEST_ID or len(object_id.encode()) > LONGEST_ID:
        reason = "it is too long."
    elif object_id.startswith(RESERVED):
        reason = "names with this beginning are reserved."
    if reason is not None:
        raise invalid_id(object_id, f"{reason} {_PORTABLE}")


def invalid_id(object_id: str, reason: str) -> InvalidObjectId:
    """Return the error for an invalid id, which quotes only the beginning of a long id.

    :param reason: a sentence, as :meth:`Driver.id_problem` returns it
    """
    shown = ascii(object_id[:100])
    return InvalidObjectId(
        object_id_repr=shown if len(shown) <= 80 else f"{shown[:80]}...", reason=reason
    )


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, (int, *kinds)) and not isinstance(value, bool)


def check_id(object_id: Any) -> None:
    """Raise unless the value is a valid object id for every store.

    :raises InvalidObjectId: it is not
    """
    if not isinstance(object_id, str):
        raise InvalidObjectId(
            object_id_repr=shown(object_id),
            reason=f"a str was expected, got {type(object_id).__name__}.",
        )
    check_portable(object_id)


def check_size(size: Any) -> None:
    """Raise unless the value is a valid size or ``None``.

    :raises Invalid: it is not
    """
    if size is not None and not (_is_number(size) and 0 <= size <= LARGEST):
        raise Invalid(f"Expected size as an int from 0 to {LARGEST}, or None; got {shown(size)}.")


def check_range(offset: Any, length: Any) -> tuple[bool, int | None]:
    """Return whether a range is the whole object, and its length, limited to that of an object.

    :raises InvalidRange: the offset or the length is not an integer of 0 or more
    """
    for name, value in (("offset", offset), ("length", length)):
        if value is None and name == "length":
            continue
        if not _is_number(value) or value < 0 or (value > LARGEST and name == "offset"):
            raise InvalidRange(
                f"Expected {name} as an int of 0 or more, within the object; got {shown(value)}."
            )
    return offset == 0 and length is None, None if length is None else min(length, LARGEST - offset)


def check_seconds(older_than: Any) -> None:
    """Raise unless the value is a valid age in seconds.

    :raises Invalid: it is not a number of 0 or more
    """
    if not _is_number(older_than, float) or not 0 <= older_than < math.inf:
        raise Invalid(f"Expected older_than as 0 or more seconds, got {shown(older_than)}.")


def check_expiry(expires: Any) -> None:
    """Raise unless the value is a valid lifetime of a URL in seconds.

    :raises Invalid: it is not an integer of 1 or more
    """
    if not (_is_number(expires) and 0 < expires <= LARGEST):
        raise Invalid(f"Expected expires as an int of 1 or more seconds, got {shown(expires)}.")


def check_tenants(tenants: Any) -> None:
    """Raise unless the value is a sequence of tenants; backends write them separated by commas.

    :raises Invalid: it is not a sequence, or a tenant contains a comma or a similar character
    """
    if isinstance(tenants, (str, bytes)) or not isinstance(tenants, Collection):
        raise Invalid(f"Expected tenants as a sequence of str, got {shown(tenants)}.")
    for tenant in tenants:
        if not isinstance(tenant, str) or not tenant.isprintable() or set(tenant) & set(", "):
            raise Invalid(f"Expected a tenant without commas and spaces, got {shown(tenant)}.")


def check_helpers(verifier: Any, progress: Any) -> None:
    """Raise unless the verifier and the progress callback of an add can be called.

    :raises Invalid: one of them cannot
    """
    if verifier is not None and not callable(getattr(verifier, "update", None)):
        raise Invalid(f"Expected a verifier with the method update, got {shown(verifier)}.")
    if progress is not None and not callable(progress):
        raise Invalid(f"Expected a callable as progress, got {shown(progress)}.")
