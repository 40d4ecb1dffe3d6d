"""The threads of the engine, which inherit the context of the thread that starts them."""

import contextvars
import threading
from collections.abc import Callable


def new_thread(name: str, target: Callable[..., object], *arguments: object) -> threading.Thread:
    """Return a thread that makes a call in this thread's context.

    So :func:`~store_lib.retry_at_most` and the limit on a response's head hold for its requests.
    The thread keeps no process from ending.
    """
    return threading.Thread(
        target=contextvars.copy_context().run,
        args=(target, *arguments),
        name=f"store_lib-{name}",
        daemon=True,
    )
