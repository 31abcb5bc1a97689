"""HTTP/1.1 as far as both ends of the model need it: heads, bodies by length or in chunks, event streams. Knows no MCP."""

import asyncio


class Closed(Exception):
    """The other side closed the connection, in the middle of a message or between two."""


async def read_head(reader):
    """`(start line, headers)`; names in lower case."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Closed from error
    start, *lines = head.decode("latin-1")[:-4].split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return start, {name.lower(): value.strip() for name, _, value in pairs}


async def read_exactly(reader, count):
    try:
        return await reader.readexactly(count)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Closed from error


async def chunks(reader, headers):
    """The pieces of a body; `Closed` when it is cut."""
    if "content-length" in headers:
        length = int(headers["content-length"])
        if length:
            yield await read_exactly(reader, length)
        return
    if headers.get("transfer-encoding") != "chunked":
        return
    while True:
        try:
            line = await reader.readuntil(b"\r\n")
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise Closed from error
        size = int(line.split(b";")[0], 16)
        data = await read_exactly(reader, size + 2)
        if size == 0:
            return
        yield data[:-2]


async def body(reader, headers):
    return b"".join([piece async for piece in chunks(reader, headers)])


async def events(reader, headers):
    """`(event name, id, data)` of an event stream."""
    text = b""
    async for piece in chunks(reader, headers):
        text += piece.replace(b"\r\n", b"\n")
        while b"\n\n" in text:
            event, text = text.split(b"\n\n", 1)
            fields = {}
            for line in event.split(b"\n"):
                name, _, value = line.partition(b":")
                value = value.removeprefix(b" ").decode()
                fields[name] = f"{fields[name]}\n{value}" if name == b"data" and name in fields else value
            yield fields.get(b"event"), fields.get(b"id"), fields.get(b"data") or None


class Exchange:
    """One request on a connection of its own, and its answer."""

    def __init__(self, port):
        self.port = port
        self.writer = None

    async def send(self, method, path, headers, content=b""):
        """`(status, headers)`."""
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        lines = [f"{method} {path} HTTP/1.1", f"host: 127.0.0.1:{self.port}", f"content-length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content)
        try:
            await self.writer.drain()
            start, self.headers = await read_head(self.reader)
        except ConnectionError as error:
            raise Closed from error
        return int(start.split()[1]), self.headers

    async def body(self):
        return await body(self.reader, self.headers)

    def events(self):
        return events(self.reader, self.headers)

    def close(self):
        if self.writer:
            self.writer.transport.abort()
