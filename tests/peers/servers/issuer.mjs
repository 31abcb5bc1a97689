// An authorization server (oidc-provider) that asks nobody: every login and every consent is given at once, so that a client
// without a browser gets through by following redirects.
//
//   issuer.mjs [--port N] [--other-port N]
//
// Clients register themselves, or are `machine` (client_credentials) or `brief`, whose tokens last two seconds. A token is for
// the `resource` that it was asked for, as a JWT. --other-port: another issuer there, with the same keys. POST /rotate on the
// first replaces the keys of both; GET /asked tells which paths were asked for, in order, and forgets them.
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import Provider from 'oidc-provider';

const { values } = parseArgs({ options: { port: { type: 'string', default: '0' }, 'other-port': { type: 'string' } } });
const SCOPE = 'tools';

const machine = (client_id) => ({
  client_id,
  client_secret: `secret of ${client_id}`,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
});

/** Of an access token, in seconds. */
const lifetime = (_context, _token, client) => (client.clientId === 'brief' ? 2 : 600);

function freshKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
}

function provider(issuer, key) {
  const made = new Provider(issuer, {
    clients: [machine('machine'), machine('brief')],
    cookies: { keys: [randomUUID()] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { url: (_, { uid }) => `/interaction/${uid}` },
    jwks: { keys: [key] },
    scopes: ['openid', 'offline_access', SCOPE],
    ttl: { AccessToken: lifetime, AuthorizationCode: 60, ClientCredentials: lifetime, Grant: 600, Interaction: 60, Session: 600 },
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      registration: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          audience: resource,
          scope: SCOPE,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  made.on('server_error', (_, error) => console.error(error));
  return made;
}

/** Gives what a person would be asked for. */
async function interact(made, request, response) {
  const { prompt, params, session } = await made.interactionDetails(request, response);
  if (prompt.name === 'login') return made.interactionFinished(request, response, { login: { accountId: 'alice' } });
  const grant = new made.Grant({ accountId: session.accountId, clientId: params.client_id });
  if (params.scope) grant.addOIDCScope(params.scope);
  for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  return made.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

const issuers = []; // { url, made, answer }
let asked = [];

function renew() {
  const key = freshKey();
  for (const one of issuers) {
    one.made = provider(one.url, key);
    one.answer = one.made.callback();
  }
}

async function serve(one, request, response) {
  const { pathname } = new URL(request.url, one.url);
  if (pathname === '/asked') {
    response.end(JSON.stringify(asked));
    asked = [];
  } else if (request.method === 'POST' && pathname === '/rotate') {
    renew();
    response.writeHead(204).end();
  } else {
    asked.push(`${request.method} ${pathname}`);
    if (pathname.startsWith('/interaction/')) await interact(one.made, request, response);
    else await one.answer(request, response);
  }
}

async function listen(port) {
  const one = {};
  const server = createServer((request, response) => {
    serve(one, request, response).catch((error) => {
      console.error(error);
      response.writeHead(500).end();
    });
  });
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  one.url = `http://127.0.0.1:${server.address().port}`;
  issuers.push(one);
  return server.address().port;
}

process.on('SIGTERM', () => process.exit(0));
console.warn = console.info = () => {}; // notices for production
const port = await listen(Number(values.port));
if (values['other-port']) await listen(Number(values['other-port']));
renew();
console.log(`listening ${port}`);
