/**
 * The built-in image `agnhost`: a small server for looking at the network from inside a pod, with the paths and answers of
 * Kubernetes' own test image of that name (https://github.com/kubernetes/kubernetes/tree/master/test/images/agnhost, netexec),
 * so that what is written for that one works here.
 *
 *   netexec [--http-port=8080] [--udp-port=8081] [--tcp-port=8081]     -1 turns a port off; the default
 *   connect HOST:PORT [--timeout=1s] [--protocol=tcp]                  exit 0 when it could connect
 *   pause
 *
 * It runs as a process of its own and starts within the time of a bare Node; it imports nothing beside Node's own modules.
 */
import { createSocket } from 'node:dgram';
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTcpServer } from 'node:net';
import os from 'node:os';
import { type DialProtocol, type DialResult, dial, hostPort } from './dial.ts';

const MAX_TRIES = 1000;
const DIAL_TIMEOUT = 2_000;
const MAX_CONNECTIONS = 1000;

export interface NetexecPorts {
  http: number;
  udp: number;
  tcp: number;
}

export interface Netexec {
  ports: NetexecPorts;
  close(): Promise<void>;
}

/** Serve on all addresses, both families. Port 0: any free one; negative: none. */
export async function netexec(ports: NetexecPorts, host = '::'): Promise<Netexec> {
  const bound = { ...ports };
  const closers: Array<() => Promise<void>> = [];
  if (ports.http >= 0) {
    const server = createHttpServer(
      { requestTimeout: 30_000, maxHeaderSize: 16_384 },
      (request, response) => {
        answer(request, response).catch((error: Error) => reply(response, 500, error.message));
      },
    );
    server.maxConnections = MAX_CONNECTIONS;
    await listening(server, (done) => server.listen({ port: ports.http, host }, done));
    bound.http = portOf(server.address());
    closers.push(
      () =>
        new Promise((resolve) => {
          server.close(() => resolve());
          server.closeAllConnections();
        }),
    );
  }
  if (ports.tcp >= 0) {
    const sockets = new Set<{ destroy(): void }>();
    const server = createTcpServer((socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      socket.setTimeout(60_000, () => socket.destroy());
      socket.on('error', () => socket.destroy());
      let line = '';
      socket.setEncoding('utf8');
      socket.on('data', (chunk: string) => {
        line += chunk;
        for (let end = line.indexOf('\n'); end >= 0; end = line.indexOf('\n')) {
          socket.write(
            `${command(line.slice(0, end).replace(/\r$/, ''), socket.remoteAddress, socket.remotePort)}\n`,
          );
          line = line.slice(end + 1);
        }
        if (line.length > 65_536) socket.destroy();
      });
    });
    server.maxConnections = MAX_CONNECTIONS;
    await listening(server, (done) => server.listen({ port: ports.tcp, host }, done));
    bound.tcp = portOf(server.address());
    closers.push(
      () =>
        new Promise((resolve) => {
          server.close(() => resolve());
          for (const socket of sockets) socket.destroy();
        }),
    );
  }
  if (ports.udp >= 0) {
    // One socket per family: the answer must leave from the address that was asked, which a wildcard socket of both cannot
    // promise for IPv4-mapped peers.
    const udp6 = createSocket({ type: 'udp6', ipv6Only: host === '::' });
    const all =
      host === '::' ? [udp6, createSocket('udp4')] : [host.includes(':') ? udp6 : createSocket('udp4')];
    if (!all.includes(udp6)) udp6.close();
    for (const socket of all) {
      socket.on('message', (message, peer) => {
        socket.send(
          command(message.toString().trimEnd(), peer.address, peer.port),
          peer.port,
          peer.address,
          () => {},
        );
      });
      const address = host === '::' ? (socket === udp6 ? '::' : '0.0.0.0') : host;
      await listening(socket, (done) => socket.bind({ port: bound.udp, address }, done));
      bound.udp = socket.address().port;
      closers.push(() => new Promise((resolve) => socket.close(() => resolve())));
    }
  }
  return {
    ports: bound,
    close: async () => {
      await Promise.all(closers.map((close) => close()));
    },
  };
}

/** The commands of the TCP and UDP servers; anything else is echoed as it is. */
export function command(text: string, address = '', port = 0): string {
  if (text.startsWith('echo ')) return text.slice(5);
  if (text === 'hostname') return os.hostname();
  if (text === 'clientip') return hostPort(address, port);
  return text;
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://agnhost');
  const query = url.searchParams;
  const { remoteAddress = '', remotePort = 0 } = request.socket;
  switch (url.pathname) {
    case '/':
      return reply(response, 200, `NOW: ${new Date().toISOString()}`);
    case '/healthz':
      return reply(response, 200, '');
    case '/hostname':
    case '/hostName':
      return reply(response, 200, os.hostname());
    case '/clientip':
      return reply(response, 200, hostPort(remoteAddress, remotePort));
    case '/header': {
      const value = request.headers[(query.get('key') ?? '').toLowerCase()];
      return reply(response, 200, Array.isArray(value) ? value.join(', ') : (value ?? ''));
    }
    case '/echo': {
      const code = Number(query.get('code') ?? 200);
      if (!Number.isInteger(code) || code < 200 || code > 599)
        return reply(response, 400, 'code must be 200 to 599');
      return reply(response, code, query.get('msg') ?? '');
    }
    case '/exit': {
      const code = Number(query.get('code') ?? 0);
      if (!Number.isInteger(code) || code < 0 || code > 255)
        return reply(response, 400, 'code must be 0 to 255');
      response.on('finish', () => process.exit(code));
      return reply(response, 200, '');
    }
    case '/dial':
      return answerDial(query, response);
    default:
      return reply(response, 404, `unknown path ${url.pathname}`);
  }
}

