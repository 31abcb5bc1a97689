// Comes to a protected server as the TypeScript SDK does it: asks, is refused, finds the authorization server, gets a token,
// calls the tool `echo`.
//
//   authorized.mjs URL --grant code|credentials [--id ID --secret SECRET --issuer URL --scope SCOPE]
//
// `code` registers itself and follows redirects as a browser would. `credentials` asks for the given scope, because the SDK
// takes none from a challenge there. Prints `{"text", "token", "exchanges"}`: the result, the access token, and every
// exchange as `[STATUS, "METHOD URL"]`.
import { parseArgs } from 'node:util';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { ClientCredentialsProvider } from '@modelcontextprotocol/sdk/client/auth-extensions.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const text = { type: 'string' };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { grant: text, id: text, secret: text, issuer: text, scope: text },
});
const url = new URL(positionals[0]);
const CALLBACK = 'http://127.0.0.1:1/callback'; // nobody is there: redirects are followed no further
const HOPS_MAX = 10;

/** What a browser does with a URL, up to the redirect to the client: its query. */
async function browse(start) {
  const cookies = new Map();
  let at = new URL(start);
  for (let hop = 0; hop < HOPS_MAX; hop += 1) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const answer = await fetch(at, { redirect: 'manual', headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = line.match(/^([^=]+)=([^;]*)/);
      cookies.set(name, value);
    }
    const location = answer.headers.get('location');
    if (!location) throw new Error(`${answer.status} from ${at}: ${await answer.text()}`);
    at = new URL(location, at);
    if (at.href.startsWith(CALLBACK)) return at.searchParams;
  }
  throw new Error('too many redirects');
}

class Registered {
  redirectUrl = CALLBACK;
  clientMetadata = {
    client_name: 'authorized',
    redirect_uris: [CALLBACK],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  };
  clientInformation = () => this.client;
  saveClientInformation = (client) => void (this.client = client);
  tokens = () => this.kept;
  saveTokens = (tokens) => void (this.kept = tokens);
  codeVerifier = () => this.verifier;
  saveCodeVerifier = (verifier) => void (this.verifier = verifier);

  async redirectToAuthorization(to) {
    this.code = (await browse(to)).get('code');
  }
}

const exchanges = [];
async function noted(target, options) {
  const answer = await fetch(target, options);
  exchanges.push([answer.status, `${options?.method ?? 'GET'} ${target}`]);
  return answer;
}

const provider =
  values.grant === 'code'
    ? new Registered()
    : new ClientCredentialsProvider({
        clientId: values.id,
        clientSecret: values.secret,
        expectedIssuer: values.issuer,
        scope: values.scope,
      });

async function connect() {
  const client = new Client({ name: 'authorized', version: '1.0.0' });
  const transport = new StreamableHTTPClientTransport(url, { authProvider: provider, fetch: noted });
  try {
    await client.connect(transport);
    return client;
  } catch (error) {
    if (!(error instanceof UnauthorizedError) || !provider.code) throw error;
    await transport.finishAuth(provider.code);
    provider.code = undefined;
    return connect();
  }
}

const client = await connect();
const result = await client.callTool({ name: 'echo', arguments: { message: 'hello' } });
const token = (await provider.tokens()).access_token;
console.log(JSON.stringify({ text: result.content[0].text, token, exchanges }));
process.exit(0);
