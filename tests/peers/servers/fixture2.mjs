// Conformance fixture on the TypeScript SDK v2: what fixture.json describes, in both eras.
//
//   fixture2.mjs [--port N] [--stdio] [--era both|modern|legacy] [--newest REVISION]
//                [--scheme NAME] [--cancelled FILE]     (these two: see offer.mjs)
//
// modern: answers nothing but 2026-07-28. legacy: knows no other revisions than those with `initialize`, none after
// REVISION (2025-11-25).
import { parseArgs } from 'node:util';
import { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } from '@modelcontextprotocol/node';
import {
  CLIENT_CAPABILITIES_META_KEY,
  createMcpHandler,
  fromJsonSchema,
  InMemoryServerEventBus,
  inputRequired,
  isLegacyRequest,
  LOG_LEVEL_META_KEY,
  McpServer,
  SUPPORTED_PROTOCOL_VERSIONS,
} from '@modelcontextprotocol/server';
import { serveStdio, StdioServerTransport } from '@modelcontextprotocol/server/stdio';
import { advance, seal, unseal } from './dialog.mjs';
import * as offer from './offer.mjs';
import { listen, refuse, Sessions } from './streamable.mjs';

const NOT_FOUND = { modern: -32602, legacy: -32002 };
const CHANGED = { tools: 'tools_list_changed', prompts: 'prompts_list_changed' };
const ANNOUNCE = { tools: 'sendToolListChanged', prompts: 'sendPromptListChanged' };
const CACHE = { ttlMs: 0, cacheScope: 'public' };
const CACHED = ['server/discover', 'tools/list', 'prompts/list', 'resources/list', 'resources/templates/list', 'resources/read'];
// What each session with `initialize` remembers, by its server.
const open = new Map();
const bus = new InMemoryServerEventBus();

function newServer({ era, ...options }) {
  const offered = new McpServer(
    { name: 'fixture-ts2', version: '1.0.0' },
    {
      capabilities: offer.CAPABILITIES,
      instructions: offer.INSTRUCTIONS,
      cacheHints: Object.fromEntries(CACHED.map((method) => [method, CACHE])),
      requestState: { verify: unseal },
      ...options,
    },
  );
  // The SDK checks mirrored headers of the tools that it knows; everything else is answered below it.
  for (const { definition } of offer.mirrored()) {
    offered.registerTool(definition.name, { inputSchema: fromJsonSchema(definition.inputSchema) }, () => ({ content: [] }));
  }
  const { server } = offered;
  const state = { level: 'debug', subscribed: new Set() };
  const on = (method, handler) => server.setRequestHandler(method, ({ params }, context) => handler(params, context));
  on('tools/list', offer.listTools);
  on('resources/list', offer.listResources);
  on('resources/templates/list', offer.listTemplates);
  on('prompts/list', offer.listPrompts);
  on('resources/read', ({ uri }) => offer.read(uri, NOT_FOUND[era]));
  on('completion/complete', offer.complete);
  on('prompts/get', (params, context) => offer.prompt(params, converse(server, context)));
  on('tools/call', (params, context) => offer.callTool(params, reach(server, context, state)));
  if (era === 'legacy') {
    open.set(server, state);
    server.onclose = () => open.delete(server);
    on('logging/setLevel', ({ level }) => void (state.level = level) ?? {});
    on('resources/subscribe', ({ uri }) => void state.subscribed.add(uri) ?? {});
    on('resources/unsubscribe', ({ uri }) => void state.subscribed.delete(uri) ?? {});
  }
  return offered;
}

/** Answers with what a dialog asks; for a client with `initialize` the SDK turns that into requests of the server. */
function converse(server, { mcpReq }) {
  return async (dialog, args) => {
    const declared = mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? server.getClientCapabilities();
    const { ask, state, text } = advance(dialog, args, {
      state: mcpReq.requestState(),
      responses: mcpReq.inputResponses,
      declared,
    });
    if (text !== undefined) return { text };
    return { result: inputRequired({ inputRequests: ask, ...(dialog.state && { requestState: seal(state) }) }) };
  };
}

/** How a running tool reaches its client. */
function reach(server, { mcpReq, http }, state) {
  const token = mcpReq._meta?.progressToken;
  const level = mcpReq.envelope ? mcpReq.envelope[LOG_LEVEL_META_KEY] : state.level;
  return {
    token,
    signal: mcpReq.signal,
    closeStream: http?.closeSSE,
    converse: converse(server, { mcpReq }),
    async log(at, data) {
      if (level === undefined || offer.LEVELS.indexOf(at) < offer.LEVELS.indexOf(level)) return;
      await mcpReq.notify({ method: 'notifications/message', params: { level: at, logger: 'fixture', data } });
    },
    async progress(value, total) {
      if (token === undefined) return;
      const params = { progressToken: token, progress: value, total, message: `step ${value} of ${total}` };
      await mcpReq.notify({ method: 'notifications/progress', params });
    },
    async changed(kind) {
      await Promise.all([...open.keys()].map((each) => each[ANNOUNCE[kind]]()));
      await announce({ kind: CHANGED[kind] }, mcpReq.envelope && (() => server[ANNOUNCE[kind]]()));
    },
    async updated(uri) {
      const wanted = [...open].filter(([, { subscribed }]) => subscribed.has(uri));
      await Promise.all(wanted.map(([each]) => each.sendResourceUpdated({ uri })));
      await announce({ kind: 'resource_updated', uri }, mcpReq.envelope && (() => server.sendResourceUpdated({ uri })));
      return true;
    },
  };
}

/** To listeners of 2026-07-28: over HTTP by their common bus; on stdio the SDK takes it from the connection's server. */
async function announce(event, send) {
  if (!values.stdio) bus.publish(event);
  else if (send) await send();
}

const legacyServer = () =>
  newServer({
    era: 'legacy',
    supportedProtocolVersions: SUPPORTED_PROTOCOL_VERSIONS.filter((version) => version <= values.newest),
  });

function http(era, port) {
  const modern = toNodeHandler(createMcpHandler(newServer, { legacy: 'reject', bus }));
  const sessions = new Sessions(legacyServer, NodeStreamableHTTPServerTransport);
  listen(async (req, res) => {
    if (era === 'modern') return modern(req, res);
    const request = await toWebRequest(req);
    const legacy = await isLegacyRequest(request);
    const body = await request.json().catch(() => undefined);
    if (legacy) return sessions.handle(req, res, body);
    return era === 'legacy' ? refuse(res, 400, 'Bad Request: unsupported protocol version') : modern(req, res, body);
  }, port);
}

const { values } = parseArgs({
  options: {
    port: { type: 'string', default: '0' },
    stdio: { type: 'boolean' },
    era: { type: 'string', default: 'both' },
    newest: { type: 'string', default: '2025-11-25' },
    ...offer.OPTIONS,
  },
});
offer.prepare(values);
if (!values.stdio) http(values.era, Number(values.port));
else if (values.era === 'legacy') await legacyServer().connect(new StdioServerTransport());
else serveStdio(newServer, { legacy: values.era === 'modern' ? 'reject' : 'serve' });
