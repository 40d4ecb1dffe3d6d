"""Runs Cinder's API, scheduler and volume services in a single process, without a broker.

The command line is ``serve_cinder.py CONFIG TYPES.json``, with the Python of the servers'
environment.  It makes the database and the volume types if they do not exist.
"""

import functools
import gc
import json
import os
import sys
import threading
import time
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

from cinder import monkey_patch  # noqa: E402

monkey_patch.patch()

import cinder.privsep  # noqa: E402
import eventlet  # noqa: E402
import os_brick  # noqa: E402
import os_brick.privileged  # noqa: E402
from cinder import context, coordination, objects, rpc, service, version  # noqa: E402
from cinder.common import config, constants  # noqa: E402
from cinder.db import migration  # noqa: E402
from cinder.volume import volume_types  # noqa: E402
from oslo_config import cfg  # noqa: E402
from oslo_db.sqlalchemy import engines  # noqa: E402
from oslo_log import log as logging  # noqa: E402
from oslo_messaging._drivers import impl_fake  # noqa: E402
from sqlalchemy import pool  # noqa: E402

CONF = cfg.CONF


def configure(path):
    """Read the configuration; privileged code runs in this process, which is root."""
    objects.register_all()
    CONF(["--config-file", path], project="cinder", version=version.version_string())
    config.set_middleware_defaults()
    logging.setup(CONF, "cinder")
    cinder.privsep.sys_admin_pctxt.set_client_mode(False)
    os_brick.privileged.default.set_client_mode(False)
    os_brick.setup(CONF)


def keep_connections():
    """Keep database connections open: a new one for each transaction reads the schema again.

    There are far more than concurrent requests, since green threads must not wait for each other.
    """

    @engines._init_connection_args.dispatch_for("sqlite")
    def _pool(url, arguments, more):
        arguments["poolclass"] = pool.QueuePool
        arguments.update(pool_size=20, max_overflow=200, pool_pre_ping=False)


class Arrivals:
    """Replaces the clock of the fake broker, which polls for messages every 50 ms.

    With it, the broker notices a message at once, as a real one does.
    """

    time = staticmethod(time.time)

    def __init__(self):
        self.changed = threading.Condition()

    def sleep(self, pause):
        with self.changed:
            self.changed.wait(max(pause, 0.5))

    def tell(self):
        with self.changed:
            self.changed.notify_all()


def deliver_at_once():
    """Deliver messages between the services without delay."""
    arrivals = impl_fake.time = Arrivals()
    deliver = impl_fake.FakeExchange.deliver_message

    def deliver_message(*arguments, **more):
        deliver(*arguments, **more)
        arrivals.tell()

    impl_fake.FakeExchange.deliver_message = deliver_message


def make_database(types):
    """Make the database and the volume types."""
    migration.db_sync()
    for name, specs in types.items():
        volume_types.create(context.get_admin_context(), name, specs)


def report_for_each():
    """Make every service report: Cinder keeps only the id of the last one, on the class."""
    report = service.Service.report_state

    def report_state(self):
        service.Service.service_id = self.origin_service_id
        report(self)

    service.Service.report_state = report_state


def ask_for_monitors_once():
    """Cache the addresses of Ceph's monitors instead of running a tool for each attachment."""
    from cinder.volume.drivers.rbd import RBDDriver

    RBDDriver._get_mon_addrs = functools.cache(RBDDriver._get_mon_addrs)


def start_services():
    """Start the scheduler and a volume service for each backend, and wait until they are up."""
    scheduler = service.Service.create(binary="cinder-scheduler")
    volumes = [
        service.Service.create(
            host=f"{CONF.host}@{backend}",
            service_name=backend,
            binary=constants.VOLUME_BINARY,
            coordination=True,
        )
        for backend in CONF.enabled_backends
    ]
    # It waits in start() for a backend's first report.
    starting = eventlet.spawn(scheduler.start)
    eventlet.sleep(0.01)
    for each in volumes:
        each.start()
    known = scheduler.manager.driver.host_manager
    wanted = {each.host for each in volumes}
    for attempt in range(1200):
        if wanted <= set(known.service_states):
            break
        # Messages are lost until the listener has made its queue.
        if attempt % 5 == 0:
            scheduler.manager.request_service_capabilities(context.get_admin_context())
        eventlet.sleep(0.05)
    else:
        sys.exit(f"backends that never reported: {wanted - set(known.service_states)}")
    starting.wait()


def main(path, types):
    sys.argv = ["cinder-volume"]
    configure(path)
    keep_connections()
    deliver_at_once()
    if not os.path.exists(CONF.database.connection.removeprefix("sqlite:///")):
        make_database(json.loads(Path(types).read_text()))
    rpc.init(CONF)
    coordination.COORDINATOR.start()
    report_for_each()
    ask_for_monitors_once()
    start_services()
    api = service.WSGIService("osapi_volume")
    api.start()
    # All present objects stay, so exclude them from garbage collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)
    api.server._server.wait()  # api.wait() would return at once


if __name__ == "__main__":
    main(*sys.argv[1:])
