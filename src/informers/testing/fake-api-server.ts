/**
 * A Kubernetes API of ConfigMaps in memory, over real HTTP, that misbehaves on request: for tests of clients.
 */
import http from 'node:http';
import https from 'node:https';
import type { AddressInfo } from 'node:net';
import type { ConfigMap, WatchEvent } from '../../api/types.ts';

/** What may go wrong with one request; the server asks for each. */
export type Fault =
  /** Answers 500 with no Status. */
  | 'error'
  /** Answers 429 with Retry-After. */
  | 'too-many'
  /** The connection is destroyed before an answer. */
  | 'reset'
  /** 410: for a list with `continue`, a watch, or as an ERROR event in the midst of one. */
  | 'gone'
  /** The connection is destroyed after some bytes, in the middle of a line. */
  | 'cut'
  /** Every event is sent twice, and an old one again now and then. */
  | 'duplicate'
  /** The list comes in another order. */
  | 'reorder'
  /** The watch ends properly after an event. */
  | 'end'
  /** A line that is no JSON. */
  | 'garbage'
  | undefined;

interface Logged {
  version: number;
  event: WatchEvent<ConfigMap>;
}

export class FakeApiServer {
  readonly objects = new Map<string, ConfigMap>();
  readonly requests: string[] = [];
  fault: (request: 'list' | 'watch') => Fault = () => undefined;
  /** Accepts requests and never answers. */
  mute = false;
  retryAfter = 0;
  connections = 0;
  version = 100;

