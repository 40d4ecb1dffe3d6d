"""What callers may hand in: numbers, ranges, ids and tenants are checked before all else."""

import math
from collections.abc import Collection
from typing import Any

from store_lib.display import shown
from store_lib.exceptions import Invalid, InvalidObjectId, InvalidRange

#: The largest object, in bytes, and so the largest offset.
LARGEST = 2**63 - 1


#: Bytes of the longest object id.
LONGEST_ID = 255
#: No object id begins with these: some backend or file system uses such names itself.
RESERVED = (".store_lib", ".segments", ".fuse_hidden", ".nfs", "store_lib-upload-")

_PORTABLE = (
    f"Expected 1 to {LONGEST_ID} bytes in UTF-8 of printable characters without '/', neither '.' "
    f"nor '..', and not beginning with {', '.join(RESERVED)}: every kind of store must be able to "
    "hold a copy under the same id."
)


def check_portable(object_id: str) -> None:
    """Refuse an id that not every kind of store can hold, whichever store it is for.

    :raises InvalidObjectId: with the reason
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
    """Return the error for an id that cannot be used; it quotes the beginning of a long one.

    :param reason: a sentence, as :meth:`Driver.id_problem` returns it
    """
    shown = ascii(object_id[:100])
    return InvalidObjectId(
        object_id_repr=shown if len(shown) <= 80 else f"{shown[:80]}...", reason=reason
    )


def _is_number(value: Any, *kinds: type) -> bool:
    return isinstance(value, (int, *kinds)) and not isinstance(value, bool)


def check_id(object_id: Any) -> None:
    """Refuse what no store takes as an object id.

    :raises InvalidObjectId: with the reason
    """
    if not isinstance(object_id, str):
        raise InvalidObjectId(
            object_id_repr=shown(object_id),
            reason=f"a str was expected, got {type(object_id).__name__}.",
        )
    check_portable(object_id)


def check_size(size: Any) -> None:
    """Refuse what is no size.

    :raises Invalid: it is not ``None`` or an int that a size can be
    """
    if size is not None and not (_is_number(size) and 0 <= size <= LARGEST):
        raise Invalid(f"Expected size as an int from 0 to {LARGEST}, or None; got {shown(size)}.")


def check_range(offset: Any, length: Any) -> tuple[bool, int | None]:
    """Say whether a range is the whole object, and return its length, no longer than objects are.

    :raises InvalidRange: it is not made of whole numbers of 0 or more
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
    """Refuse what is no age.

    :raises Invalid: it is not a number of 0 or more
    """
    if not _is_number(older_than, float) or not 0 <= older_than < math.inf:
        raise Invalid(f"Expected older_than as 0 or more seconds, got {shown(older_than)}.")


def check_expiry(expires: Any) -> None:
    """Refuse what is no time that a URL can be good for.

    :raises Invalid: it is not an int of 1 or more
    """
    if not (_is_number(expires) and 0 < expires <= LARGEST):
        raise Invalid(f"Expected expires as an int of 1 or more seconds, got {shown(expires)}.")


def check_tenants(tenants: Any) -> None:
    """Refuse what are no tenants: backends write lists of them as text, with commas.

    :raises Invalid: it is no sequence, or one has a comma, or another character that would let it
        be more than one
    """
    if isinstance(tenants, (str, bytes)) or not isinstance(tenants, Collection):
        raise Invalid(f"Expected tenants as a sequence of str, got {shown(tenants)}.")
    for tenant in tenants:
        if not isinstance(tenant, str) or not tenant.isprintable() or set(tenant) & set(", "):
            raise Invalid(f"Expected a tenant without commas and blanks, got {shown(tenant)}.")


def check_helpers(verifier: Any, progress: Any) -> None:
    """Refuse what cannot be called while an object is added.

    :raises Invalid: one cannot
    """
    if verifier is not None and not callable(getattr(verifier, "update", None)):
        raise Invalid(f"Expected a verifier with the method update, got {shown(verifier)}.")
    if progress is not None and not callable(progress):
        raise Invalid(f"Expected progress as something to call, got {shown(progress)}.")
