"""A volume and an attachment, as Cinder told of them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from store_lib.clients.decoding import (
    boolean,
    entries,
    fields,
    optional_text,
    size,
    text,
    timestamp,
)

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

        :raises Unexpected: it is not Cinder's description of a volume
        """
        told = fields(found.to_dict())
        metadata = fields(told.get("metadata") or {})
        return cls(
            id=text(told["id"]),
            name=optional_text(told.get("name")) or "",
            status=text(told["status"]),
            size=size(told["size"], "GiB", _LARGEST) * GIB,
            metadata={text(name): optional_text(value) or "" for name, value in metadata.items()},
            volume_type=optional_text(told.get("volume_type")),
            multiattach=_flag(told.get("multiattach")),
            encrypted=_flag(told.get("encrypted")),
            attached=tuple(Attached.of(each) for each in entries(told["attachments"])),
            updated=_seconds(told.get("updated_at") or told.get("created_at")),
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
    def of(cls, told: Mapping[str, Any]) -> "Attached":
        """Take over one of a volume's attachments.

        :raises Unexpected: it is not Cinder's description of one
        """
        return cls(
            text(told["attachment_id"]),
            optional_text(told.get("host_name")),
            optional_text(told.get("device")),
        )


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
        """Take over what cinderclient has.

        :raises Unexpected: it is not Cinder's description of an attachment
        """
        told = fields(found.to_dict())
        return cls(
            text(told["id"]),
            text(told["status"]),
            optional_text(told.get("instance")) or None,
            _seconds(told.get("attached_at")),
            dict(fields(told.get("connection_info") or {})),
        )


def _flag(told: Any) -> bool:
    return False if told is None else boolean(told)  # Cinder's database may have null


def _seconds(told: Any) -> float | None:
    return timestamp(told) if told else None
