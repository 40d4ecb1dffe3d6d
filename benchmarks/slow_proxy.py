"""A TCP relay with a limited rate for all clients together.

Run it as ``python -m benchmarks.slow_proxy HOST:PORT BYTES_PER_SECOND``; it prints its address.
"""

import asyncio
import contextlib
import sys
import time

#: Bytes to relay at a time.
BLOCK = 256 * 1024


class Relay:
    """Relays bytes, those from clients at no more than ``rate`` bytes per second."""

    def __init__(self, host: str, port: int, rate: float) -> None:
        self._host = host
        self._port = port
        self._rate = rate
        self._free_at = time.monotonic()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect a client to the server."""
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(
            self._pass(reader, server_writer, slowly=True),
            self._pass(server_reader, writer, slowly=False),
        )

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(BLOCK):
                if slowly:
                    self._free_at = max(self._free_at, time.monotonic()) + len(data) / self._rate
                    await asyncio.sleep(self._free_at - time.monotonic())
                writer.write(data)
                await writer.drain()
        writer.close()


async def main(address: str, rate: str) -> None:
    """Relay until the process is ended."""
    host, _, port = address.rpartition(":")
    relay = Relay(host, int(port), float(rate))
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, limit=BLOCK)
    print(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
