/** The API server: certificates, store, listeners and handlers, put together and taken apart. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { ApiError } from '../api/errors.ts';
import type { KindDeclaration } from '../api/kind-declaration.ts';
import { FIRST_NAMESPACES, namespaceKind } from '../api/kinds/namespace.ts';
import { KINDS } from '../api/kinds.ts';
import { internal, methodNotAllowed, noSuchPath, unauthorized, unavailable } from '../api/statuses.ts';
import { isWeftError, messageOf, WeftError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { openSqliteStore } from '../store/sqlite-store.ts';
import type { Store } from '../store/store.ts';
import { Discovery, isCrdList, VERSION_INFO } from './discovery.ts';
import { Housekeeping } from './housekeeping.ts';
import { authorize, identify } from './identity.ts';
import { Metrics } from './metrics.ts';
import { readObject } from './object-input.ts';
import { OpenApi } from './openapi.ts';
import { ensureCa, ensureServerCertificate, isExpiring, type KeyPair } from './pki.ts';
import { parseAccept } from './representation.ts';
import { KindIndex, parseTarget } from './request-info.ts';
import { ResourceHandler, sendText } from './resource-handler.ts';

export interface ApiServerOptions {
  /** Holds `pki/` and `store.db`. */
  dataDir: string;
  /** Addresses to listen on (port 0: any free one), or descriptors of listening sockets that a parent opened. */
  listen: Array<{ host: string; port: number } | { fd: number }>;
  /** Further names and addresses for the server's certificate. */
  advertise: string[];
  logger: Logger;
  /** In place of the embedded one. The server closes it. */
  store?: Store;
  /** Default {@link KINDS}. */
  kinds?: readonly KindDeclaration[];
  /** Most watches at one time. Default 10,000. */
  maxWatches?: number;
}

export interface ApiServer {
  /** https://host:port of the first listener. */
  readonly url: string;
  /** The same for each listener, in order. */
  readonly urls: string[];
  readonly port: number;
  /** The CA; its private key is in `pkiDir`. */
  readonly ca: string;
  readonly pkiDir: string;
  /** Ends watches, finishes requests, closes the store. Idempotent. */
  close(): Promise<void>;
}

const LOCAL_NAMES = [
  'localhost',
  '127.0.0.1',
  '::1',
  'kubernetes',
  'kubernetes.default',
  'kubernetes.default.svc',
  'kubernetes.default.svc.cluster.local',
];
const RENEWAL_CHECK_MS = 12 * 3600 * 1000;
/** Requests in progress get so long when the server closes. */
const CLOSE_GRACE_MS = 2000;

/** Throws WEFT_PKI_BROKEN, WEFT_STORE_* and WEFT_API_LISTEN. */
export async function startApiServer(options: ApiServerOptions): Promise<ApiServer> {
  const pkiDir = join(options.dataDir, 'pki');
  const names = [...LOCAL_NAMES, hostname(), ...options.advertise];
  for (const at of options.listen)
    if ('host' in at && at.host !== '0.0.0.0' && at.host !== '::') names.push(at.host);
  // The store comes first: whoever holds it owns the directory, and a second server leaves the certificates alone.
  const store = options.store ?? openSqliteStore({ path: join(options.dataDir, 'store.db') });
  try {
    const ca = await ensureCa(pkiDir);
    const certificate = await ensureServerCertificate(pkiDir, ca, names);
    const server = new Composition(options, store, ca, certificate, { pkiDir, names });
    await server.start();
    return server;
  } catch (error) {
    await store.close();
    throw error;
  }
}

class Composition implements ApiServer {
  readonly pkiDir: string;
  readonly #options: ApiServerOptions;
  readonly #store: Store;
  readonly #ca: KeyPair;
  #certificate: KeyPair;
  readonly #names: string[];
  readonly #kinds: readonly KindDeclaration[];
  readonly #index: KindIndex;
  readonly #discovery: Discovery;
  readonly #openApi: OpenApi;
  readonly #resources: ResourceHandler;
  readonly #housekeeping: Housekeeping;
  readonly #metrics: Metrics;
  readonly #servers: Server[] = [];
  #renewal: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;
  #ready = false;

