"""The progress callback: what it is told, when, and what an error in it does."""

import threading
from typing import TypeAlias

from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_equal, raises
from store_lib.testing.sources import SHAPES
from store_lib.testing.target import Target

#: What a callback is told: the bytes done, and those in all.
Steps: TypeAlias = list[tuple[int, int | None]]


@check(needs="add")
def check_progress_rises_to_the_exact_size(target: Target) -> None:
    """Check 28: it never falls, ends at the exact size, and is silent once add has returned."""
    told: list[tuple[str, Steps, int]] = []
    shapes = ("file-like", "odd pieces", "path")
    sizes = (0, 1, 100, 3 * target.chunk_size + 7, target.profile.long_size)
    for number, size in enumerate(sizes):
        for declared in (size, None):
            for name in target.in_turn(shapes, number, 2 * len(sizes)):
                told.append(_follow(target, Content(size, seed=1), declared, name))
    target.store.stat(target.add(Content(3)).uri)  # time for a straggler of the last one too
    for what, steps, calls in told:
        expect_equal(len(steps), calls, f"{what}: calls, some time after add has returned")


def _follow(
    target: Target, content: Content, declared: int | None, name: str
) -> tuple[str, Steps, int]:
    """Return the name of the case, what progress is told in it, and how often until the end."""
    what = f"progress of {content.size} bytes from a {name}, declared as {declared}"
    told: Steps = []
    threads = set()

    def progress(done: int, total: int | None) -> None:
        told.append((done, total))
        threads.add(threading.get_ident())

    source = SHAPES[name](content, target.directory)
    target.add(source, size=declared, progress=progress)
    calls = len(told)
    steps = [done for done, _ in told]
    expect(steps == sorted(steps), f"{what}: expected it never to fall, got {steps}")
    expect(
        steps[-1] == content.size if steps else not content.size,
        f"{what}: expected {content.size} in the last call, got {steps[-1:]}",
    )
    totals = {total for _, total in told}
    # A path tells its size by itself.
    allowed = {declared} if declared is not None or name != "path" else {None, content.size}
    expect(totals <= allowed, f"{what}: expected a total of {declared}, got {totals}")
    strangers = threads - {threading.get_ident()}
    expect(
        not strangers,
        f"{what}: expected calls in the caller's thread alone, got some in {len(strangers)} others",
    )
    return what, told, calls


@check(needs="add")
def check_an_error_in_progress_aborts_cleanly(target: Target) -> None:
    """Check 28: what the callback raises comes out as itself, and nothing shows."""
    chunk = target.chunk_size
    for size, at in ((1, 1), (3 * chunk + 7, 1), (3 * chunk + 7, 2 * chunk)):
        errors = (LookupError("enough"), KeyboardInterrupt())
        for error in (errors[at % 2],) if target.settings.short else errors:
            what = f"a progress callback that raises {type(error).__name__} at byte {at} of {size}"

            def progress(
                done: int, total: int | None, at: int = at, error: BaseException = error
            ) -> None:
                if done >= at:
                    raise error

            object_id = target.new_id()
            for declared in (size, None):
                with raises(type(error), doing=what) as caught:
                    target.add(Content(size), object_id, size=declared, progress=progress)
                expect(caught.error is error, f"{what}: expected that object, got {caught.error!r}")
                target.expect_absent(object_id, what)
            target.expect_not_added(object_id, what)
