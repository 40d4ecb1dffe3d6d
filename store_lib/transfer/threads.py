"""The engine's threads, which inherit the context variables of the thread that creates them."""

import contextvars
import threading
from collections.abc import Callable


def new_thread(name: str, target: Callable[..., object], *arguments: object) -> threading.Thread:
    """Return a thread that calls ``target`` in a copy of this thread's context.

    So :func:`~store_lib.retry_at_most` and the time limit for a response's head apply to its
    requests.  It is a daemon thread, and does not keep the process from exiting.
    """
    return threading.Thread(
        target=contextvars.copy_context().run,
        args=(target, *arguments),
        name=f"store_lib-{name}",
        daemon=True,
    )
