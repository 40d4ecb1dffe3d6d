"""Starts fresh processes that act on the store under test, and reads what they say."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

from store_lib.testing.pace import slowness

#: Actions in which coverage.py must not measure: its lock, held by a thread at the moment of a
#: fork, would stay held in the forked child for ever.
_UNMEASURED = frozenset({"fork"})
#: What an action adds to the environment.  Big buffers go back to the system when they are freed,
#: so that what is measured is what is held, and not what the allocator keeps for later.
_MORE = {"memory": {"MALLOC_MMAP_THRESHOLD_": "131072"}}


class Child:
    """A process that runs :mod:`store_lib.testing.worker`; killed when the block is left."""

    def __init__(
        self,
        configs: Sequence[str],
        store_id: str,
        action: str,
        *,
        from_context: str | None = None,
        **spec: Any,
    ) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._action = action
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "store_lib.testing.worker",
                os.pathsep.join(configs),
                store_id,
                from_context or "",
                action,
                json.dumps(spec),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=_environment(action),
        )

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()
        self._errors.close()

    def tell(self, **message: Any) -> None:
        """Send a message to its standard input."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._broken("it ended early") from None

    def hear(self) -> Any:
        """Wait for its next message and return it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise self._broken("it ended early")
        try:
            return json.loads(line)
        except ValueError:
            raise self._broken(f"it said {line!r}") from None

    def messages(self) -> Iterator[Any]:
        """Yield its messages up to its end."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def end(self, timeout: float | None = None) -> tuple[int, str]:
        """Wait for its end and return the exit status and what it wrote to standard error."""
        try:
            self._process.wait(None if timeout is None else timeout * slowness())
        except subprocess.TimeoutExpired:
            raise self._broken(f"it did not end within {timeout:g} s") from None
        return self._process.returncode, self.complaints()

    def complaints(self) -> str:
        """Return what it wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()

    def _broken(self, what: str) -> AssertionError:
        status = self._process.poll()
        return AssertionError(
            f"Child process {self._action!r}: {what} (exit status {status}); it wrote: "
            f"{self.complaints()[-2000:]}"
        )


def _environment(action: str) -> dict[str, str]:
    """Return the environment, such that the child finds what this process could import."""
    known = [path for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(known))}
    environment |= _MORE.get(action, {})
    if action in _UNMEASURED:
        for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            environment.pop(name, None)
    return environment
