"""As much of Cinder and of an attachment as a writer needs, in memory, with faults on demand."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from cinderclient.exceptions import BadRequest

from store_lib.driver import once
from store_lib.drivers.cinder.volume import GIB, Grant, Volume
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
        "attached": (),
        "updated": None,
    }
    return Volume(**{**usual, **values})


def grant_of(grant_id: str, status: str = "attached", **values: Any) -> Grant:
    """Return an attachment without anything that leads to the volume."""
    usual: dict[str, Any] = {"instance": None, "since": None, "connection": {}}
    return Grant(grant_id, status, **{**usual, **values})


class SmallCinder:
    """Volumes in memory.

    :param quota: GiB that a volume may have
    """

    def __init__(self, quota: int = 10**6) -> None:
        self.quota = quota
        self.volumes: dict[str, Volume] = {}
        self.names: dict[str, str] = {}
        #: Attachments by the volume; one that has some is to have the status in-use.
        self.attached: dict[str, list[Grant]] = {}
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
            updated=self.clock,
        )
        self.volumes[volume.id] = volume
        self.names[name] = volume.id
        self._obeyed(f"create {gibibytes}")
        return volume

    def named(self, name: str) -> Volume | None:
        self.asked.append("named")
        return self.volumes.get(self.names.get(name, ""))

    def get(self, volume_id: str) -> Volume:
        if volume_id not in self.volumes:
            raise NotFound(volume_id)
        return self.volumes[volume_id]

    def settled(self, volume_id: str, moving: Any = (), *, begun: bool = False) -> Volume:
        return self.get(volume_id)

    def extend(self, volume_id: str, gibibytes: int) -> None:
        if gibibytes > self.quota:
            self.asked.append(f"refused {gibibytes}")
            raise StorageFull("quota")
        self._change(volume_id, size=gibibytes * GIB)
        self._obeyed(f"extend {gibibytes}")

    def protect(self, volume_id: str) -> None:
        self._obeyed("protect")

    def publish(self, volume_id: str, name: str, metadata: Mapping[str, str]) -> None:
        self._change(volume_id, name=name, metadata=dict(metadata))
        self._obeyed(f"publish {name}")

    def describe(self, volume_id: str, text: str) -> None:
        self._change(volume_id, updated=self.clock)
        self._obeyed("describe")

    def now(self) -> float | None:
        return self.clock

    def grants(self, volume_id: str) -> list[Grant]:
        return list(self.attached.get(volume_id, []))

    def release(self, grant_id: str) -> None:
        for volume_id, grants in self.attached.items():
            if grant_id in [each.id for each in grants]:
                grants[:] = [each for each in grants if each.id != grant_id]
                self.asked.append(f"release {grant_id}")
                if not grants:
                    self._change(volume_id, status="available")
                return
        raise NotFound(grant_id)

    def delete(self, volume_id: str) -> None:
        if self.get(volume_id).status == "in-use":
            raise refusal("in-use")
        del self.volumes[volume_id]
        self.asked.append("delete")

    def _change(self, volume_id: str, **values: Any) -> None:
        self.volumes[volume_id] = dataclasses.replace(self.get(volume_id), **values)


class SmallAttachment:
    """Notes what is done to it, among what is asked of Cinder."""

    def __init__(self, cinder: SmallCinder, *_: Any, **__: Any) -> None:
        self.cinder = cinder
        self.device, self.piece = self, 1
        cinder.asked.append("attach")

    def write_at(self, offset: int, data: Any) -> None:
        self.cinder.asked.append(f"write {offset}")

    def flush(self) -> None:
        self.cinder.asked.append("flush")

    def grown(self, volume: Volume) -> None:
        self.cinder.asked.append("grown")

    def detach(self, cinder: Any) -> None:
        self.cinder.asked.append("detach")
