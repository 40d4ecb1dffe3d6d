"""The part of ``glance_store.common`` that third-party drivers import."""
