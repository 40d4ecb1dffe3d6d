"""What the frames hold that an error keeps alive: what reports of it with variables would show."""

import traceback
from collections.abc import Iterator


def frames(error: BaseException | None, seen: set[int] | None = None) -> Iterator[tuple[str, str]]:
    """Yield where and what every variable is in every frame that an error keeps alive."""
    seen = set() if seen is None else seen
    if error is None or id(error) in seen:
        return
    seen.add(id(error))
    for frame, line in traceback.walk_tb(error.__traceback__):
        if "/tests/" not in frame.f_code.co_filename:
            for name, value in frame.f_locals.items():
                yield f"{frame.f_code.co_filename}:{line} {name}", repr(value)
    for each in (error.__cause__, error.__context__):
        yield from frames(each, seen)
