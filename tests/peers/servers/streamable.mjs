// Hosts MCP over streamable HTTP on 127.0.0.1: sessions, event stores, Host and Origin checks. Knows nothing of what a
// server offers, and no SDK: transports of both TypeScript lines take the same options.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';

const EVENTS_MAX = 1000; // per session; older ones cannot be replayed any more
const RETRY_MS = 50; // short, so that tests which hang up do not wait for seconds
const LOCAL_HOSTS = new Set(['127.0.0.1', 'localhost', '[::1]']);
const PATH = '/mcp';

/** Keeps the newest events of one session for `Last-Event-ID`. An event id is `<stream>_<number in session>`. */
class EventStore {
  #events = [];
  #next = 0;

  async storeEvent(streamId, message) {
    const id = `${streamId}_${this.#next++}`;
    this.#events.push({ id, streamId, message });
    if (this.#events.length > EVENTS_MAX) this.#events.shift();
    return id;
  }

  async getStreamIdForEventId(id) {
    return this.#events.find((event) => event.id === id)?.streamId;
  }

  async replayEventsAfter(lastId, { send }) {
    const at = this.#events.findIndex((event) => event.id === lastId);
    if (at < 0) throw new Error(`unknown event id ${lastId}`);
    const { streamId } = this.#events[at];
    for (const { id, message, ...event } of this.#events.slice(at + 1)) {
      // A priming event is stored as an empty object and means nothing on replay.
      if (event.streamId === streamId && message.jsonrpc) await send(id, message);
    }
    return streamId;
  }
}

/** Serves one `newServer()` per session, each on a `Transport` of its own. */
export class Sessions {
  #open = new Map();

  constructor(newServer, Transport) {
    this.newServer = newServer;
    this.Transport = Transport;
  }

  /** `body`: the parsed body, where the request has been read already. */
  async handle(req, res, body) {
    const id = req.headers['mcp-session-id'];
    if (id === undefined) return this.#begin(req, res, body);
    const transport = this.#open.get(id);
    return transport ? transport.handleRequest(req, res, body) : refuse(res, 404, 'no such session');
  }

  async #begin(req, res, body) {
    const transport = new this.Transport({
      sessionIdGenerator: randomUUID,
      eventStore: new EventStore(),
      retryInterval: RETRY_MS,
      onsessioninitialized: (id) => void this.#open.set(id, transport),
    });
    const server = this.newServer();
    await server.connect(transport);
    const { onclose } = transport;
    transport.onclose = () => {
      this.#open.delete(transport.sessionId);
      onclose?.();
    };
    await transport.handleRequest(req, res, body);
  }
}

/** Serves `handle(req, res)` at /mcp on `port` (0: any). Prints `listening PORT`; ends on SIGTERM. */
export function listen(handle, port) {
  async function guarded(req, res) {
    if (new URL(req.url, 'http://localhost').pathname !== PATH) return refuse(res, 404, 'not found');
    if (!isLocal(req.headers)) return refuse(res, 403, 'foreign Host or Origin');
    return handle(req, res);
  }

  const http = createServer((req, res) => {
    guarded(req, res).catch((error) => {
      console.error(error);
      if (!res.headersSent) refuse(res, 500, 'internal error');
    });
  });
  http.keepAliveTimeout = 60_000;
  http.listen(port, '127.0.0.1', () => console.log(`listening ${http.address().port}`));
  process.on('SIGTERM', () => process.exit(0));
}

function isLocal({ host, origin }) {
  const name = (value) => URL.parse(value)?.host.replace(/:\d+$/, '');
  return LOCAL_HOSTS.has(name(`http://${host}`)) && (origin === undefined || LOCAL_HOSTS.has(name(origin)));
}

export function refuse(res, status, message) {
  res.writeHead(status, { 'content-type': 'application/json' });
  res.end(JSON.stringify({ jsonrpc: '2.0', error: { code: -32000, message } }));
}
