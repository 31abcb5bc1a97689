// Conformance fixture on the TypeScript SDK v1: every tool, prompt and resource that the official suite asks
// for at 2025-06-18 and 2025-11-25, and a few more for the client drivers. What it offers is in fixture.json.
//
//   fixture.mjs [--port N] [--stdio]
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Server } from '@modelcontextprotocol/sdk/server/index.js';
import { StdioServerTransport } from '@modelcontextprotocol/sdk/server/stdio.js';
import * as mcp from '@modelcontextprotocol/sdk/types.js';
import { serveStreamable } from './streamable.mjs';

const fixture = JSON.parse(readFileSync(new URL('fixture.json', import.meta.url)));
const LEVELS = mcp.LoggingLevelSchema.options;
const STEP_MS = 50;
const TEMPLATE = /^test:\/\/template\/([^/]+)\/data$/;

const text = (value) => ({ content: [{ type: 'text', text: value }] });
const failure = (value) => ({ ...text(value), isError: true });
const invalid = (message, data) => new mcp.McpError(mcp.ErrorCode.InvalidParams, message, data);

/** One server per session; the session's state lives in `state`. */
function newServer() {
  const server = new Server(
    { name: 'fixture-ts', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        logging: {},
        completions: {},
      },
      instructions: 'Fixture of the conformance suite.',
    },
  );
  const state = { level: 'debug', subscribed: new Set(), cancelled: 0, extra: false };
  listAndRead(server, state);
  prompts(server);
  session(server, state);
  server.setRequestHandler(mcp.CallToolRequestSchema, async ({ params }, extra) => {
    const entry = tools(state).find((tool) => tool.definition.name === params.name);
    if (!entry) throw invalid(`unknown tool ${params.name}`);
    if (entry.result) return entry.result;
    return CALLS[params.name](params.arguments ?? {}, { server, state, extra });
  });
  return server;
}

const tools = (state) =>
  state.extra ? [...fixture.tools, { definition: fixture.extra_tool, result: text('extra') }] : fixture.tools;

function listAndRead(server, state) {
  server.setRequestHandler(mcp.ListToolsRequestSchema, () => ({ tools: tools(state).map((tool) => tool.definition) }));
  server.setRequestHandler(mcp.ListResourcesRequestSchema, () => ({ resources: fixture.resources }));
  server.setRequestHandler(mcp.ListResourceTemplatesRequestSchema, () => ({ resourceTemplates: fixture.templates }));
  server.setRequestHandler(mcp.ReadResourceRequestSchema, ({ params: { uri } }) => {
    if (Object.hasOwn(fixture.contents, uri)) return { contents: [fixture.contents[uri]] };
    const id = TEMPLATE.exec(uri)?.[1];
    if (id === undefined) throw new mcp.McpError(-32002, 'resource not found', { uri });
    const body = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
    return { contents: [{ uri, mimeType: 'application/json', text: body }] };
  });
}

