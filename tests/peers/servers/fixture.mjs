// Conformance fixture on the TypeScript SDK v1, revisions up to 2025-11-25: what fixture.json describes.
//
//   fixture.mjs [--port N] [--stdio] [--scheme NAME] [--cancelled FILE]     (the last two: see offer.mjs)
import { parseArgs } from 'node:util';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import { StreamableHTTPServerTransport } from '@modelcontextprotocol/sdk/server/streamableHttp.js';
import * as mcp from '@modelcontextprotocol/sdk/types.js';
import { advance, allowed, needed } from './dialog.mjs';
import * as offer from './offer.mjs';
import { listen, Sessions } from './streamable.mjs';

const NOT_FOUND = -32002;
const ANSWERS = {
  'elicitation/create': mcp.ElicitResultSchema,
  'sampling/createMessage': mcp.CreateMessageResultWithToolsSchema,
  'roots/list': mcp.ListRootsResultSchema,
};
const ANNOUNCE = { tools: 'sendToolListChanged', prompts: 'sendPromptListChanged' };
// What each session remembers, by its server.
const open = new Map();

/** One server per session. */
function newServer() {
  const { CAPABILITIES: capabilities, INSTRUCTIONS: instructions } = offer;
  const server = new Server({ name: 'fixture-ts', version: '1.0.0' }, { capabilities, instructions });
  const state = { level: 'debug', subscribed: new Set() };
  open.set(server, state);
  server.onclose = () => open.delete(server);
  const on = (schema, handler) => server.setRequestHandler(schema, ({ params }, extra) => handler(params, extra));
  on(mcp.ListToolsRequestSchema, offer.listTools);
  on(mcp.ListResourcesRequestSchema, offer.listResources);
  on(mcp.ListResourceTemplatesRequestSchema, offer.listTemplates);
  on(mcp.ListPromptsRequestSchema, offer.listPrompts);
  on(mcp.ReadResourceRequestSchema, ({ uri }) => offer.read(uri, NOT_FOUND));
  on(mcp.CompleteRequestSchema, offer.complete);
  on(mcp.GetPromptRequestSchema, (params, extra) => offer.prompt(params, converse(server, extra)));
  on(mcp.CallToolRequestSchema, (params, extra) => offer.callTool(params, reach(server, state, extra)));
  on(mcp.SetLevelRequestSchema, ({ level }) => void (state.level = level) ?? {});
  on(mcp.SubscribeRequestSchema, ({ uri }) => void state.subscribed.add(uri) ?? {});
  on(mcp.UnsubscribeRequestSchema, ({ uri }) => void state.subscribed.delete(uri) ?? {});
  return server;
}

/** Sends what a dialog asks as requests of the server: those of a round at once, round after round. */
function converse(server, extra) {
  return async (dialog, args) => {
    const declared = server.getClientCapabilities();
    let step = advance(dialog, args, { declared });
    while (step.text === undefined) {
      const asked = Object.entries(step.ask);
      const refused = asked.find(([, request]) => !allowed(request, declared));
      if (refused) return { result: offer.failure(`client does not support ${JSON.stringify(needed(refused[1]))}`) };
      const answers = await Promise.all(asked.map(async ([key, request]) => [key, await ask(extra, key, request)]));
      step = advance(dialog, args, { state: step.state, responses: Object.fromEntries(answers), declared });
    }
    return step;
  };
}

function ask(extra, key, { method, params }) {
  const identified = params.mode === 'url' ? { ...params, elicitationId: key } : params;
  return extra.sendRequest({ method, params: identified }, ANSWERS[method]);
}

/** How a running tool reaches its client. */
function reach(server, state, extra) {
  const token = extra._meta?.progressToken;
  return {
    token,
    signal: extra.signal,
    closeStream: extra.closeSSEStream,
    converse: converse(server, extra),
    async log(level, data) {
      if (offer.LEVELS.indexOf(level) < offer.LEVELS.indexOf(state.level)) return;
      await extra.sendNotification({ method: 'notifications/message', params: { level, logger: 'fixture', data } });
    },
    async progress(value, total) {
      if (token === undefined) return;
      const params = { progressToken: token, progress: value, total, message: `step ${value} of ${total}` };
      await extra.sendNotification({ method: 'notifications/progress', params });
    },
    changed: (kind) => Promise.all([...open.keys()].map((each) => each[ANNOUNCE[kind]]())),
    async updated(uri) {
      const wanted = [...open].filter(([, { subscribed }]) => subscribed.has(uri));
      await Promise.all(wanted.map(([each]) => each.sendResourceUpdated({ uri })));
      return wanted.length > 0;
    },
  };
}

const { values } = parseArgs({
  options: { port: { type: 'string', default: '0' }, stdio: { type: 'boolean' }, ...offer.OPTIONS },
});
offer.prepare(values);
if (values.stdio) await newServer().connect(new StdioServerTransport());
else {
  const sessions = new Sessions(newServer, StreamableHTTPServerTransport);
  listen((req, res) => sessions.handle(req, res), Number(values.port));
}