  constructor(
    options: ApiServerOptions,
    store: Store,
    ca: KeyPair,
    certificate: KeyPair,
    pki: { pkiDir: string; names: string[] },
  ) {
    this.#options = options;
    this.#store = store;
    this.#ca = ca;
    this.#certificate = certificate;
    this.pkiDir = pki.pkiDir;
    this.#names = pki.names;
    this.#kinds = options.kinds ?? KINDS;
    this.#index = new KindIndex(this.#kinds);
    this.#discovery = new Discovery(this.#kinds);
    this.#openApi = new OpenApi(this.#kinds);
    this.#resources = new ResourceHandler({
      store,
      kinds: this.#kinds,
      maxWatches: options.maxWatches ?? 10_000,
    });
    this.#housekeeping = new Housekeeping({
      store,
      kinds: this.#kinds,
      registry: (kind) => this.#resources.registry(kind),
      logger: options.logger,
    });
    this.#metrics = new Metrics({
      watches: () => this.#resources.watchCount,
      revision: () => store.revision,
    });
  }

  get ca(): string {
    return this.#ca.cert;
  }

  get port(): number {
    return (this.#servers[0]?.address() as AddressInfo | null)?.port ?? 0;
  }

  get url(): string {
    return this.urls[0] ?? '';
  }

  get urls(): string[] {
    return this.#servers.map((server) => urlOf(server.address() as AddressInfo | null));
  }

  async start(): Promise<void> {
    try {
      await this.#createFirstNamespaces();
      await this.#housekeeping.start();
      for (const at of this.#options.listen) this.#servers.push(await this.#listen(at));
      this.#ready = true;
    } catch (error) {
      await this.close();
      throw error;
    }
    this.#renewal = setInterval(() => void this.#renew(), RENEWAL_CHECK_MS);
    this.#renewal.unref();
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#ready = false;
    clearInterval(this.#renewal);
    const closed = this.#servers.map(
      (server) => new Promise<void>((resolve) => server.close(() => resolve())),
    );
    this.#resources.close();
    for (const server of this.#servers) server.closeIdleConnections();
    const force = setTimeout(() => {
      for (const server of this.#servers) server.closeAllConnections();
    }, CLOSE_GRACE_MS);
    await Promise.all(closed);
    clearTimeout(force);
    await this.#housekeeping.close();
    await this.#store.close();
  }

  async #createFirstNamespaces(): Promise<void> {
    const kind = namespaceKind as unknown as KindDeclaration;
    const registry = this.#resources.registry(kind);
    const created = FIRST_NAMESPACES.map((name) =>
      registry
        .create(
          readObject(kind, { metadata: { name } }, 'Strict', () => {}),
          undefined,
        )
        .catch((error: unknown) => {
          if (!(error instanceof ApiError && error.code === 409)) throw error;
        }),
    );
    await Promise.all(created);
  }

  #listen(at: ApiServerOptions['listen'][number]): Promise<Server> {
    const server = createServer(
      {
        ...this.#tls(),
        requestCert: true,
        // Health and version are answered without a certificate; identify() looks at it for the rest.
        rejectUnauthorized: false,
        minVersion: 'TLSv1.2',
        keepAliveTimeout: 75_000,
        headersTimeout: 30_000,
        requestTimeout: 60_000,
      },
      (request, response) => void this.#serve(request, response),
    );
    server.on('tlsClientError', (error, socket) => {
      this.#options.logger.debug({ err: messageOf(error) }, 'TLS handshake failed');
      socket.destroy();
    });
    return new Promise((resolve, reject) => {
      const where = 'fd' in at ? `descriptor ${at.fd}` : `${at.host}:${at.port}`;
      server.once('error', (error) => {
        server.close();
        reject(
          new WeftError('WEFT_API_LISTEN', `cannot listen on ${where}: ${messageOf(error)}`, {
            cause: error,
            details: { ...at },
          }),
        );
      });
      const options = 'fd' in at ? { fd: at.fd } : { host: at.host, port: at.port };
      server.listen({ ...options, backlog: 1024 }, () => {
        server.removeAllListeners('error');
        server.on('error', (error) =>
          this.#options.logger.error({ err: messageOf(error) }, 'listener failed'),
        );
        resolve(server);
      });
    });
  }

  #tls(): { ca: string; cert: string; key: string } {
    return { ca: this.#ca.cert, cert: this.#certificate.cert, key: this.#certificate.key };
  }

  async #renew(): Promise<void> {
    if (!isExpiring(this.#certificate.cert)) return;
    try {
      this.#certificate = await ensureServerCertificate(this.pkiDir, this.#ca, this.#names);
      for (const server of this.#servers) server.setSecureContext(this.#tls());
      this.#options.logger.info('the server certificate was renewed');
    } catch (error) {
      this.#options.logger.error({ err: messageOf(error) }, 'renewing the server certificate failed');
    }
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const started = performance.now();
    let verb = (request.method ?? 'GET').toLowerCase();
    let resource = '';
    response.once('close', () =>
      this.#metrics.observe(verb, resource, response.statusCode, (performance.now() - started) / 1000),
    );
    response.on('error', () => {});
    try {
      const identity = identify(request.socket as TLSSocket);
      if (!identity || request.headers.authorization) throw unauthorized();
      const { path, query, segments } = parseTarget(request.url ?? '/');
      const method = request.method ?? 'GET';
      const target = isCrdList(segments) ? undefined : this.#index.parse(method, segments, query);
      if (target) {
        verb = target.verb;
        resource = target.kind.plural;
        authorize(identity, { path, ...target });
        await this.#resources.handle(target, { request, response, query, identity });
        return;
      }
      const isRead = method === 'GET' || method === 'HEAD';
      authorize(identity, { verb: isRead ? 'get' : verb, path: path.replace(/(.)\/$/, '$1') });
      if (!isRead) throw methodNotAllowed();
      await this.#serveDocument(segments, query, request, response);
    } catch (error) {
      this.#refuse(error, request, response);
    }
  }

  async #serveDocument(
    segments: string[],
    query: URLSearchParams,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const { accept } = request.headers;
    const [root = '', second] = segments;
    if (root === 'healthz' || root === 'livez' || root === 'readyz') {
      const well = this.#ready && !this.#closing;
      const text = query.has('verbose')
        ? `[${well ? '+' : '-'}]store ${well ? 'ok' : 'failed'}\n${root} check ${well ? 'passed' : 'failed'}\n`
        : well
          ? 'ok'
          : 'shutting down';
      sendText(response, well ? 200 : 503, text, 'text/plain; charset=utf-8');
      return;
    }
    if (root === 'version' && !second) return sendText(response, 200, JSON.stringify(VERSION_INFO));
    if (root === 'metrics' && !second) {
      const { text, contentType } = await this.#metrics.text();
      return sendText(response, 200, text, contentType);
    }
    if (root === 'openapi' && second === 'v2' && segments.length === 2)
      return this.#serveOpenApiV2(accept, response);
    if (root === 'openapi' && second === 'v3') {
      if (segments.length === 2) return sendText(response, 200, this.#openApi.index());
      const document = this.#openApi.v3(segments.slice(2).join('/'));
      if (!document) throw noSuchPath();
      if (query.get('hash') === document.hash)
        response.setHeader('expires', new Date(Date.now() + 86_400_000).toUTCString());
      response.setHeader('etag', `"${document.hash}"`);
      return sendText(response, 200, document.text);
    }
    const found = this.#discovery.document(segments, accept, request.headers.host ?? '');
    if (found) {
      response.setHeader('vary', 'Accept');
      return sendText(response, 200, JSON.stringify(found.body), found.contentType);
    }
    if (segments.length > 0) throw noSuchPath();
    const paths = [
      '/api',
      '/api/v1',
      '/apis',
      '/healthz',
      '/livez',
      '/metrics',
      '/openapi/v2',
      '/openapi/v3',
      '/readyz',
      '/version',
    ];
    sendText(response, 200, JSON.stringify({ paths }));
  }

  async #serveOpenApiV2(accept: string | undefined, response: ServerResponse): Promise<void> {
    const types = parseAccept(accept).map((m) => m.type);
    const protobuf = types.find((t) => t.startsWith('application/com.github.') && t.endsWith('+protobuf'));
    if (!protobuf || types.includes('application/json'))
      return sendText(response, 200, this.#openApi.v2().text);
    // Only kubectl before 1.27 asks for this form.
    const { encodeOpenApiV2 } = await import('./openapi-v2-protobuf.ts');
    const body = encodeOpenApiV2(this.#openApi.v2Document());
    response.writeHead(200, { 'content-type': 'application/octet-stream', 'content-length': body.length });
    response.end(body);
  }

  #refuse(error: unknown, request: IncomingMessage, response: ServerResponse): void {
    let refusal: ApiError;
    if (error instanceof ApiError) refusal = error;
    else if (isWeftError(error, 'WEFT_STORE_CLOSED')) refusal = unavailable('the server is shutting down');
    else {
      if (request.destroyed && !request.complete) return;
      this.#options.logger.error({ err: error, url: request.url }, 'request failed');
      refusal = internal(messageOf(error));
    }
    if (response.headersSent) {
      response.destroy();
      return;
    }
    // The rest of an unread body would be taken for the next request.
    if (!request.complete) response.setHeader('connection', 'close');
    const retry = refusal.status.details?.retryAfterSeconds;
    if (retry !== undefined) response.setHeader('retry-after', String(retry));
    sendText(response, refusal.code, JSON.stringify(refusal.status));
  }
}

/** Where a listener can be reached on this machine. */
function urlOf(at: AddressInfo | null): string {
  const host = !at || at.address === '0.0.0.0' || at.address === '::' ? '127.0.0.1' : at.address;
  return `https://${host.includes(':') ? `[${host}]` : host}:${at?.port ?? 0}`;
}
