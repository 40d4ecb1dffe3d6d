"""The threads of the engine, in which the limits of whoever made them hold."""

import contextvars
import threading
from collections.abc import Callable


def new_thread(name: str, target: Callable[..., object], *arguments: object) -> threading.Thread:
    """Return a thread that makes a call in the context of the thread that makes it.

    So :func:`~store_lib.retry_at_most` and the limit of an answer's head hold for its requests.
    It keeps no process from ending.
    """
    return threading.Thread(
        target=contextvars.copy_context().run,
        args=(target, *arguments),
        name=f"store_lib-{name}",
        daemon=True,
    )
