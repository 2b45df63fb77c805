"""A TCP proxy that stands for the network between clients and server: it delays, freezes, cuts and refuses as it is told.

with Proxy("tcp://127.0.0.1:40001") as proxy:
    ...                                    # a client connects to proxy.endpoint
    proxy.freeze(); ...; proxy.thaw()      # nothing gets through meanwhile, connections stay
    proxy.cut()                            # every connection is reset; new ones may be made
    proxy.refuse(); ...; proxy.accept()    # as cut, and new ones are reset at once
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")

CHUNK = 64 * 1024
CHUNKS = 64  # held back in one direction of one connection; beyond that its sender has to wait, as on a real network
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST, and drops what has not been sent


class Proxy:
    """Forwards TCP connections to `target` ("tcp://host:port").

    Methods may be called from any thread, and have taken effect when they return.

    Attributes:
        endpoint: the proxy's own address. connections: how many have been made so far.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = parts.hostname, parts.port
        self.connections = 0
        self._delay = 0.0
        self._refusing = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._run(self._open())

    def freeze(self, *, answers_only: bool = False) -> None:
        """From now on nothing gets through; connections stay, and new ones seem to be made. answers_only: nothing to the clients."""
        self._run(self._set_flowing(answers_only, False))

    def thaw(self) -> None:
        """The end of `freeze`: what has been held up goes on."""
        self._run(self._set_flowing(True, True))

    def cut(self) -> None:
        """Reset every connection; what was on the way is lost. New connections may be made."""
        self._run(self._cut())

    def refuse(self) -> None:
        """As `cut`, and new connections are reset at once."""
        self._refusing = True
        self.cut()

    def accept(self) -> None:
        """The end of `refuse`."""
        self._refusing = False

    def delay(self, seconds: float) -> None:
        """From now on everything arrives so much later, in the same order."""
        self._delay = seconds

    def close(self) -> None:
        """Reset everything and end. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # On the loop's thread ------------------------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _open(self) -> None:
        self._to_server, self._to_client = asyncio.Event(), asyncio.Event()
        await self._set_flowing(True, True)
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, backlog=1024)
        self.endpoint = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _set_flowing(self, to_server: bool, to_client: bool) -> None:
        for event, flowing in ((self._to_server, to_server), (self._to_client, to_client)):
            if flowing:
                event.set()
            else:
                event.clear()

    async def _cut(self) -> None:
        for writer in tuple(self._writers):
            self._reset(writer)

    async def _end(self) -> None:
        self._server.close()
        await self._cut()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        if self._refusing:
            self._reset(writer)
            return
        self.connections += 1
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            self._reset(writer)
            return
        self._writers.add(server_writer)
        if writer.transport.is_closing():  # cut meanwhile
            self._reset(server_writer)
            return
        both = writer, server_writer
        self._start(self._forward(reader, server_writer, self._to_server, both))
        self._start(self._forward(server_reader, writer, self._to_client, both))

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _forward(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        flowing: asyncio.Event,
        both: tuple[asyncio.StreamWriter, ...],
    ) -> None:
        """One direction of one connection: read ahead, and write each chunk when it is due. Ends both directions when it ends."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS)

        async def read() -> None:
            with suppress(OSError):
                while data := await source.read(CHUNK):
                    await chunks.put((self._loop.time() + self._delay, data))
            await chunks.put((self._loop.time() + self._delay, b""))

        reading = self._start(read())
        try:
            while True:
                due, data = await chunks.get()
                await asyncio.sleep(max(0.0, due - self._loop.time()))
                await flowing.wait()
                if not data:
                    break
                target.write(data)
                await target.drain()
        except OSError:
            pass
        finally:
            reading.cancel()
            for writer in both:
                writer.close()
                self._writers.discard(writer)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        connection: socket.socket = writer.get_extra_info("socket")
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
