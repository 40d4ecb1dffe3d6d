"""ServerProcess: a server as a child process, with its output in a file."""

import contextlib
import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from store_lib.testing.pace import Deadline

#: Seconds for a server to end before it is killed.
GRACE = 10.0
#: Seconds for what a test waits for, on a quiet machine of usual speed, if it has no other limit.
LIMIT = 60.0

Answer = TypeVar("Answer")


class NotInTime(AssertionError):
    """Something that a test waits for has not come."""


class ServerFailed(Exception):
    """A server did not start, or ended unexpectedly; the text has the end of its output."""


@dataclasses.dataclass
class ServerProcess:
    """A running server."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> "ServerProcess":
        """Start ``command``; its output is appended to the file ``log``.

        The kernel kills it with the thread that started it, so that a killed test run leaves no
        server behind.  Call this from the main thread.

        :param environment: environment variables in addition to those of this process
        """
        words = mortal(command)
        with open(log, "ab") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=directory,
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal (SIGSTOP, SIGCONT, ...) to the server alone."""
        self.process.send_signal(number)

    def wait_until(
        self, ready: Callable[[], object], what: str = "answer", limit: float = LIMIT
    ) -> None:
        """Wait until ``ready()`` is true.

        :raises ServerFailed: the server ended, or ``limit`` seconds went by
        """

        def is_ready() -> object:
            if answer := ready():
                return answer
            if self.process.poll() is not None:
                raise ServerFailed(
                    f"{self.name} ended with status {self.process.returncode}:\n{self.tail()}"
                )
            return None

        try:
            eventually(is_ready, what, limit)
        except NotInTime as error:
            raise ServerFailed(
                f"{self.name} did not {what} within {limit:g} s:\n{self.tail()}"
            ) from error

    def wait_for_port(self, port: int, host: str = "127.0.0.1", limit: float = LIMIT) -> None:
        """Wait until the server accepts connections."""
        self.wait_until(lambda: accepts(host, port), f"listen on port {port}", limit)

    def tail(self, lines: int = 20) -> str:
        """Return the end of the server's output."""
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def stop(self, *, kill: bool = False) -> None:
        """End the server and its children; may be called more than once.

        :param kill: at once, for a server whose data goes away with it
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                self.process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        # The session has the server's own pid as its id, and nothing but its children is in it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def mortal(command: Sequence[str | Path]) -> list[str]:
    """Wrap a command so that the kernel kills it when the thread that starts it ends."""
    words = [os.fspath(word) for word in command]
    setpriv = shutil.which("setpriv")
    return words if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--", *words]


def accepts(host: str, port: int) -> bool:
    """Return whether a server accepts TCP connections at the address."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def free_ports(number: int, host: str = "127.0.0.1") -> list[int]:
    """Return different ports on which nothing listens.

    They are from the system's ephemeral range, and bound for a moment, so that concurrent runs
    hardly ever get the same port.
    """
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(number):
            each = stack.enter_context(socket.socket())
            each.bind((host, 0))
            ports.append(each.getsockname()[1])
        return ports


def eventually(ready: Callable[[], Answer | None], what: str, limit: float = LIMIT) -> Answer:
    """Call the function until its result is true, and return that.

    :param what: what is waited for
    :param limit: seconds on a quiet machine of usual speed
    :raises NotInTime: it was not true within the limit
    """
    deadline = Deadline(limit)
    pause = 0.005
    while not (answer := ready()):
        if deadline.passed:
            raise NotInTime(f"not within {limit:g} s: {what}")
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
    return answer
