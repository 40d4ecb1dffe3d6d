"""The read-only web server backend: http and https URIs, ranges, resume, bounded redirects."""

from store_lib.drivers.http.driver import HttpDriver
from store_lib.drivers.http.location import HttpLocation

__all__ = ["HttpDriver", "HttpLocation"]
