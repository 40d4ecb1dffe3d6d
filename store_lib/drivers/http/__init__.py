"""The read-only web server backend: http and https URIs, ranges, resume, bounded redirects.

It has no writer.  Its reader and its errors are those of :mod:`store_lib.clients`; the few parts
that are specific to this backend are in ``client``.
"""

from store_lib.drivers.http.driver import HttpDriver
from store_lib.drivers.http.location import HttpLocation

__all__ = ["HttpDriver", "HttpLocation"]
