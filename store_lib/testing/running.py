"""Runs one check: guarded, cleaned up after, and with descriptors and threads counted."""

import gc

from store_lib.testing.catalogue import Check
from store_lib.testing.expect import NotApplicable
from store_lib.testing.guard import Resources, growth, time_limit
from store_lib.testing.profile import Profile
from store_lib.testing.target import Target


def run_check(check: Check, profile: Profile) -> None:
    """Run ``check`` against the store.

    Afterwards everything it made is removed, and the process must hold no more descriptors and
    threads than it did once the store had first been used and closed (check 20).

    :raises AssertionError: the store does not behave; the text says how
    :raises NotApplicable: the check cannot be made here; the text says why
    :raises SetupError: the store cannot be used at all
    """
    settings = profile.settings
    with time_limit(settings.check_timeout, check.name):
        profile.prepare()
        if not check.applies(profile):
            raise NotApplicable(
                "; ".join(profile.withheld.values()) or "the store claims otherwise"
            )
        if profile.base is None:
            gc.collect()
            profile.base = Resources()
        target = Target(profile)
        try:
            check.function(target)
        except BaseException as error:
            try:
                target.finish()
            except Exception as also:
                error.add_note(f"And afterwards: {also}")
            profile.base = None  # what it left open is not held against the next one
            raise
        target.finish()
        del target
        complaints = growth(
            profile.base,
            allow_fds=settings.allow_fds,
            allow_threads=settings.allow_threads,
            patience=settings.patience / 2,
        )
        if complaints:
            profile.base = None
            raise AssertionError(f"After {check.name}, {'; '.join(complaints)}")
