"""Stores on Cinder, and what each test must leave behind: nothing."""

import contextlib
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from store_lib import Stores
from tests.servers.cinder import NFS_PATH, Cinder
from tests.servers.keystone import Keystone, Login, password
from tests.servers.process import eventually


class Context:
    """A request context, as services hand it on."""

    def __init__(self, login: Login, *, form: str = "v3") -> None:
        self.auth_token = login.token
        self.user_id = login.user_id
        self.project_id = login.project_id
        self.service_catalog = login.catalog if form == "v3" else _old_form(login.catalog)

    def to_dict(self) -> dict[str, Any]:
        """Return what templates may name."""
        return {"user_id": self.user_id, "tenant": self.project_id}


def _old_form(catalog: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a catalog as Keystone v2 told it: an endpoint has all of its interfaces."""
    return [
        {
            "type": each["type"],
            "name": each["name"],
            "endpoints": [
                {
                    "region": "RegionOne",
                    **{f"{one['interface']}URL": one["url"] for one in each["endpoints"]},
                }
            ],
        }
        for each in catalog
    ]


class Deployment:
    """A host that attaches volumes: its configuration, and what is left there."""

    def __init__(self, cinder: Cinder, keystone: Keystone, directory: pathlib.Path) -> None:
        self.cinder = cinder
        self.keystone = keystone
        self.directory = directory
        self.locks = directory / "locks"
        self.mounts = directory / "mounts"
        self.locks.mkdir()
        self.mounts.mkdir()

    def login(self, user: str = "glance") -> list[str]:
        """Return the lines of a configuration that log in as a user."""
        return [
            f"cinder_store_auth_address = {self.keystone.url}",
            f"cinder_store_user_name = {user}",
            f"cinder_store_password = {password(user)}",
            "cinder_store_project_name = service",
        ]

    def lines(self, volume_type: str | None, *more: str, login: bool = True) -> list[str]:
        """Return the lines of a store's section."""
        lines = [f"cinder_mount_point_base = {self.mounts}", *more]
        if volume_type is not None:
            lines.append(f"cinder_volume_type = {volume_type}")
        return lines + (self.login() if login else [])

    def config(self, **sections: list[str]) -> str:
        """Write a configuration of stores by their ids, and return its path."""
        path = self.directory / "stores.conf"
        enabled = ", ".join(f"{name}:cinder" for name in sections)
        text = [
            "[DEFAULT]",
            f"enabled_backends = {enabled}",
            "[glance_store]",
            f"default_backend = {next(iter(sections))}",
            "[oslo_concurrency]",
            f"lock_path = {self.locks}",
        ]
        for name, lines in sections.items():
            text += [f"[{name}]", *lines]
        path.write_text("\n".join([*text, ""]))
        return str(path)

    def left(self) -> dict[str, object]:
        """Return what is left on this host and in Cinder."""
        found: dict[str, object] = {
            "volumes": [(each["id"], each["status"]) for each in self.cinder.volumes()],
            "attachments": [each["id"] for each in self.cinder.attachments()],
            "loop devices": self.cinder.loops(),
            "mounts": self.cinder.mounts(self.mounts),
            "locks": [
                path.name for path in self.locks.iterdir() if path.name.startswith("store_lib")
            ],
        }
        return {name: each for name, each in found.items() if each}

    def expect_nothing_left(self) -> None:
        """Fail unless everything is gone, which Cinder may take a moment for."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.left(), "nothing left", limit=15)
        left = self.left()
        if left:  # so that the next test begins anew
            self.cinder.remove_volumes()
            for mount in self.cinder.mounts(self.mounts):
                subprocess.run(["umount", "--lazy", mount], check=True)
        assert left == {}


@pytest.fixture
def deployment(
    cinder: Cinder,
    keystone: Keystone,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Deployment]:
    """A host on which nothing may be left when the test ends."""
    monkeypatch.setenv("PATH", f"{NFS_PATH}:{os.environ['PATH']}")
    made = Deployment(cinder, keystone, tmp_path)
    yield made
    made.expect_nothing_left()


@pytest.fixture
def opened(deployment: Deployment) -> Iterator[Callable[..., Stores]]:
    """Opens stores, given their sections by id; closed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda **sections: stack.enter_context(
            Stores.from_files(deployment.config(**sections))
        )
