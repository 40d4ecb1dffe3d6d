"""Uploads and downloads with curl and a vSphere session, as the limit for the vmware store."""

import subprocess
from urllib.parse import quote

from benchmarks.child import Answer, Measures, Request

#: The directory for uploads, which is that of the stores' objects.
_DIRECTORY = "openstack_glance"


def put(request: Request, measures: Measures) -> Answer:
    """Upload a file of known size."""
    return _put(request, measures)


def put_chunked(request: Request, measures: Measures) -> Answer:
    """Upload a file without declaring its size."""
    return _put(request, measures, "--header", "Transfer-Encoding: chunked")


def get(request: Request, measures: Measures) -> Answer:
    """Download an object and discard it."""
    _, _, rest = request["uri"].partition("://")
    _curl(request, measures, f"https://{rest}")
    return {"size": request["size"]}


def _put(request: Request, measures: Measures, *further: str) -> Answer:
    options = request["options"]
    host = options["vmware_server_host"]
    datacenter, datastore = options["vmware_datastores"][0].split(":")[:2]
    query = f"dcPath={quote(datacenter, safe='')}&dsName={quote(datastore, safe='')}"
    target = f"{host}/folder/{_DIRECTORY}/{request['object_id']}?{query}"
    _curl(request, measures, "--upload-file", request["source"], *further, f"https://{target}")
    return {"uri": f"vsphere://{target}", "size": request["size"], "digests": {}}


def _curl(request: Request, measures: Measures, *arguments: str) -> None:
    from store_lib import Stores

    options = request["options"]
    sections = {"DEFAULT": {"enabled_backends": "bench:vmware"}, "bench": options}
    with Stores.from_mapping(sections, strict=True) as stores:
        driver = stores["bench"].driver
        cookie = driver._session.cookie  # type: ignore[union-attr]
        base = ["curl", "--silent", "--show-error", "--fail", "--http1.1", "--output", "/dev/null"]
        access = ["--cacert", options["vmware_ca_file"], "--header", f"Cookie: {cookie}"]
        measures.idle()
        with measures.phase():
            subprocess.run([*base, *access, *arguments], check=True)
