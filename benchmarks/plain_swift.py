"""Uploads with the swift command, as the limit for the Swift store."""

import configparser
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.child import Answer, Measures, Request


def _login(account: Mapping[str, str]) -> tuple[str, str]:
    """Return a token and the storage URL; the command needs one more package for version 3."""
    from keystoneauth1.identity.v3 import Password
    from keystoneauth1.session import Session

    project, _, user = account["user"].partition(":")
    domains = {"user_domain_id": "default", "project_domain_id": "default"}
    plugin: Any = Password(
        account["auth_address"],
        username=user,
        password=account["key"],
        project_name=project,
        **domains,
    )
    session: Any = Session(auth=plugin)
    try:
        return session.get_token(), session.get_endpoint(service_type="object-store")
    finally:
        session.close()


def command(request: Request, measures: Measures) -> Answer:
    """Upload a file as a static large object, four segments at a time."""
    options = request["options"]
    reference = options["default_swift_reference"]
    accounts = configparser.ConfigParser()
    accounts.read(options["swift_store_config_file"])
    account = accounts[reference]
    token, url = _login(account)
    container, name = options["swift_store_container"], request["object_id"]
    environment = {
        **os.environ,
        "OS_AUTH_TOKEN": token,
        "OS_STORAGE_URL": url,
    }
    segment = options["swift_store_large_object_chunk_size"] * 1000 * 1024
    script = os.path.join(os.path.dirname(sys.executable), "swift")
    words = [sys.executable, script, "--quiet", "upload", "--use-slo"]
    words += ["--segment-size", str(segment), "--segment-threads", "4", "--object-name", name]
    words += [container, request["source"]]
    with measures.phase():
        subprocess.run(words, env=environment, check=True, stdout=subprocess.DEVNULL)
    uri = f"swift+config://{reference}/{container}/{name}"
    return {"uri": uri, "size": request["size"], "digests": {}}
