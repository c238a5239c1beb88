"""A TCP relay that adds a round trip, in user space: no root, no kernel module.

usage: delay.py TARGET_PORT RTT_MS        prints the port it listens on; ends with its stdin

Each chunk is held for half the round trip in each direction. Chunks overlap, as on a real line:
the delay costs time, not throughput. A connection costs one round trip, as TCP's handshake does.
Not modelled: slow start, loss, bandwidth.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys

_CHUNK = 256 * 1024  # bytes
_QUEUE = 1024  # chunks under way in one direction, before the sender has to wait


class Relay:
    """:param port: on 127.0.0.1, where the traffic goes. :param rtt: seconds."""

    def __init__(self, port: int, rtt: float) -> None:
        self._port = port
        self._half = rtt / 2

    async def serve(self) -> asyncio.AbstractServer:
        """Listen on an ephemeral port of 127.0.0.1."""
        return await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=256)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * self._half)
        try:
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        for end in (writer, target_writer):
            end.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(
            self._one_way(reader, target_writer), self._one_way(target_reader, writer)
        )
        for end in (writer, target_writer):
            end.close()

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Two tasks and a queue, so that a chunk that waits does not hold up the next."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUE)
        delivery = asyncio.create_task(self._deliver(under_way, writer))
        clock = asyncio.get_running_loop().time
        data = b"-"
        while data:
            try:
                data = await reader.read(_CHUNK)
            except OSError:  # a reset arrives as an end
                data = b""
            await under_way.put((clock() + self._half, data))
        await delivery

    async def _deliver(
        self, under_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter
    ) -> None:
        clock = asyncio.get_running_loop().time
        gone = False
        while True:
            due, data = await under_way.get()
            if due > clock():
                await asyncio.sleep(due - clock())
            if gone and data:
                continue  # the reader must not block on a full queue
            with contextlib.suppress(OSError):
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
                continue
            if not data:
                return
            gone = True


async def _main(port: int, rtt: float) -> None:
    server = await Relay(port, rtt).serve()
    print(server.sockets[0].getsockname()[1], flush=True)
    # Whoever started us holds our stdin: its end is ours, however that process dies.
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    asyncio.run(_main(int(sys.argv[1]), float(sys.argv[2]) / 1000))
