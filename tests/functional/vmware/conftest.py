"""vCenter Servers (the simulator), and stores on them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib import Store, Stores
from tests.functional.conftest import served
from tests.servers.vsphere import DATASTORES, VSphere, vsphere

#: Makes a store on some datastores, with further options.
Make = Callable[..., Store]


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    """The simulator, for the whole session."""
    with served(vsphere(tmp_path_factory.mktemp("vsphere"))) as running:
        yield running


@pytest.fixture(scope="session")
def ticketing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VSphere]:
    """A simulator whose data server takes service tickets and no session."""
    with served(vsphere(tmp_path_factory.mktemp("ticketing"), tickets=True)) as running:
        yield running


@pytest.fixture
def vcenter(simulator: VSphere) -> Iterator[VSphere]:
    """The simulator without plans and files; nothing of an upload may be left in the end."""
    simulator.reset()
    yield simulator
    simulator.reset()
    for datastore, size in DATASTORES.items():
        simulator.free(datastore, size)
        files = simulator.files(datastore)
        for each in files:
            (simulator.directories[datastore] / each).unlink()
        assert [each for each in files if "store_lib-upload" in each] == []


@pytest.fixture
def make(vcenter: VSphere) -> Iterator[Make]:
    """Makes stores on the simulator, which are closed in the end."""
    made: list[Stores] = []

    def make(*datastores: str, **options: Any) -> Store:
        section = vcenter.options(*(datastores or ("/DC0:ds-a",)), **options)
        sections = {"DEFAULT": {"enabled_backends": "vm:vmware"}, "vm": section}
        made.append(Stores.from_mapping(sections))
        return made[-1]["vm"]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def store(make: Make) -> Store:
    """A store on one datastore."""
    return make()
