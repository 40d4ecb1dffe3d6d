"""An object being read: what the shared reader of HTTP objects asks of the data server."""

from collections.abc import Mapping

from urllib3.response import BaseHTTPResponse

from store_lib.clients.network_errors import Server
from store_lib.drivers.vmware.folder import Folder
from store_lib.drivers.vmware.location import VmwareLocation
from store_lib.exceptions import StoreError


class FolderFile:
    """A file on the data server, see :class:`store_lib.clients.ranges.Source`."""

    def __init__(self, folder: Folder, location: VmwareLocation, server: Server) -> None:
        self._folder = folder
        self._target = location.target
        self.display_name = location.uri
        self.server = server

    def get(self, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Send a GET, with a login that is good."""
        return self._folder.send("GET", self._target, headers)

    def error_for_response(self, response: BaseHTTPResponse) -> StoreError:
        """Return the error that an answer means which does not give the object."""
        return self._folder.error(response, "to give", self._target)
