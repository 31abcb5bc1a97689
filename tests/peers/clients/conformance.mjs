// A client for the suite's client scenarios, on the TypeScript SDK v2: connects, lists, calls every tool that is offered.
//
//   conformance.mjs [--mode legacy|auto] URL
//
// The suite says in MCP_CONFORMANCE_CONTEXT with which arguments, where it matters.
import { parseArgs } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { answers } from './features.mjs';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { mode: { type: 'string', default: 'auto' } } });
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');

/** Arguments that a schema accepts; `tools` for the one that wants another's schema back. */
function argumentsFor({ inputSchema: { properties = {} } }, tools) {
  const made = { number: 5, integer: 5, boolean: true, string: 'a text' };
  const echoed = () => tools.find(({ inputSchema }) => inputSchema.$schema || inputSchema.$defs)?.inputSchema;
  const entries = Object.entries(properties).map(([name, { type }]) => [name, name === 'schema' ? echoed() : (made[type] ?? {})]);
  return Object.fromEntries(entries);
}

const client = new Client(
  { name: 'agentlane-conformance', version: '1.0.0' },
  {
    capabilities: { sampling: {}, elicitation: { form: { applyDefaults: true }, url: {} }, roots: {} },
    versionNegotiation: { mode: values.mode },
  },
);
client.setRequestHandler('sampling/createMessage', ({ params }) => answers.sampling(params));
// An answer without content where everything has a default: the SDK fills it in.
client.setRequestHandler('elicitation/create', ({ params }) =>
  params.requestedSchema?.required?.length ? answers.elicitation(params) : { action: 'accept', content: {} },
);
client.setRequestHandler('roots/list', answers.roots);
await client.connect(new StreamableHTTPClientTransport(new URL(positionals.at(-1))));
const offers = client.getServerCapabilities() ?? {};
const tools = offers.tools ? (await client.listTools()).tools : [];
const calls = context.toolCalls ?? tools.map((tool) => ({ name: tool.name, arguments: argumentsFor(tool, tools) }));
// At once: nothing of one call may get into another.
const outcomes = await Promise.allSettled(calls.map((call) => client.callTool(call)));
if (offers.resources) {
  const { resources } = await client.listResources();
  for (const { uri } of resources) await client.readResource({ uri });
}
if (offers.prompts) {
  const { prompts } = await client.listPrompts();
  for (const { name } of prompts) await client.getPrompt({ name });
}
for (const { reason } of outcomes) if (reason) console.error(String(reason));
await client.close();
process.exit(0);
