// Hosts an MCP server over streamable HTTP on 127.0.0.1: sessions, event stores, Host and Origin checks.
// Knows nothing of what the server offers.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';

const EVENTS_MAX = 1000; // per session; older ones cannot be replayed any more
const RETRY_MS = 50; // short, so that tests which hang up do not wait for seconds
const LOCAL_HOSTS = new Set(['127.0.0.1', 'localhost', '[::1]']);

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

/** Listens on `port` (0: any) and serves one `newServer()` per session. Prints `listening PORT`; ends on SIGTERM. */
export function serveStreamable(newServer, { port = 0, path = '/mcp' } = {}) {
  const sessions = new Map();

  async function open(req, res) {
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: new EventStore(),
      retryInterval: RETRY_MS,
      onsessioninitialized: (id) => void sessions.set(id, transport),
    });
    transport.onclose = () => sessions.delete(transport.sessionId);
    await newServer().connect(transport);
    await transport.handleRequest(req, res);
  }

  async function handle(req, res) {
    if (new URL(req.url, 'http://localhost').pathname !== path) return refuse(res, 404, 'not found');
    if (!isLocal(req.headers)) return refuse(res, 403, 'foreign Host or Origin');
    const id = req.headers['mcp-session-id'];
    if (id === undefined) return open(req, res);
    const transport = sessions.get(id);
    return transport ? transport.handleRequest(req, res) : refuse(res, 404, 'no such session');
  }

  const http = createServer((req, res) => {
    handle(req, res).catch((error) => {
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

function refuse(res, status, message) {
  res.writeHead(status, { 'content-type': 'application/json' });
  res.end(JSON.stringify({ jsonrpc: '2.0', error: { code: -32000, message } }));
}