/**
 * `/dial?host=&port=&protocol=http|udp|tcp&request=&tries=` → `{"responses": […], "errors": […]}`, as netexec answers. With
 * `local=true` also `"locals"`: this end of each try.
 */
async function answerDial(query: URLSearchParams, response: ServerResponse): Promise<void> {
  const host = query.get('host') ?? '';
  const port = Number(query.get('port'));
  const protocol = (query.get('protocol') || 'http') as DialProtocol;
  const request = query.get('request') || 'hostname';
  const tries = Number(query.get('tries') ?? 1);
  const timeout = Number(query.get('timeout') ?? DIAL_TIMEOUT);
  const wrong =
    (host === '' && 'host is missing') ||
    (!(Number.isInteger(port) && port > 0 && port < 65_536) && 'port must be 1 to 65535') ||
    (!['http', 'tcp', 'udp'].includes(protocol) && 'protocol must be http, tcp or udp') ||
    (!(Number.isInteger(tries) && tries > 0 && tries <= MAX_TRIES) && `tries must be 1 to ${MAX_TRIES}`) ||
    (!(timeout > 0 && timeout <= 60_000) && 'timeout must be 1 to 60000 milliseconds');
  if (wrong) return reply(response, 400, wrong);
  const results: DialResult[] = [];
  for (let i = 0; i < tries && !response.destroyed; i++)
    results.push(await dial(protocol, host, port, request, timeout));
  const text = (key: keyof DialResult): string[] => results.flatMap((result) => result[key] ?? []);
  const body: Record<string, string[]> = { responses: text('response') };
  const errors = text('error');
  if (errors.length > 0) body.errors = errors;
  if (query.get('local') === 'true') body.locals = text('local');
  reply(response, 200, JSON.stringify(body), 'application/json');
}

function reply(
  response: ServerResponse,
  code: number,
  body: string,
  type = 'text/plain; charset=utf-8',
): void {
  if (response.headersSent) return;
  response.writeHead(code, { 'content-type': type, 'content-length': Buffer.byteLength(body) });
  response.end(body);
}

const portOf = (address: unknown): number => (address as { port: number }).port;

function listening(
  server: {
    once(event: 'error', listener: (error: Error) => void): unknown;
    off(event: 'error', listener: (error: Error) => void): unknown;
  },
  start: (done: () => void) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    start(() => {
      server.off('error', reject);
      resolve();
    });
  });
}

/** `--name=value` and `--name value` options; what is none of them is positional. Unknown options are refused. */
export function parseOptions(
  args: string[],
  known: readonly string[],
): { options: Record<string, string>; positional: string[] } {
  const options: Record<string, string> = {};
  const positional: string[] = [];
  for (let i = 0; i < args.length; i++) {
    const arg = args[i]!;
    if (!arg.startsWith('--')) {
      positional.push(arg);
      continue;
    }
    const equals = arg.indexOf('=');
    const name = arg.slice(2, equals < 0 ? undefined : equals);
    const value = equals < 0 ? args[++i] : arg.slice(equals + 1);
    if (!known.includes(name) || value === undefined) throw new Error(`unknown or incomplete option ${arg}`);
    options[name] = value;
  }
  return { options, positional };
}

async function main(args: string[]): Promise<void> {
  const [name = 'netexec', ...rest] = args[0]?.startsWith('--') ? ['netexec', ...args] : args;
  switch (name) {
    case 'netexec': {
      const { options } = parseOptions(rest, ['http-port', 'udp-port', 'tcp-port']);
      const port = (key: string, fallback: number): number => {
        const value = Number(options[key] ?? fallback);
        if (!Number.isInteger(value) || value < -1 || value > 65_535)
          throw new Error(`--${key} must be -1 to 65535`);
        return value;
      };
      const udp = port('udp-port', 8081);
      const { ports } = await netexec({ http: port('http-port', 8080), udp, tcp: port('tcp-port', udp) });
      process.stdout.write(
        `netexec on ${os.hostname()}: http ${ports.http}, udp ${ports.udp}, tcp ${ports.tcp}\n`,
      );
      process.on('SIGTERM', () => process.exit(0));
      return;
    }
    case 'connect': {
      const { options, positional } = parseOptions(rest, ['timeout', 'protocol']);
      const [, host, port] = /^\[?(.+?)\]?:(\d+)$/.exec(positional[0] ?? '') ?? [];
      if (!host) throw new Error('connect needs HOST:PORT');
      const timeout =
        Number.parseFloat(options.timeout ?? '1') * (options.timeout?.endsWith('ms') ? 1 : 1000);
      const { error } = await dial(
        (options.protocol ?? 'tcp') as DialProtocol,
        host,
        Number(port),
        'echo',
        timeout,
      );
      if (!error) return;
      const words = error.includes('timed out')
        ? 'TIMEOUT'
        : error.includes('ECONNREFUSED')
          ? 'REFUSED'
          : `OTHER: ${error}`;
      process.stderr.write(`${words}\n`);
      process.exitCode = 1;
      return;
    }
    case 'pause':
      process.on('SIGTERM', () => process.exit(0));
      setInterval(() => {}, 2 ** 30);
      return;
    default:
      throw new Error(`unknown command ${name}; known are netexec, connect, pause`);
  }
}

if (import.meta.main) {
  main(process.argv.slice(2)).catch((error: Error) => {
    process.stderr.write(`agnhost: ${error.message}\n`);
    process.exitCode = 2;
  });
}
