"""The vmware driver passes the conformance suite on the simulator."""

import pathlib
import re

import pytest

from store_lib.testing import Profile, Settings, checks_for
from tests.functional.conformance import passed, run_kit, write_config, write_inventory
from tests.servers.vsphere import VSphere

#: MiB of the transfers whose memory is measured: 24 of them fit on a datastore.
_BIG = 72


def configure(directory: pathlib.Path, vcenter: VSphere, *datastores: str) -> str:
    lines = []
    for name, value in vcenter.options(*datastores).items():
        values = value if isinstance(value, list) else [value]
        lines += [f"{name} = {each}" for each in values]
    return write_config(directory, "vmware", *lines)


def _look_into(directory: pathlib.Path, vcenter: VSphere) -> str:
    root = vcenter.directories["/DC0:ds-a"]
    return write_inventory(directory, f"glob.glob('{root}/**', recursive=True)")


@pytest.mark.deep("kits", always=True)
def test_the_vmware_driver_conforms(vcenter: VSphere, tmp_path: pathlib.Path) -> None:
    """The driver passes every check on one datastore, and leaves nothing there."""
    config = configure(tmp_path, vcenter, "/DC0:ds-a")
    result = run_kit(
        tmp_path,
        *("--store-config", config, "--store", "it", "--store-no-skip"),
        *("--store-big-size", str(_BIG)),
        *("--store-inventory", _look_into(tmp_path, vcenter)),
    )
    assert passed(result) == len(checks_for(Profile(Settings((config,), "it"))))
    assert vcenter.files() == []


@pytest.mark.parametrize("tickets", [False, True], ids=["several datastores", "service tickets"])
@pytest.mark.parametrize("profile", ["short", pytest.param("long", marks=pytest.mark.deep("kits"))])
def test_it_conforms_in_its_other_modes(
    profile: str, tickets: bool, request: pytest.FixtureRequest, tmp_path: pathlib.Path
) -> None:
    """On several datastores, and with tickets, the checks pass that have to do with either."""
    running = request.getfixturevalue("ticketing" if tickets else "vcenter")
    datastores = ("/DC0:ds-a",) if tickets else ("/DC0:ds-a", "/DC0:ds-b", "/folder/DC1:ds-c")
    config = configure(tmp_path, running, *datastores)
    result = run_kit(
        tmp_path,
        *("--store-config", config, "--store", "it", "--store-no-skip"),
        *("-k", "second or list or incomplete or sweeps or racing or ranges or reader or secrets"),
        profile=profile,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = re.search(r"^(\d+) passed, \d+ deselected in", result.stdout, re.MULTILINE)
    assert found, result.stdout
    assert int(found[1]) >= 15
    assert [running.files(each) for each in datastores] == [[] for _ in datastores]
