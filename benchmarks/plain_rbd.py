"""Uploads and downloads with Ceph's own tool, as the limit for the rbd store."""

import subprocess

from benchmarks.child import Answer, Measures, Request, compare

BLOCK = 8 * 1024 * 1024


def _command(request: Request, *words: str) -> list[str]:
    options = request["options"]
    conf, user = options["rbd_store_ceph_conf"], options["rbd_store_user"]
    return ["rbd", "--conf", conf, "--id", user, "--no-progress", *words]


def rbd_import(request: Request, measures: Measures) -> Answer:
    """Store a file with ``rbd import``."""
    name = request["object_id"]
    image = f"{request['options']['rbd_store_pool']}/{name}"
    command = _command(request, "import", "--object-size", "8M", request["source"], image)
    with measures.phase():
        subprocess.run(command, check=True)
    return {"uri": f"rbd://{name}", "size": request["size"], "digests": {}}


def rbd_export(request: Request, measures: Measures) -> Answer:
    """Read an image with ``rbd export`` through a pipe."""
    pool, image, snapshot = request["uri"].split("/")[-3:]
    command = _command(request, "export", f"{pool}/{image}@{snapshot}", "-")
    got = 0
    with measures.phase(), subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while piece := process.stdout.read1(BLOCK):  # type: ignore[attr-defined, unused-ignore]
            got += len(piece)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        compare(iter(lambda: process.stdout.read(BLOCK), b""), request["source"])  # type: ignore[union-attr]
    return {"size": got}
