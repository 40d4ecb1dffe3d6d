"""Ceph's gateway behind a server of the test's own, which spoils what the test says."""

import contextlib
import dataclasses
import http.client
import ssl
from collections.abc import Iterator

from tests.functional.s3.places import Place, ceph_http
from tests.s3_faults import Spoiled
from tests.scripted_server import Reply, Request, ScriptedServer
from tests.servers.ceph import Ceph

#: What two ends of one connection tell each other, and nobody further on.
_HOP = ("connection", "keep-alive", "transfer-encoding", "expect")


class SpoiledGateway(Spoiled):
    """Hands requests on as they are, so that their signatures hold.

    :param place: how stores ask it
    """

    def __init__(self, server: ScriptedServer, gateway: Ceph, place: Place) -> None:
        self.place = place
        self.port = server.port
        self._gateway = gateway.s3_endpoint.partition("://")[2]
        super().__init__(server)

    def answer(self, request: Request) -> Reply:
        """Have the gateway answer."""
        with contextlib.closing(http.client.HTTPConnection(self._gateway)) as connection:
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in request.headers.items():
                if name not in _HOP:
                    connection.putheader(name, value)
            connection.endheaders(request.body)
            answer = connection.getresponse()
            headers: dict[str, str | None] = {
                name: value for name, value in answer.headers.items() if name.lower() not in _HOP
            }
            return Reply(answer.status, answer.read(), headers)


@contextlib.contextmanager
def spoiled_gateway(ceph: Ceph, *, tls: bool) -> Iterator[SpoiledGateway]:
    """Run the server, with the gateway's own certificate where it speaks TLS."""
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(ceph.s3_ca, ceph.s3_ca.with_name("key.pem"))
    with ScriptedServer(tls=context) as server:
        options = {**ceph_http(ceph).options, "s3_store_host": server.url}
        if tls:
            options["s3_store_cacert"] = str(ceph.s3_ca)
        yield SpoiledGateway(server, ceph, dataclasses.replace(ceph_http(ceph), options=options))
