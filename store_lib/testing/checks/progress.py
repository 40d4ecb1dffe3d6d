"""The progress callback: its arguments, when it is called, and errors that it raises."""

import threading
from typing import TypeAlias

from store_lib.testing.catalogue import check
from store_lib.testing.content import Content
from store_lib.testing.expect import expect, expect_equal, raises
from store_lib.testing.sources import SOURCE_KINDS
from store_lib.testing.target import Target

#: The arguments of the calls of a callback: bytes done and bytes in all.
Calls: TypeAlias = list[tuple[int, int | None]]


@check(needs="add")
def check_progress_rises_to_the_exact_size(target: Target) -> None:
    """Check 28: progress never decreases, ends at the exact size, and stops before add returns."""
    cases: list[tuple[str, Calls, int]] = []
    kinds = ("file-like", "odd chunks", "path")
    sizes = (0, 1, 100, 3 * target.chunk_size + 7, target.profile.long_size)
    for number, size in enumerate(sizes):
        for declared in (size, None):
            for name in target.rotate(kinds, number, 2 * len(sizes)):
                cases.append(_follow(target, Content(size, seed=1), declared, name))
    target.store.stat(target.add(Content(3)).uri)  # time for a late call of the last one
    for what, calls, count in cases:
        expect_equal(len(calls), count, f"{what}: calls, some time after add returned")


def _follow(
    target: Target, content: Content, declared: int | None, name: str
) -> tuple[str, Calls, int]:
    """Return the name of a case, its calls, and their number when add returned."""
    what = f"progress of {content.size} bytes from a {name}, declared as {declared}"
    calls: Calls = []
    threads = set()

    def progress(done: int, total: int | None) -> None:
        calls.append((done, total))
        threads.add(threading.get_ident())

    source = SOURCE_KINDS[name](content, target.directory)
    target.add(source, size=declared, progress=progress)
    count = len(calls)
    steps = [done for done, _ in calls]
    expect(steps == sorted(steps), f"{what}: expected it never to decrease, got {steps}")
    expect(
        steps[-1] == content.size if steps else not content.size,
        f"{what}: expected {content.size} in the last call, got {steps[-1:]}",
    )
    totals = {total for _, total in calls}
    # The size of a path is known without being declared.
    allowed = {declared} if declared is not None or name != "path" else {None, content.size}
    expect(totals <= allowed, f"{what}: expected a total of {declared}, got {totals}")
    others = threads - {threading.get_ident()}
    expect(
        not others,
        f"{what}: expected calls in the caller's thread only, got calls in {len(others)} others",
    )
    return what, calls, count


@check(needs="add")
def check_an_error_in_progress_aborts_cleanly(target: Target) -> None:
    """Check 28: an error that the callback raises propagates unchanged; nothing is stored."""
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
                expect(
                    caught.error is error, f"{what}: expected the same object, got {caught.error!r}"
                )
                target.expect_absent(object_id, what)
            target.expect_not_added(object_id, what)