function prompts(server) {
  const message = (content) => ({ role: 'user', content });
  const said = (value) => message({ type: 'text', text: value });
  const messages = {
    test_simple_prompt: () => [said('This is a simple prompt for testing.')],
    test_prompt_with_arguments: ({ arg1, arg2 }) => [said(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)],
    test_prompt_with_embedded_resource: ({ resourceUri: uri }) => [
      message({
        type: 'resource',
        resource: { uri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' },
      }),
      said('Please process the embedded resource above.'),
    ],
    test_prompt_with_image: () => [message(fixture.image), said('Please analyze the image above.')],
  };
  server.setRequestHandler(mcp.ListPromptsRequestSchema, () => ({ prompts: fixture.prompts }));
  server.setRequestHandler(mcp.GetPromptRequestSchema, ({ params }) => {
    const prompt = fixture.prompts.find(({ name }) => name === params.name);
    if (!prompt) throw invalid(`unknown prompt ${params.name}`);
    const given = params.arguments ?? {};
    const missing = (prompt.arguments ?? []).find(({ name }) => given[name] === undefined);
    if (missing) throw invalid(`missing argument ${missing.name}`);
    return { description: prompt.description, messages: messages[prompt.name](given) };
  });
}

function session(server, state) {
  server.setRequestHandler(mcp.SetLevelRequestSchema, ({ params }) => {
    state.level = params.level;
    return {};
  });
  server.setRequestHandler(mcp.SubscribeRequestSchema, ({ params }) => {
    state.subscribed.add(params.uri);
    return {};
  });
  server.setRequestHandler(mcp.UnsubscribeRequestSchema, ({ params }) => {
    state.subscribed.delete(params.uri);
    return {};
  });
  server.setRequestHandler(mcp.CompleteRequestSchema, ({ params }) => {
    const values = fixture.completions.filter((value) => value.startsWith(params.argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });
}

async function log({ state, extra }, level, data) {
  if (LEVELS.indexOf(level) < LEVELS.indexOf(state.level)) return;
  await extra.sendNotification({ method: 'notifications/message', params: { level, logger: 'fixture', data } });
}

async function progress({ extra }, value, total) {
  const progressToken = extra._meta?.progressToken;
  if (progressToken === undefined) return;
  await extra.sendNotification({
    method: 'notifications/progress',
    params: { progressToken, progress: value, total, message: `step ${value} of ${total}` },
  });
}

/** An elicitation with the form that fixture.json keeps under the tool's name. */
async function elicit(call, tool, message) {
  if (!call.server.getClientCapabilities()?.elicitation) return failure('client does not support elicitation');
  const params = { message, requestedSchema: fixture.forms[tool] };
  const answer = await call.extra.sendRequest({ method: 'elicitation/create', params }, mcp.ElicitResultSchema);
  const prefix = tool === 'test_elicitation' ? 'User response' : 'Elicitation completed';
  return text(`${prefix}: action=${answer.action}, content=${JSON.stringify(answer.content ?? {})}`);
}

// The tools whose result is not fixed; each takes its arguments and { server, state, extra }.
const CALLS = {
  async test_tool_with_logging(_, call) {
    await log(call, 'info', 'Tool execution started');
    await sleep(STEP_MS);
    await log(call, 'info', 'Tool processing data');
    await sleep(STEP_MS);
    await log(call, 'info', 'Tool execution completed');
    return text('logged three messages');
  },
  test_error_handling: async () => failure('This tool intentionally returns an error for testing'),
  async test_tool_with_progress(_, call) {
    for (const value of [0, 50, 100]) {
      await progress(call, value, 100);
      if (value < 100) await sleep(STEP_MS);
    }
    return text(`progress token ${JSON.stringify(call.extra._meta?.progressToken ?? null)}`);
  },
  async test_sampling({ prompt }, { server, extra }) {
    if (!server.getClientCapabilities()?.sampling) return failure('client does not support sampling');
    const messages = [{ role: 'user', content: { type: 'text', text: prompt } }];
    const answer = await extra.sendRequest(
      { method: 'sampling/createMessage', params: { messages, maxTokens: 100 } },
      mcp.CreateMessageResultSchema,
    );
    return text(`LLM response: ${answer.content.text ?? ''}`);
  },
  test_elicitation: ({ message }, call) => elicit(call, 'test_elicitation', message),
  test_elicitation_sep1034_defaults: (_, call) =>
    elicit(call, 'test_elicitation_sep1034_defaults', 'Please review the defaults'),
  test_elicitation_sep1330_enums: (_, call) => elicit(call, 'test_elicitation_sep1330_enums', 'Please choose'),
  async test_reconnection(_, { extra }) {
    extra.closeSSEStream?.(); // absent below 2025-11-25 and on stdio
    await sleep(2 * STEP_MS);
    return text('Answered after the stream was closed');
  },
  async test_structured({ a, b }) {
    const structuredContent = { sum: a + b };
    return { ...text(JSON.stringify(structuredContent)), structuredContent };
  },
  async test_roots(_, { server, extra }) {
    if (!server.getClientCapabilities()?.roots) return failure('client does not support roots');
    const { roots } = await extra.sendRequest({ method: 'roots/list' }, mcp.ListRootsResultSchema);
    return text(JSON.stringify(roots.map(({ uri }) => uri)));
  },
  async test_slow({ seconds }, call) {
    const steps = Math.ceil((seconds * 1000) / STEP_MS);
    try {
      for (let step = 1; step <= steps; step += 1) {
        await sleep(STEP_MS, undefined, { signal: call.extra.signal });
        await progress(call, step, steps);
      }
    } catch (error) {
      if (call.extra.signal.aborted) call.state.cancelled += 1;
      throw error;
    }
    return text(`slept ${seconds} s`);
  },
  test_cancellations: async (_, { state }) => text(String(state.cancelled)),
  async test_touch(_, { server, state }) {
    const uri = 'test://watched-resource';
    if (!state.subscribed.has(uri)) return text('nobody subscribed');
    await server.sendResourceUpdated({ uri });
    return text('announced');
  },
  async test_toggle(_, { server, state }) {
    state.extra = !state.extra;
    await server.sendToolListChanged();
    return text(state.extra ? 'added' : 'removed');
  },
};

const { values } = parseArgs({ options: { port: { type: 'string', default: '0' }, stdio: { type: 'boolean' } } });
if (values.stdio) await newServer().connect(new StdioServerTransport());
else serveStreamable(newServer, { port: Number(values.port) });
