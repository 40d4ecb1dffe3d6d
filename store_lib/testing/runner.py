"""Runs a check with a time limit, clean-up, and a count of descriptors and threads."""

import gc

from store_lib.testing.catalogue import Check
from store_lib.testing.expect import NotApplicable
from store_lib.testing.guard import Resources, lasting_growth, time_limit
from store_lib.testing.profile import Profile
from store_lib.testing.target import Target


def run_check(check: Check, profile: Profile) -> None:
    """Run a check against the store and remove everything that the check created.

    The process must then hold no more descriptors and threads than after the store was first used
    and closed (check 20).

    :raises AssertionError: the store fails the check
    :raises NotApplicable: the check cannot be run here
    :raises SetupError: the store cannot be used at all
    """
    settings = profile.settings
    with time_limit(settings.check_timeout, check.name):
        profile.prepare()
        if not check.applies(profile):
            raise NotApplicable(
                "; ".join(profile.unavailable.values()) or "the store does not claim this"
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
                error.add_note(f"The clean-up failed too: {also}")
            profile.base = None  # the next check must not fail for what this one left open
            raise
        target.finish()
        del target
        complaints = lasting_growth(
            profile.base,
            allow_fds=settings.allow_fds,
            allow_threads=settings.allow_threads,
            patience=settings.patience / 2,
        )
        if complaints:
            profile.base = None
            raise AssertionError(f"After {check.name}, {'; '.join(complaints)}")
