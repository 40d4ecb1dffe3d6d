"""The checks, grouped by subject, and the selection of those that apply to a store."""

from store_lib.testing.catalogue import Check, registered
from store_lib.testing.checks import (  # noqa: F401 - importing them registers their checks
    capability,
    closing,
    contents,
    crash,
    deletion,
    digests,
    failure,
    load,
    names,
    progress,
    race,
    ranges,
    reading,
    secrecy,
)
from store_lib.testing.profile import Profile


def all_checks() -> list[Check]:
    """Return every check."""
    return registered()


def checks_for(profile: Profile) -> list[Check]:
    """Return the checks that apply to a store."""
    return [check for check in all_checks() if check.applies(profile)]
