"""The machine of a run, and the space on it."""

import contextlib
import dataclasses
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.case import MIB, Case


class TooLittleRoom(Exception):
    """A directory has less space than the selected cases need."""


def facts(scratch: Path, disk: Path) -> dict[str, Any]:
    """Return the facts about the machine that belong into a report."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_MiB": (_meminfo("MemTotal") or 0) // MIB or None,
        "kernel": f"{platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 2),
        "scratch": f"{scratch} ({filesystem(scratch)})",
        "disk": f"{disk} ({filesystem(disk)})",
        "commit": _commit(),
    }


def filesystem(path: Path) -> str:
    """Return the type of the file system that holds ``path``, such as ``tmpfs``."""
    real = str(path.resolve())
    best, kind = "", "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            left, _, right = line.partition(" - ")
            point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4])
            inside = real == point or real.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):  # the last mount on a point is the one seen
                best, kind = point, right.split()[0]
    return kind


@dataclasses.dataclass(frozen=True)
class Room:
    """The free space of a directory."""

    path: Path
    kind: str
    free: int

    @classmethod
    def of(cls, path: Path) -> "Room":
        """Return the space of a directory; on tmpfs it is limited by the memory too."""
        kind = filesystem(path)
        found = os.statvfs(path)
        free = found.f_bavail * found.f_frsize
        available = _meminfo("MemAvailable")
        if kind == "tmpfs" and available is not None:
            free = min(free, available)
        return cls(path, kind, free)


def check_room(cases: Iterable[Case], rooms: dict[str, Room]) -> None:
    """Check that there is enough space for every case.

    :raises TooLittleRoom: there is not; the text names the largest case and what to do
    """
    most: dict[str, tuple[int, str]] = {}
    for case in cases:
        for place, needed in case.room().items():
            most[place] = max(most.get(place, (0, "")), (needed, case.name))
    for place, (needed, name) in most.items():
        room = rooms[place]
        if needed > room.free:
            raise TooLittleRoom(
                f"Case {name} needs {needed >> 20} MiB on {room.path} ({room.kind}), which has "
                f"{room.free >> 20} MiB. Free some, or choose another place "
                f"(--{'directory' if place == 'disk' else 'scratch'}), a smaller size (--size) "
                "or other cases (--cases)."
            )


def _cpu() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def _meminfo(field: str) -> int | None:
    with contextlib.suppress(OSError):
        found = re.search(rf"^{field}:\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    return None


def _read(path: str) -> str:
    return Path(path).read_text()


def _commit() -> str | None:
    """Return the measured commit, with a mark if files differ from it."""
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=10)
        if done.returncode == 0:
            return done.stdout.strip()
    return None
