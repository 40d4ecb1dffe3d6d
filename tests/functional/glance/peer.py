"""A process that works with glance_store itself: ``peer.py FILE ACTION ARGUMENT...``.

Run by an interpreter that has glance_store; prints what the action gave, as JSON.  FILE is a
configuration with one store named ``store``, or with the old single-store form.
"""

import hashlib
import io
import json
import os
import sys
import types
import warnings

warnings.simplefilter("ignore")

import glance_store  # noqa: E402
from oslo_config import cfg  # noqa: E402

CONF = cfg.CONF

#: A request's context: Cinder's store wants one, though it has a login of its own.
CONTEXT = types.SimpleNamespace(project_id="service", user_id="glance", service_catalog=None)


class Single:
    """glance_store's functions for the old form."""

    @staticmethod
    def start():
        glance_store.register_opts(CONF)
        glance_store.create_stores(CONF)

    @staticmethod
    def add(name, data, size):
        return glance_store.add_to_backend_with_multihash(
            CONF, name, data, size, "sha256", context=CONTEXT
        )

    get = glance_store.get_from_backend
    size = glance_store.get_size_from_backend
    delete = glance_store.delete_from_backend


class Several:
    """glance_store's functions for several stores."""

    @staticmethod
    def start():
        glance_store.register_store_opts(CONF)
        glance_store.create_multi_stores(CONF)

    @staticmethod
    def add(name, data, size):
        return glance_store.add_with_multihash(
            CONF, name, data, size, "store", "sha256", context=CONTEXT
        )

    @staticmethod
    def get(uri):
        return glance_store.get(uri, "store")

    @staticmethod
    def size(uri):
        return glance_store.get_size_from_uri_and_backend(uri, "store")

    @staticmethod
    def delete(uri):
        return glance_store.delete(uri, "store")


def reach_the_simulator():
    """Let glance_store's vmware store take a port, which its option refuses."""
    from glance_store._drivers import vmware_datastore

    make = vmware_datastore.api.VMwareAPISession

    def session(host, *args, **kwargs):
        name, _, port = host.partition(":")
        return make(name, *args, port=int(port), **kwargs)

    vmware_datastore.api.VMwareAPISession = session
    for option in vmware_datastore._VMWARE_OPTS:
        if option.name == "vmware_server_host":
            option.type = cfg.types.String()
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        os.environ.pop(name, None)  # they would win over what is configured


def attach_as_root():
    """Let os-brick do what needs root's rights in this process, not in a daemon under sudo."""
    from os_brick import privileged

    privileged.default.set_client_mode(False)


def main(configuration, action, *arguments):
    with open(configuration) as file:
        text = file.read()
    if "vmware_server_host" in text:
        reach_the_simulator()
    if "cinder_" in text:
        attach_as_root()
    CONF.register_opt(cfg.DictOpt("enabled_backends", default={}))
    CONF(["--config-file", configuration], project="peer", default_config_dirs=[])
    library = Several if CONF.enabled_backends else Single
    library.start()
    if action == "add":
        name, path, size = arguments
        with open(path, "rb") as file:
            return library.add(name, io.BytesIO(file.read()), int(size))[0]
    (uri,) = arguments
    if action == "get":
        return hashlib.sha256(b"".join(library.get(uri)[0])).hexdigest()
    return getattr(library, action)(uri)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
