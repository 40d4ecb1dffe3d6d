"""A volume and an attachment, as Cinder told of them."""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

GIB = 1024**3

#: What our attachments say of the place where a volume is: a sign that they are ours.
PLACE = "store_lib"

#: More GiB than any volume has.
_LARGEST = 2**31


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """A volume as Cinder told of it."""

    id: str
    name: str
    status: str
    #: Bytes.
    size: int
    metadata: Mapping[str, str]
    volume_type: str | None
    multiattach: bool
    encrypted: bool
    #: The attachments that are complete.
    attached: tuple["Attached", ...]
    #: Seconds since the epoch.
    updated: float | None

    @property
    def hosts(self) -> list[str | None]:
        """The hosts that it is attached to, one for each attachment that is complete."""
        return [each.host for each in self.attached]

    @classmethod
    def of(cls, found: Any) -> "Volume":
        """Take over what cinderclient has.

        :raises ValueError: it is not Cinder's description of a volume
        """
        if not isinstance(found.size, int) or not 0 <= found.size < _LARGEST:
            raise ValueError("the size of a volume is a number of GiB")
        changed = getattr(found, "updated_at", None) or getattr(found, "created_at", None)
        return cls(
            id=str(found.id),
            name=str(getattr(found, "name", None) or ""),
            status=str(found.status),
            size=found.size * GIB,
            metadata={str(name): str(value) for name, value in found.metadata.items()},
            volume_type=getattr(found, "volume_type", None),
            multiattach=bool(getattr(found, "multiattach", False)),
            encrypted=bool(getattr(found, "encrypted", False)),
            attached=tuple(Attached.of(each) for each in found.attachments),
            updated=_seconds(changed),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Attached:
    """A complete attachment, as a volume lists it."""

    id: str
    #: ``None`` for users whom Cinder does not tell it.
    host: str | None
    #: What the software that attached it calls the place.
    device: str | None

    @classmethod
    def of(cls, found: Any) -> "Attached":
        """Take over one of a volume's attachments."""
        return cls(str(found.get("attachment_id")), found.get("host_name"), found.get("device"))


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """An attachment as Cinder told of it."""

    id: str
    #: ``reserved``, ``attaching``, ``attached``, ...
    status: str
    #: The server that it is for, where it is for one.
    instance: str | None
    #: When it was made, in seconds since the epoch; ``None`` while it is only reserved.
    since: float | None
    #: How to reach the volume; holds secrets of the storage.
    connection: dict[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def of(cls, found: Any) -> "Grant":
        """Take over what cinderclient has."""
        return cls(
            str(found.id),
            str(found.status),
            getattr(found, "instance", None) or None,
            _seconds(getattr(found, "attached_at", None)),
            dict(getattr(found, "connection_info", None) or {}),
        )


def _seconds(text: Any) -> float | None:
    if not isinstance(text, str):
        return None
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
