"""A volume and an attachment, as Cinder told of them."""

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

GIB = 1024**3


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """A volume as Cinder told of it."""

    id: str
    status: str
    #: Bytes.
    size: int
    metadata: Mapping[str, str]
    volume_type: str | None
    multiattach: bool
    encrypted: bool
    #: Hosts that it is attached to, one for each attachment that is complete.
    hosts: tuple[str | None, ...]
    #: Seconds since the epoch.
    updated: float | None

    @classmethod
    def of(cls, found: Any) -> "Volume":
        """Take over what cinderclient has."""
        changed = getattr(found, "updated_at", None) or getattr(found, "created_at", None)
        return cls(
            id=found.id,
            status=found.status,
            size=found.size * GIB,
            metadata=dict(found.metadata),
            volume_type=getattr(found, "volume_type", None),
            multiattach=bool(getattr(found, "multiattach", False)),
            encrypted=bool(getattr(found, "encrypted", False)),
            hosts=tuple(each.get("host_name") for each in found.attachments),
            updated=_seconds(changed),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """An attachment as Cinder told of it."""

    id: str
    #: How to reach the volume; holds secrets of the storage.
    connection: dict[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def of(cls, found: Any) -> "Grant":
        """Take over what cinderclient has."""
        return cls(found.id, dict(getattr(found, "connection_info", None) or {}))


def _seconds(text: str | None) -> float | None:
    if not text:
        return None
    try:
        told = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp()
