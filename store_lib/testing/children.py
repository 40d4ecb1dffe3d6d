"""Child: a fresh process that acts on the store under test and reports back."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

from store_lib.testing.pace import slowness

#: Actions that coverage.py must not measure: if a thread holds its lock during a fork, the lock is
#: never released in the forked child.
_UNMEASURED = frozenset({"fork"})
#: Environment variables of an action.  This one makes the allocator return big buffers to the
#: system when they are freed, so that only memory in use is measured.
_ENVIRONMENT = {"memory": {"MALLOC_MMAP_THRESHOLD_": "131072"}}


class Child:
    """A process that runs :mod:`store_lib.testing.worker`, killed at the end of the block."""

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

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()
        self._errors.close()

    def send(self, **message: Any) -> None:
        """Write a message to the standard input of the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._failure("it ended early") from None

    def receive(self) -> Any:
        """Wait for the next message of the process and return it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            raise self._failure("it ended early")
        try:
            return json.loads(line)
        except ValueError:
            raise self._failure(f"expected a message as JSON, got {line!r}") from None

    def messages(self) -> Iterator[Any]:
        """Yield the messages of the process until it ends."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)

    def wait(self, timeout: float | None = None) -> tuple[int, str]:
        """Wait for the process to end and return its exit status and standard error."""
        try:
            self._process.wait(None if timeout is None else timeout * slowness())
        except subprocess.TimeoutExpired:
            raise self._failure(f"it did not end within {timeout:g} s") from None
        return self._process.returncode, self.stderr()

    def stderr(self) -> str:
        """Return what the process has written to standard error."""
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()

    def _failure(self, what: str) -> AssertionError:
        status = self._process.poll()
        return AssertionError(
            f"Child process {self._action!r}: {what} (exit status {status}). Its standard error: "
            f"{self.stderr()[-2000:]}"
        )


def _environment(action: str) -> dict[str, str]:
    """Return the environment, in which the child can import whatever this process can."""
    paths = [path for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    environment |= _ENVIRONMENT.get(action, {})
    if action in _UNMEASURED:
        for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
            environment.pop(name, None)
    return environment
