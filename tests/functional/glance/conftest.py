"""Glance's deployments, started once for a test session."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from tests.functional.conftest import served
from tests.functional.glance.deployments import Deployments, Site
from tests.servers.glance_api import ImageApi
from tests.servers.installed import NotInstalled
from tests.servers.vsphere import VSphere, vsphere


@pytest.fixture(scope="session")
def deployments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployments]:
    """Every deployment, each started when first asked for.

    ``STORE_LIB_TEST_GLANCE=glance_store`` runs them on glance_store, to compare.
    """
    library = os.environ.get("STORE_LIB_TEST_GLANCE") or None
    with contextlib.ExitStack() as stack:
        yield Deployments(tmp_path_factory.mktemp("glance"), stack, library)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def vcenter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    """The vSphere simulator."""
    with served(vsphere(tmp_path_factory.mktemp("vsphere"))) as running:
        yield running


@pytest.fixture
def site(deployments: Deployments, request: pytest.FixtureRequest) -> Site:
    """The deployment that the test names by an indirect parameter."""
    try:
        return deployments[request.param]
    except NotInstalled as error:
        pytest.skip(str(error))


@pytest.fixture
def api(site: Site) -> Iterator[ImageApi]:
    """A client of the deployment; nothing may lie in its stores in the end."""
    with ImageApi(site.url) as client:
        yield client
    assert site.files() == []
