"""Clients of every revision that do random things, and the rules that every answer must keep. A client knows its own tokens
alone: whatever carries another one has reached the wrong client.
"""

import asyncio
import itertools
import json

from http11 import Closed, Exchange
from server import META, MODERN

ANSWER_S = 30
CAPABILITIES = {"elicitation": {"form": {}}}
ACCEPT = "application/json, text/event-stream"


class Wrong(Exception):
    """A rule is broken."""


class Call:
    """One tools/call: how it is meant to go, and what came of it."""

    def __init__(self, id, target, tool, token):
        self.id, self.target, self.tool, self.token = id, target, tool, token
        self.answers = []
        self.answered = asyncio.Event()
        self.last_event_id = None
        self.asked = 0

    def take(self, message):
        self.answers.append(message)
        self.answered.set()

    def check(self, may_fail, revision):
        """Exactly one answer, and this call's own; an error only where something was broken on purpose, or where the
        client's revision cannot be asked what a server without sessions asks."""
        if len(self.answers) != 1:
            raise Wrong(f"{self.token}: {len(self.answers)} answers: {self.answers}")
        result = self.answers[0].get("result", {})
        text = result.get("content", [{}])[0].get("text", "")
        expected = f"{self.target.name}:{self.token}" + (f":reply-{self.token}" if self.tool == "ask" else "")
        if self.tool == "ask" and self.target.revision == MODERN and revision < "2025-06-18":
            expected = f'Server "{self.target.name}": it needs elicitation, which this client did not declare.'
        if text != expected and not (may_fail and ("error" in self.answers[0] or result.get("isError"))):
            raise Wrong(f"{self.token}: {self.answers[0]} instead of {expected}")


