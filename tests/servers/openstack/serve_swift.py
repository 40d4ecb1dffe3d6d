"""Runs Swift's storage servers and proxies in a single process; makes missing rings.

The command line is ``serve_swift.py ETC CONFIG...``, with the Python of the servers' environment.
Configurations are named ``<kind>-<port>.conf``; ``ETC/rings.json`` has the ports of the storage
servers.
"""

import json
import os
import signal
import sys
from pathlib import Path

import swift.common.utils as utils

# The limits on objects are read once, at import, from this file alone.
utils.SWIFT_CONF_FILE = str(Path(sys.argv[1]).absolute() / "swift.conf")

import eventlet  # noqa: E402
import eventlet.hubs  # noqa: E402

utils.monkey_patch()
eventlet.hubs.use_hub(utils.get_hub())

from swift.common import wsgi  # noqa: E402
from swift.common.ring.builder import RingBuilder  # noqa: E402


def make_rings(etc):
    """Write a ring of one device and one replica for each kind of storage server."""
    for kind, port in json.loads((etc / "rings.json").read_text()).items():
        path = etc / f"{kind}.ring.gz"
        if path.exists():
            continue
        builder = RingBuilder(part_power=2, replicas=1, min_part_hours=0)
        builder.add_dev(
            {
                "region": 1,
                "zone": 1,
                "weight": 1.0,
                "ip": "127.0.0.1",
                "port": port,
                "replication_ip": "127.0.0.1",
                "replication_port": port,
                "device": "d1",
                "meta": "",
            }
        )
        builder.rebalance()
        builder.get_ring().save(str(path))


def share_the_hub():
    """Make a new server use the event loop of the running ones.

    Threads of the pool for disk operations have none yet and still make their own.
    """
    make_hub, local = eventlet.hubs.use_hub, eventlet.hubs._threadlocal
    eventlet.hubs.use_hub = lambda *a: None if hasattr(local, "hub") else make_hub(*a)


def prepare(config):
    """Read a configuration and listen on its port."""
    kind = config.name.partition("-")[0]
    more = {"verbose": True}
    if kind == "object":
        from swift.obj.server import global_conf_callback

        more["global_conf_callback"] = global_conf_callback
    conf, logger, global_conf, strategy = wsgi.check_config(str(config), f"{kind}-server", **more)
    return conf, logger, strategy.no_fork_sock(), global_conf


def main(etc, *configs):
    make_rings(Path(etc))
    share_the_hub()
    wsgi.clean_up_daemon_hygiene = lambda: None
    ready = [prepare(Path(config).absolute()) for config in configs]
    servers = [
        eventlet.spawn(wsgi.run_server, conf, logger, sock, global_conf=global_conf)
        for conf, logger, sock, global_conf in ready
    ]
    signal.signal(signal.SIGTERM, lambda *a: os._exit(0))
    for server in servers:
        server.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
