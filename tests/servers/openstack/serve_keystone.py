"""Runs Keystone in a single process; makes and fills the database if there is none.

The command line is ``serve_keystone.py CONFIG CONTENTS.json``, with the Python of the servers'
environment.  It replaces four runs of keystone-manage and a web server.
"""

import json
import os
import socketserver
import sys
import uuid
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import keystone.conf
import keystone.server
from keystone.common import fernet_utils
from keystone.server import backends
from keystone.server.flask import core

CONF = keystone.conf.CONF


def make_keys():
    """Make the keys for tokens and for stored credentials if there are none."""
    for group, most in (("fernet_tokens", CONF.fernet_tokens.max_active_keys), ("credential", 3)):
        repository = getattr(CONF, group).key_repository
        os.makedirs(repository, mode=0o700, exist_ok=True)
        if not os.listdir(repository):
            fernet_utils.FernetUtils(repository, most, group).initialize_key_repository(0, 0)


def bootstrap(contents):
    """Make Keystone's own entries, as ``keystone-manage bootstrap`` does."""
    # It would load the backends a second time; the application has loaded them already.
    backends.load_backends = lambda: None
    from keystone.cmd.bootstrap import Bootstrapper

    first = Bootstrapper()
    first.admin_username = first.admin_role_name = first.project_name = "admin"
    first.admin_password = contents["admin_password"]
    first.service_name, first.service_id = "keystone", None
    first.region_id = contents["region"]
    url = f"http://127.0.0.1:{contents['port']}/v3"
    first.admin_url = first.public_url = first.internal_url = url
    first.bootstrap()


def fill(contents):
    """Make the projects, the roles and the users."""
    from keystone.common.provider_api import ProviderAPIs as api

    roles = {role["name"]: role["id"] for role in api.role_api.list_roles()}
    projects = {}
    for name, user in contents["users"].items():
        if user["project"] not in projects:
            projects[user["project"]] = make_project(api, user["project"])
        made = api.identity_api.create_user(
            {
                "name": name,
                "password": user["password"],
                "domain_id": "default",
                "enabled": True,
            }
        )
        for role in user["roles"]:
            if role not in roles:
                roles[role] = uuid.uuid4().hex
                entry = {"id": roles[role], "name": role, "domain_id": None, "options": {}}
                api.role_api.create_role(roles[role], entry)
            api.assignment_api.add_role_to_user_and_project(
                made["id"], projects[user["project"]], roles[role]
            )


def make_project(api, name):
    """Make a project of the default domain and return its id."""
    project = {
        "id": uuid.uuid4().hex,
        "name": name,
        "domain_id": "default",
        "parent_id": "default",
        "description": "",
        "enabled": True,
        "is_domain": False,
        "options": {},
        "tags": [],
    }
    api.resource_api.create_project(project["id"], project)
    return project["id"]


class Server(socketserver.ThreadingMixIn, WSGIServer):
    """A server with a thread for each connection."""

    daemon_threads = True
    request_queue_size = 128

    def server_bind(self):
        """Bind without a DNS request for the host name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]
        self.setup_environ()


class Handler(WSGIRequestHandler):
    """A handler that does not log requests or use DNS."""

    def address_string(self):
        return self.client_address[0]

    def log_message(self, *arguments):
        pass


def main(config, contents):
    contents = json.loads(Path(contents).read_text())
    sys.argv = ["keystone"]
    keystone.server.configure(config_files=[config])
    make_keys()
    fresh = not os.path.exists(CONF.database.connection.removeprefix("sqlite:///"))
    if fresh:
        from keystone.common.sql import upgrades

        upgrades.offline_sync_database_to_version()
    # The application would configure everything a second time.
    keystone.server.configure = lambda *a, **k: None
    application = core.initialize_application("public", config_files=[config])
    if fresh:
        bootstrap(contents)
        fill(contents)
    make_server("127.0.0.1", contents["port"], application, Server, Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
