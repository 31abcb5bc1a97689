// server-everything as published, made to bind 127.0.0.1, to take port 0 and to say its port on stdout.
//
//   everything.mjs [--port N] [--stdio] [--sse]
import { Server } from 'node:net';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: { port: { type: 'string', default: '0' }, stdio: { type: 'boolean' }, sse: { type: 'boolean' } },
});
const mode = values.stdio ? 'stdio' : values.sse ? 'sse' : 'streamableHttp';
if (!values.stdio) {
  const say = console.log;
  console.log = () => {}; // it logs every request there
  process.env.PORT = values.port;
  const { listen } = Server.prototype;
  Server.prototype.listen = function listenLocally(_port, ...rest) {
    this.once('listening', () => say(`listening ${this.address().port}`));
    return listen.call(this, Number(values.port), '127.0.0.1', ...rest);
  };
  process.on('SIGTERM', () => process.exit(0));
}
process.argv.splice(2, Infinity, mode);
await import('@modelcontextprotocol/server-everything/dist/index.js');