class Client:
    """What clients of all revisions have in common. `endpoint`: its port and what is behind, by the prefix of their names."""

    def __init__(self, name, endpoint, random):
        self.name, self.endpoint, self.random = name, endpoint, random
        self.ids = itertools.count(1)
        self.calls = {}  # token -> call
        self.by_id = {}
        self.tasks = set()

    def begin(self, tool):
        prefix, target = self.random.choice(list(self.endpoint.targets.items()))
        id = next(self.ids)
        token = f"{self.name}.{id}"
        call = Call(id, target, tool, token)
        self.calls[token] = self.by_id[id] = call
        arguments = {"name": prefix + tool, "arguments": {"token": token}, "_meta": {"progressToken": f"p-{token}"}}
        return call, {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": arguments}

    def mine(self, token, what):
        if token not in self.calls:
            raise Wrong(f"{self.name} got {what} of {token}")
        return self.calls[token]

    def notice(self, message):
        """A notification: progress must be of a call of this client."""
        params = message.get("params", {})
        if message["method"] == "notifications/progress":
            call = self.mine(params["message"], "progress")
            if params["progressToken"] != f"p-{call.token}":
                raise Wrong(f"{call.token}: progress under {params['progressToken']}")

    def reply(self, params):
        """What the user says to an elicitation."""
        call = self.mine(params["message"], "an elicitation")
        call.asked += 1
        return {"action": "accept", "content": {"reply": f"reply-{call.token}"}}

    def spawn(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        return task

    async def within(self, awaitable, what):
        try:
            return await asyncio.wait_for(awaitable, ANSWER_S)
        except asyncio.TimeoutError:
            raise Wrong(f"{what}: nothing within {ANSWER_S} s") from None

    async def failures(self):
        """The end of what runs beside; raises what went wrong there."""
        for task in self.tasks:
            task.cancel()
        for outcome in await asyncio.gather(*self.tasks, return_exceptions=True):
            if isinstance(outcome, Exception) and not isinstance(outcome, (Closed, asyncio.CancelledError)):
                raise outcome


class Legacy(Client):
    """Streamable HTTP of a revision with sessions."""

    def __init__(self, name, endpoint, random, revision):
        super().__init__(name, endpoint, random)
        self.revision, self.session = revision, None

    def headers(self, **more):
        headers = {"content-type": "application/json", "accept": ACCEPT}
        if self.session:
            headers["mcp-session-id"] = self.session
            if self.revision >= "2025-06-18":
                headers["mcp-protocol-version"] = self.revision
        return {**headers, **more}

    async def post(self, message):
        exchange = Exchange(self.endpoint.port)
        status, headers = await exchange.send("POST", "/mcp", self.headers(), json.dumps(message).encode())
        return exchange, status, headers

    async def tell(self, message):
        exchange, status, _ = await self.within(self.post({"jsonrpc": "2.0", **message}), "a notification")
        exchange.close()
        if status != 202:
            raise Wrong(f"{self.name}: {status} to {message}")

    async def open(self):
        info = {"name": self.name, "version": "1.0.0"}
        params = {"protocolVersion": self.revision, "capabilities": CAPABILITIES, "clientInfo": info}
        message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        exchange, status, headers = await self.within(self.post(message), "initialize")
        if status != 200:
            raise Wrong(f"{self.name}: initialize was answered {status} {await exchange.body()}")
        result = json.loads(await exchange.body())
        exchange.close()
        if "result" not in result:
            raise Wrong(f"{self.name}: initialize was answered {result}")
        self.revision, self.session = result["result"]["protocolVersion"], headers["mcp-session-id"]
        await self.tell({"method": "notifications/initialized"})
        if self.random.random() < 0.7:
            self.spawn(self.listen())

    async def listen(self):
        exchange = Exchange(self.endpoint.port)
        status, _ = await exchange.send("GET", "/mcp", self.headers(accept="text/event-stream"))
        if status != 200:
            raise Wrong(f"{self.name}: a GET was answered {status}")
        try:
            async for _, _, data in exchange.events():
                if data:
                    await self.take(json.loads(data), None)
        finally:
            exchange.close()

    async def take(self, message, call):
        """A message of the gateway, on the stream of `call` or on the session's own."""
        if "method" not in message:
            owner = self.by_id.get(message.get("id"))
            if owner is None or (call and owner is not call):
                raise Wrong(f"{self.name}: an answer out of place: {message}")
            return owner.take(message)
        if "id" not in message:
            return self.notice(message)
        result = {} if message["method"] == "ping" else self.reply(message["params"])
        self.spawn(self.tell({"id": message["id"], "result": result}))

    async def read(self, call, exchange, headers):
        """Reads an answer to its end, or until it breaks."""
        if headers.get("content-type", "").startswith("application/json"):
            return await self.take(json.loads(await exchange.body()), call)
        async for _, id, data in exchange.events():
            call.last_event_id = id or call.last_event_id
            if data:
                await self.take(json.loads(data), call)

    async def call(self, tool, turn):
        """One call. `turn`: what happens on its way: nothing, `cancel`, `return` (leaves and comes back) or `leave`."""
        call, message = self.begin(tool)
        exchange, status, headers = await self.within(self.post(message), call.token)
        if status == 404 and self.endpoint.broken:
            exchange.close()
            return call.take({"error": {"message": "session ended"}})
        if status != 200:
            raise Wrong(f"{call.token}: {status} {await exchange.body()}")
        reading = self.spawn(self.read(call, exchange, headers))
        if turn == "cancel":
            await asyncio.sleep(self.random.random() * 0.05)
            await self.tell({"method": "notifications/cancelled", "params": {"requestId": call.id}})
        elif turn in ("return", "leave"):
            await asyncio.sleep(self.random.random() * 0.03)
            reading.cancel()
            exchange.close()
            if turn == "leave" or (call.last_event_id is None and not call.answers):
                return None
        if turn != "return":
            await self.within(asyncio.wait({reading}), call.token)
        if not call.answers and call.last_event_id:
            await self.within(self.resume(call), f"{call.token} resumed")
        exchange.close()
        return call

    async def resume(self, call):
        """Comes back to a stream with the last event that arrived, as often as it ends early."""
        while not call.answers:
            exchange = Exchange(self.endpoint.port)
            sent = self.headers(accept="text/event-stream", **{"last-event-id": call.last_event_id})
            status, headers = await exchange.send("GET", "/mcp", sent)
            if status != 200:
                raise Wrong(f"{call.token}: coming back was answered {status} {await exchange.body()}")
            try:
                await self.read(call, exchange, headers)
            except Closed:
                pass
            exchange.close()
            await asyncio.sleep(0.05)

    async def end(self):
        exchange = Exchange(self.endpoint.port)
        await self.within(exchange.send("DELETE", "/mcp", self.headers()), "DELETE")
        exchange.close()
        await self.failures()


class Sse2024(Legacy):
    """The transport of 2024-11-05: one stream for everything."""

    def __init__(self, name, endpoint, random, revision):
        super().__init__(name, endpoint, random, revision)
        self.opened = asyncio.Event()

    async def open(self):
        self.stream = Exchange(self.endpoint.port)
        status, _ = await self.within(self.stream.send("GET", "/sse", {"accept": "text/event-stream"}), "GET /sse")
        if status != 200:
            raise Wrong(f"{self.name}: /sse was answered {status}")
        found = asyncio.get_running_loop().create_future()
        self.spawn(self.follow(found))
        self.path = await self.within(found, "the endpoint event")
        call = self.by_id[0] = Call(0, None, None, "initialize")
        info = {"name": self.name, "version": "1.0.0"}
        params = {"protocolVersion": self.revision, "capabilities": CAPABILITIES, "clientInfo": info}
        await self.tell({"id": 0, "method": "initialize", "params": params})
        await self.within(call.answered.wait(), "initialize")
        if "result" not in call.answers[0]:
            raise Wrong(f"{self.name}: initialize was answered {call.answers[0]}")
        await self.tell({"method": "notifications/initialized"})

    async def follow(self, found):
        async for name, _, data in self.stream.events():
            if name == "endpoint":
                found.set_result(data)
            elif data:
                await self.take(json.loads(data), None)

    async def post(self, message):
        exchange = Exchange(self.endpoint.port)
        status, headers = await exchange.send(
            "POST", self.path, {"content-type": "application/json"}, json.dumps(message).encode()
        )
        return exchange, status, headers

    async def call(self, tool, turn):
        call, message = self.begin(tool)
        await self.tell(message)
        if turn == "leave":
            return None
        if turn == "cancel":
            await asyncio.sleep(self.random.random() * 0.05)
            await self.tell({"method": "notifications/cancelled", "params": {"requestId": call.id}})
            await asyncio.sleep(0.2)
            return call
        await self.within(call.answered.wait(), call.token)
        return call

    async def end(self):
        self.stream.close()
        await self.failures()


class Modern(Client):
    """2026-07-28: every request stands for itself."""

    revision = MODERN

    async def open(self):
        pass

    async def post(self, message):
        params = message["params"]
        params["_meta"] = {
            **params.get("_meta", {}),
            META + "protocolVersion": MODERN,
            META + "clientCapabilities": CAPABILITIES,
            META + "clientInfo": {"name": self.name, "version": "1.0.0"},
        }
        headers = {"content-type": "application/json", "accept": ACCEPT, "mcp-protocol-version": MODERN}
        headers |= {"mcp-method": message["method"], "mcp-name": params["name"], "authorization": f"Bearer {self.name}"}
        exchange = Exchange(self.endpoint.port)
        status, headers = await exchange.send("POST", "/mcp", headers, json.dumps(message).encode())
        return exchange, status, headers

    async def read(self, call, exchange, headers):
        if headers.get("content-type", "").startswith("application/json"):
            return self.take(json.loads(await exchange.body()), call)
        async for _, _, data in exchange.events():
            if data:
                self.take(json.loads(data), call)

    def take(self, message, call):
        if "method" in message:
            if "id" in message:
                raise Wrong(f"{call.token}: a request reached a client of {MODERN}: {message}")
            return self.notice(message)
        if message.get("id") != call.id:
            raise Wrong(f"{call.token}: an answer out of place: {message}")
        call.take(message)

    async def call(self, tool, turn):
        call, message = self.begin(tool)
        while True:
            exchange, status, headers = await self.within(self.post(message), call.token)
            if status >= 500 and not self.endpoint.broken:
                raise Wrong(f"{call.token}: {status} {await exchange.body()}")
            reading = self.spawn(self.read(call, exchange, headers))
            if turn in ("cancel", "leave", "return"):
                await asyncio.sleep(self.random.random() * 0.05)
                reading.cancel()
                exchange.close()
                return call if call.answers and not call.asked and turn != "leave" and self.complete(call) else None
            await self.within(asyncio.wait({reading}), call.token)
            exchange.close()
            if not call.answers:
                raise Wrong(f"{call.token}: the answer ended without one")
            if self.complete(call):
                return call
            result = call.answers.pop()["result"]
            requests = result["inputRequests"]
            replies = {key: self.reply(asked["params"]) for key, asked in requests.items()}
            # A new request in every way but its meaning.
            call.id = next(self.ids)
            self.by_id[call.id] = call
            message = {**message, "id": call.id}
            message["params"] = {**message["params"], "inputResponses": replies}
            if "requestState" in result:
                message["params"]["requestState"] = result["requestState"]
            if self.random.random() < 0.1:
                # The user walked away: nothing may be left of it.
                call.answers.clear()
                return None

    @staticmethod
    def complete(call):
        return call.answers[0].get("result", {}).get("resultType") != "input_required"

    async def end(self):
        await self.failures()
