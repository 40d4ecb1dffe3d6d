"""Runs every check that applies to the store: ``pytest --pyargs store_lib.testing``."""

import pytest

from store_lib.testing import Check, NotApplicable, checks_for, run_check
from store_lib.testing.plugin import mark_check, problem_of, profile_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize the test with the checks; without a store, the run ends as a usage error."""
    profile = profile_of(metafunc.config)
    checks: list[Check | None] = [None] if profile is None else [*checks_for(profile)]
    names = ["(no store)" if check is None else check.name for check in checks]
    metafunc.parametrize("check", checks, ids=names)


def test_store(check: Check | None, request: pytest.FixtureRequest) -> None:
    """The store passes the check."""
    mark_check(request.node)
    profile = profile_of(request.config)
    if check is None or profile is None:
        pytest.fail(problem_of(request.config), pytrace=False)
    try:
        run_check(check, profile)
    except NotApplicable as reason:
        pytest.skip(str(reason))