  readonly #server: http.Server | https.Server;
  readonly #log: Logged[] = [];
  readonly #watchers = new Set<{
    send: (event: WatchEvent<ConfigMap>) => void;
    response: http.ServerResponse;
  }>();
  #compacted = 0;

  constructor(tls?: https.ServerOptions) {
    const handle = (request: http.IncomingMessage, response: http.ServerResponse): void =>
      this.#handle(request, response);
    this.#server = tls ? https.createServer(tls, handle) : http.createServer(handle);
    this.#server.on(tls ? 'secureConnection' : 'connection', () => this.connections++);
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    const { port } = this.#server.address() as AddressInfo;
    return `${this.#server instanceof https.Server ? 'https' : 'http'}://127.0.0.1:${port}`;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get watchers(): number {
    return this.#watchers.size;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  put(name: string, value: string): void {
    const key = `default/${name}`;
    const object: ConfigMap = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name, namespace: 'default', resourceVersion: String(++this.version) },
      data: { value },
    };
    const type = this.objects.has(key) ? 'MODIFIED' : 'ADDED';
    this.objects.set(key, object);
    this.#record({ type, object });
  }

  remove(name: string): void {
    const object = this.objects.get(`default/${name}`);
    if (!object) return;
    this.objects.delete(`default/${name}`);
    const metadata = { ...object.metadata, resourceVersion: String(++this.version) };
    this.#record({ type: 'DELETED', object: { ...object, metadata } });
  }

  /** Forget all changes up to now: whoever is behind gets 410. */
  compact(): void {
    this.#compacted = this.version;
  }

  bookmark(): void {
    const object = {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: '', resourceVersion: String(this.version) },
    };
    for (const watcher of this.#watchers) watcher.send({ type: 'BOOKMARK', object });
  }

  /** Begin anew with nothing, and with versions that are lower. */
  reset(): void {
    this.objects.clear();
    this.#log.length = 0;
    this.version = 5;
  }

  /** Destroy every connection, like a server that crashed. */
  cutAll(): void {
    this.#server.closeAllConnections();
  }

  #record(event: WatchEvent<ConfigMap>): void {
    this.#log.push({ version: this.version, event });
    for (const watcher of this.#watchers) watcher.send(event);
  }

  #handle(request: http.IncomingMessage, response: http.ServerResponse): void {
    const url = new URL(request.url!, 'http://fake');
    this.requests.push(`${request.method} ${request.url}`);
    request.resume();
    response.on('error', () => {});
    if (this.mute) return;
    const watch = url.searchParams.get('watch') === 'true';
    const fault = this.fault(watch ? 'watch' : 'list');
    if (fault === 'reset') {
      response.destroy();
    } else if (fault === 'error') {
      response.writeHead(500, { 'content-type': 'text/html' }).end('<h1>Oops</h1>');
    } else if (fault === 'too-many') {
      response.setHeader('retry-after', String(this.retryAfter));
      status(response, 429, 'TooManyRequests', 'slow down');
    } else if (url.pathname !== '/api/v1/configmaps') {
      status(response, 404, 'NotFound', `no ${url.pathname}`);
    } else if (watch) this.#watch(url, response, fault);
    else this.#list(url, response, fault);
  }

  #list(url: URL, response: http.ServerResponse, fault: Fault): void {
    const limit = Number(url.searchParams.get('limit') ?? 0);
    // A continue token holds version and offset, as a real one holds version and key.
    const token = url.searchParams.get('continue');
    const [version = this.version, offset = 0] = (token?.split('.') ?? []).map(Number);
    if (token && (version !== this.version || fault === 'gone')) {
      status(response, 410, 'Expired', 'the continue token is too old');
      return;
    }
    const items = [...this.objects.values()];
    if (fault === 'reorder' && !token && !limit) items.reverse();
    const end = limit ? offset + limit : items.length;
    const body = JSON.stringify({
      apiVersion: 'v1',
      kind: 'ConfigMapList',
      metadata: {
        resourceVersion: String(version),
        ...(end < items.length && { continue: `${version}.${end}` }),
      },
      items: items.slice(offset, end),
    });
    response.writeHead(200, { 'content-type': 'application/json' });
    if (fault === 'cut') {
      response.write(body.slice(0, body.length / 2), () => response.destroy());
    } else response.end(fault === 'garbage' ? 'no JSON' : body);
  }

  #watch(url: URL, response: http.ServerResponse, fault: Fault): void {
    const from = Number(url.searchParams.get('resourceVersion'));
    if (fault === 'gone' && from % 2 === 0) {
      status(response, 410, 'Expired', 'too old resource version');
      return;
    }
    if (from > this.version) {
      status(response, 504, 'Timeout', 'Too large resource version');
      return;
    }
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const line = (value: unknown): string => `${JSON.stringify(value)}\n`;
    const expired = {
      type: 'ERROR',
      object: { kind: 'Status', status: 'Failure', code: 410, reason: 'Expired' },
    };
    if (from < this.#compacted || fault === 'gone') {
      response.end(line(expired));
      return;
    }
    let sent = 0;
    const send = (event: WatchEvent<ConfigMap>): void => {
      if (response.writableEnded || response.destroyed) return;
      const text = line(event);
      sent++;
      if (fault === 'cut' && sent === 2) {
        const bytes = Buffer.from(text);
        response.write(bytes.subarray(0, bytes.length / 2), () => response.destroy());
        this.#watchers.delete(watcher);
        return;
      }
      if (fault === 'garbage' && sent === 3) response.write('{"type":"ADDED"\n');
      response.write(text);
      if (fault === 'duplicate') {
        response.write(text);
        const old = this.#log[Math.floor(this.#log.length / 2)];
        if (old) response.write(line(old.event));
      }
      if (fault === 'end' && sent === 2) response.end();
    };
    const watcher = { send, response };
    for (const { version, event } of this.#log) if (version > from) send(event);
    this.#watchers.add(watcher);
    response.on('close', () => this.#watchers.delete(watcher));
    const seconds = Number(url.searchParams.get('timeoutSeconds') ?? 0);
    if (seconds) {
      const timer = setTimeout(() => response.end(), seconds * 1000);
      response.on('close', () => clearTimeout(timer));
    }
  }
}

function status(response: http.ServerResponse, code: number, reason: string, message: string): void {
  response.writeHead(code, { 'content-type': 'application/json' });
  response.end(
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Status',
      metadata: {},
      status: 'Failure',
      message,
      reason,
      code,
    }),
  );
}
