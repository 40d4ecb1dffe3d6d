"""As much of Cinder and of an attachment as a writer needs, in memory, with faults on demand."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from cinderclient.exceptions import BadRequest

from store_lib.driver import once
from store_lib.drivers.cinder.locks import HostLocks
from store_lib.drivers.cinder.volume import GIB, Volume, VolumeAttachment
from store_lib.exceptions import (
    BackendException,
    NotFound,
    RemoteServiceUnavailable,
    StorageFull,
)


def refusal(text: str) -> BackendException:
    """Return the error for what Cinder does not do in the state that a volume is in."""
    error = BackendException(text)
    error.__cause__ = BadRequest(400)
    return error


def volume_of(volume_id: str = "it", **values: Any) -> Volume:
    """Return a volume, available and of 1 GiB where not told otherwise."""
    usual: dict[str, Any] = {
        "id": volume_id,
        "name": "",
        "status": "available",
        "size": GIB,
        "metadata": {},
        "volume_type": None,
        "multiattach": False,
        "encrypted": False,
        "attachments": (),
        "updated_at": None,
    }
    return Volume(**{**usual, **values})


def attachment_of(attachment_id: str, status: str = "attached", **values: Any) -> VolumeAttachment:
    """Return an attachment without anything that leads to the volume."""
    usual: dict[str, Any] = {"instance": None, "attached_at": None, "connection_info": {}}
    return VolumeAttachment(attachment_id, status, **{**usual, **values})


class SmallHost:
    """A host's name and locks, without os-brick."""

    def __init__(self, directory: pathlib.Path, name: str = "here") -> None:
        self.name = name
        self.helper = self.root_helper = ""
        self.mount_base = "/nowhere"
        self.locks = HostLocks(str(directory))


class SmallCinder:
    """Volumes in memory.

    :param quota: GiB that a volume may have
    """

    def __init__(self, quota: int = 10**6) -> None:
        self.quota = quota
        self.volumes: dict[str, Volume] = {}
        self.names: dict[str, str] = {}
        #: Attachments by the volume; one that has some is to have the status in-use.
        self.attached: dict[str, list[VolumeAttachment]] = {}
        #: The time by its clock.
        self.clock: float | None = None
        self.retry = once
        #: What was asked for, in order.
        self.asked: list[str] = []
        #: Calls whose answer is lost once, after they were obeyed.
        self.lose: set[str] = set()
        #: The state that a new volume ends in.
        self.ends_in = "available"

    def _obeyed(self, call: str) -> None:
        self.asked.append(call)
        name = call.split()[0]
        if name in self.lose:
            self.lose.discard(name)
            raise RemoteServiceUnavailable(f"no answer to {name}")

    def create(
        self,
        name: str,
        gibibytes: int,
        volume_type: str | None,
        metadata: Mapping[str, str],
        source: str | None = None,
    ) -> Volume:
        if gibibytes > self.quota:
            raise StorageFull("quota")
        volume = volume_of(
            f"volume-{len(self.volumes)}",
            name=name,
            status=self.ends_in,
            size=gibibytes * GIB,
            metadata=dict(metadata),
            volume_type=volume_type,
            updated_at=self.clock,
        )
        self.volumes[volume.id] = volume
        self.names[name] = volume.id
        self._obeyed(f"create {gibibytes}" if source is None else f"clone {source} {gibibytes}")
        return volume

    def find(self, name: str) -> Volume | None:
        self.asked.append("find")
        return self.volumes.get(self.names.get(name, ""))

    def get(self, volume_id: str) -> Volume:
        if volume_id not in self.volumes:
            raise NotFound(volume_id)
        return self.volumes[volume_id]

    def wait_until_stable(
        self, volume_id: str, unstable: Any = (), *, changing: bool = False
    ) -> Volume:
        return self.get(volume_id)

    def extend(self, volume_id: str, gibibytes: int) -> None:
        if gibibytes > self.quota:
            self.asked.append(f"refused {gibibytes}")
            raise StorageFull("quota")
        self._change(volume_id, size=gibibytes * GIB)
        self._obeyed(f"extend {gibibytes}")

    def set_readonly(self, volume_id: str) -> None:
        self._obeyed("set_readonly")

    def update(self, volume_id: str, name: str, metadata: Mapping[str, str]) -> None:
        self._change(volume_id, name=name, metadata=dict(metadata))
        self._obeyed(f"update {name}")

    def set_description(self, volume_id: str, description: str) -> None:
        self._change(volume_id, updated_at=self.clock)
        self._obeyed("set_description")

    def default_type(self) -> str | None:
        return "default"

    def now(self) -> float | None:
        return self.clock

    def attachments(self, volume_id: str) -> list[VolumeAttachment]:
        return list(self.attached.get(volume_id, []))

    def delete_attachment(self, attachment_id: str) -> None:
        for volume_id, attachments in self.attached.items():
            if attachment_id in [each.id for each in attachments]:
                attachments[:] = [each for each in attachments if each.id != attachment_id]
                self.asked.append(f"delete_attachment {attachment_id}")
                if not attachments:
                    self._change(volume_id, status="available")
                return
        raise NotFound(attachment_id)

    def delete(self, volume_id: str) -> None:
        if self.get(volume_id).status == "in-use":
            raise refusal("in-use")
        del self.volumes[volume_id]
        self.asked.append("delete")

    def _change(self, volume_id: str, **values: Any) -> None:
        self.volumes[volume_id] = dataclasses.replace(self.get(volume_id), **values)


class SmallAttachment:
    """Notes what is done to it, among what is asked of Cinder."""

    cinder: SmallCinder

    def __init__(self, *_: Any) -> None:
        self.device, self.read_size = self, 1

    def attach(self, cinder: SmallCinder, timeout: float) -> None:
        self.cinder = cinder
        cinder.asked.append("attach")

    def write_at(self, offset: int, data: Any) -> None:
        self.cinder.asked.append(f"write {offset}")

    def flush(self) -> None:
        self.cinder.asked.append("flush")

    def grow(self, volume: Volume) -> None:
        self.cinder.asked.append("grow")

    def detach(self, cinder: Any) -> None:
        self.cinder.asked.append("detach")
