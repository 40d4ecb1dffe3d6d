"""Cinder's volumes and attachments, and what a volume's name and metadata mean to this library.

Any user of a project can change metadata.  So metadata alone never prove that a volume may be
removed: its name has to agree.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Self

from store_lib.clients.decoding import (
    boolean,
    entries,
    fields,
    optional_text,
    size,
    text,
    timestamp,
)
from store_lib.exceptions import not_found

#: Seconds between two changes that an upload makes to its volume, and after which an upload on
#: another host counts as dead.
HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT = 60, 300

GIB = 1024**3
#: More GiB than any volume has.
_LARGEST = 2**31

#: The mount point that our attachments declare: a sign that they are ours.
MOUNTPOINT = "store_lib"

#: Metadata of a volume that is being filled: the id of the object to be, and the uploading host.
UPLOAD, HOST = "store_lib_upload", "store_lib_host"
#: Metadata of every volume that this library created: the upload that did.
NONCE = "store_lib_nonce"
#: Metadata of an object, with glance_store's names.
IMAGE_ID, SIZE, OWNER = "glance_image_id", "image_size", "image_owner"

NONCE_PATTERN = re.compile(r"[0-9a-f]{32}")


def temporary_name(nonce: str) -> str:
    """Return the name of a volume that is being filled."""
    return f"store_lib-upload-{nonce}"


def object_name(object_id: str) -> str:
    """Return the name of an object's volume, as glance_store names it."""
    return f"image-{object_id}"


@dataclasses.dataclass(frozen=True, slots=True)
class CompleteAttachment:
    """An attachment that is complete, as its volume lists it."""

    id: str
    #: ``None`` for users to whom Cinder does not show it.
    host: str | None
    #: The mount point that the attaching software declared.
    device: str | None

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Parse an entry of a volume's attachments.

        :raises Unexpected: it is malformed
        """
        return cls(
            text(value["attachment_id"]),
            optional_text(value.get("host_name")),
            optional_text(value.get("device")),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Volume:
    """A volume."""

    id: str
    name: str
    status: str
    #: Bytes.
    size: int
    metadata: Mapping[str, str]
    volume_type: str | None
    multiattach: bool
    encrypted: bool
    attachments: tuple[CompleteAttachment, ...]
    #: Seconds since the epoch.
    updated_at: float | None

    @classmethod
    def parse(cls, resource: Any) -> Self:
        """Convert cinderclient's volume.

        :raises Unexpected: ``resource`` is malformed
        """
        values = fields(resource.to_dict())
        metadata = fields(values.get("metadata") or {})
        return cls(
            id=text(values["id"]),
            name=optional_text(values.get("name")) or "",
            status=text(values["status"]),
            size=size(values["size"], "GiB", _LARGEST) * GIB,
            metadata={text(name): optional_text(value) or "" for name, value in metadata.items()},
            volume_type=optional_text(values.get("volume_type")),
            multiattach=_flag(values.get("multiattach")),
            encrypted=_flag(values.get("encrypted")),
            attachments=tuple(map(CompleteAttachment.parse, entries(values["attachments"]))),
            updated_at=_time(values.get("updated_at") or values.get("created_at")),
        )

    @property
    def hosts(self) -> list[str | None]:
        """The hosts that have the volume attached, one for each complete attachment."""
        return [attachment.host for attachment in self.attachments]

    @property
    def is_image(self) -> bool:
        """Whether the volume is named and marked as an image by this library or glance_store."""
        object_id = self.metadata.get(IMAGE_ID)
        # Cinder strips blanks from the end of a name, not of metadata.
        return bool(object_id) and self.name == object_name(str(object_id)).strip()

    @property
    def is_unfinished(self) -> bool:
        """Whether an upload is filling the volume, or was when its process died."""
        nonce = self.metadata.get(NONCE, "")
        return (
            UPLOAD in self.metadata
            and IMAGE_ID not in self.metadata
            and bool(NONCE_PATTERN.fullmatch(nonce))
            and self.name == temporary_name(nonce)
        )

    @property
    def object_size(self) -> int:
        """Size of the object in bytes; the volume's size if its metadata have no size."""
        value = self.metadata.get(SIZE, "")
        # Any user may write anything there, also more digits than Python converts.
        return int(value) if value.isascii() and value.isdigit() and len(value) < 20 else self.size

    def check_object(self) -> Self:
        """Return this volume if it holds an object.

        :raises NotFound: the volume is being deleted, or its upload was never completed
        """
        if self.status == "deleting" or UPLOAD in self.metadata:
            raise not_found(f"in volume {self.id}", f"the volume is {self.status}")
        return self

    def last_change(self, now: float | None, attached_at: float | None = None) -> float:
        """Return the time of the last change by Cinder's clock, never later than ``now``.

        :param attached_at: the time of an attachment, which counts as a change
        """
        changed = max(self.updated_at or 0.0, attached_at or 0.0)
        return changed if now is None else min(changed, now)


@dataclasses.dataclass(frozen=True, slots=True)
class VolumeAttachment:
    """An attachment, complete or not."""

    id: str
    #: ``reserved``, ``attaching``, ``attached``, ...
    status: str
    #: The server that it is for, if any.
    instance: str | None
    #: Seconds since the epoch; ``None`` while it is only reserved.
    attached_at: float | None
    #: How to reach the volume; holds secrets of the storage.
    connection_info: dict[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def parse(cls, resource: Any) -> Self:
        """Convert cinderclient's attachment.

        :raises Unexpected: ``resource`` is malformed
        """
        values = fields(resource.to_dict())
        return cls(
            text(values["id"]),
            text(values["status"]),
            optional_text(values.get("instance")) or None,
            _time(values.get("attached_at")),
            dict(fields(values.get("connection_info") or {})),
        )


def _flag(value: Any) -> bool:
    return False if value is None else boolean(value)  # Cinder's database may have null


def _time(value: Any) -> float | None:
    return timestamp(value) if value else None
