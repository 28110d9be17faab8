/**
 * ApiClient over HTTP/1.1 with TLS: one pool of kept connections per client; a watch holds one for itself.
 *
 *   request ─▶ answer in time? ─no─▶ WEFT_API_UNREACHABLE (cut, refused, TLS, too slow)
 *                 │ yes
 *                 ├─ code ≥ 400 ─▶ ApiError with the server's Status
 *                 └─ JSON ─▶ value          not JSON, too large ─▶ WEFT_API_MALFORMED
 *
 * Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
 */
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import type { ApiClient, ListOptions, ObjectRef, PatchType, Resource, WatchOptions } from '../api/client.ts';
import { ApiError } from '../api/errors.ts';
import type { KubeList, KubeObject, Status, WatchEvent } from '../api/types.ts';
import { messageOf, WeftError } from '../base/errors.ts';
import { LineSplitter } from './json-lines.ts';
import type { ApiAccess } from './kubeconfig.ts';

export interface HttpClientOptions {
  /** Milliseconds until an answer is complete, or for a watch until it begins; default 30 000. */
  timeoutMs?: number;
  /** Bytes of the largest answer taken; default 256 MiB. */
  maxBodyBytes?: number;
  /** Bytes of the largest watch event taken; default 16 MiB. */
  maxLineBytes?: number;
  userAgent?: string;
}

interface Request {
  method: string;
  path: string;
  body?: unknown;
  contentType?: string;
  signal?: AbortSignal | undefined;
}

const PATCH_TYPES: Record<PatchType, string> = {
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  json: 'application/json-patch+json',
};

/** Idle seconds after which the kernel asks whether a watch's peer still lives; it gives up 10 s later (libuv). */
const KEEPALIVE_SECONDS = 15;
/** How long a token that was read from a file is used before the file is read again. */
const TOKEN_MS = 60_000;

export class HttpApiClient implements ApiClient {
  readonly #access: ApiAccess;
  readonly #base: URL;
  readonly #agent: http.Agent;
  readonly #timeoutMs: number;
  readonly #maxBodyBytes: number;
  readonly #maxLineBytes: number;
  readonly #userAgent: string;
  readonly #closing = new AbortController();
  #token: { value: string; until: number } | undefined;

  constructor(access: ApiAccess, options: HttpClientOptions = {}) {
    this.#access = access;
    this.#base = new URL(access.server);
    this.#timeoutMs = options.timeoutMs ?? 30_000;
    this.#maxBodyBytes = options.maxBodyBytes ?? 256 << 20;
    this.#maxLineBytes = options.maxLineBytes ?? 16 << 20;
    this.#userAgent = options.userAgent ?? 'weft';
    const pool = { keepAlive: true, scheduling: 'lifo' as const, maxSockets: 64, maxFreeSockets: 4 };
    this.#agent =
      this.#base.protocol === 'http:'
        ? new http.Agent(pool)
        : new https.Agent({
            ...pool,
            ...(access.ca !== undefined && { ca: access.ca }),
            ...(access.cert !== undefined && { cert: access.cert }),
            ...(access.key !== undefined && { key: access.key }),
            ...(access.tlsServerName !== undefined && { servername: access.tlsServerName }),
            ...(access.insecureSkipTlsVerify && { rejectUnauthorized: false }),
          });
  }

  list<T extends KubeObject>(resource: Resource<T>, options: ListOptions = {}): Promise<KubeList<T>> {
    const path = this.#path(resource, options.namespace) + query(options);
    return this.#json({ method: 'GET', path, signal: options.signal });
  }

  get<T extends KubeObject>(resource: Resource<T>, ref: ObjectRef): Promise<T> {
    return this.#json({ method: 'GET', path: this.#objectPath(resource, ref) });
  }

  create<T extends KubeObject>(resource: Resource<T>, object: T): Promise<T> {
    return this.#json({
      method: 'POST',
      path: this.#path(resource, object.metadata.namespace),
      body: object,
    });
  }

  update<T extends KubeObject>(resource: Resource<T>, object: T, subresource?: 'status'): Promise<T> {
    return this.#json({
      method: 'PUT',
      path: this.#objectPath(resource, object.metadata, subresource),
      body: object,
    });
  }

  patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: unknown,
    options: { type?: PatchType; subresource?: 'status' | 'binding' } = {},
  ): Promise<T> {
    const path = this.#objectPath(resource, ref, options.subresource);
    // Kubernetes takes a Binding by POST alone.
    if (options.subresource === 'binding') return this.#json({ method: 'POST', path, body: patch });
    return this.#json({
      method: 'PATCH',
      path,
      body: patch,
      contentType: PATCH_TYPES[options.type ?? 'merge'],
    });
  }

  async delete<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    options: { gracePeriodSeconds?: number; uid?: string; resourceVersion?: string } = {},
  ): Promise<void> {
    const { gracePeriodSeconds, uid, resourceVersion } = options;
    const body = {
      apiVersion: 'v1',
      kind: 'DeleteOptions',
      ...(gracePeriodSeconds !== undefined && { gracePeriodSeconds }),
      ...((uid !== undefined || resourceVersion !== undefined) && {
        preconditions: { uid, resourceVersion },
      }),
    };
    await this.#json({ method: 'DELETE', path: this.#objectPath(resource, ref), body });
  }

  async *watch<T extends KubeObject>(
    resource: Resource<T>,
    options: WatchOptions = {},
  ): AsyncIterableIterator<WatchEvent<T>> {
    const { signal } = options;
    if (signal?.aborted) return;
    const path = this.#path(resource, options.namespace) + query({ ...options, watch: true });
    const call = new Call(this.#timeoutMs, [signal, this.#closing.signal]);
    try {
      const response = await this.#send({ method: 'GET', path }, call);
      if (response.statusCode !== 200) throw await this.#refusal(response, call);
      call.answered();
      options.onOpen?.();
      const lines = new LineSplitter(this.#maxLineBytes);
      for await (const chunk of response as AsyncIterable<Buffer>) {
        for (const line of lines.push(chunk)) {
          const event = parseEvent<T>(line);
          yield event;
          if (signal?.aborted) return;
        }
      }
    } catch (error) {
      if (signal?.aborted) return;
      throw this.#explain(error, 'GET', path, call);
    } finally {
      call.end();
    }
  }

  /**
   * Cuts every connection, watches too, as if the server had: for when this machine's addresses change. A connection from
   * an address that is gone hears nothing more, not even its end, and would be waited for until it times out.
   */
  reconnect(): void {
    const { sockets, freeSockets } = this.#agent;
    for (const list of [...Object.values(sockets), ...Object.values(freeSockets)]) {
      for (const socket of list ?? []) {
        socket.destroy(Object.assign(new Error("this machine's addresses changed"), { code: 'ECONNRESET' }));
      }
    }
  }

  /** Ends the client's watches and connections; requests fail from now on. */
  close(): void {
    this.#closing.abort(new WeftError('WEFT_CLOSED', 'the API client is closed'));
    this.#agent.destroy();
  }

  #path(resource: Resource<KubeObject>, namespace: string | undefined): string {
    const { group, version, plural, namespaced } = resource;
    const prefix = this.#base.pathname === '/' ? '' : this.#base.pathname;
    const root = group === '' ? `${prefix}/api/${version}` : `${prefix}/apis/${group}/${version}`;
    const scope = namespaced && namespace ? `/namespaces/${encodeURIComponent(namespace)}` : '';
    return `${root}${scope}/${plural}`;
  }

  #objectPath(resource: Resource<KubeObject>, ref: ObjectRef, subresource?: string): string {
    if (ref.name === '' || (resource.namespaced && !ref.namespace)) {
      throw new WeftError('WEFT_INTERNAL', `a ${resource.kind} is named by name and namespace`, {
        details: { ...ref },
      });
    }
    const path = `${this.#path(resource, ref.namespace)}/${encodeURIComponent(ref.name)}`;
    return subresource ? `${path}/${subresource}` : path;
  }

  async #json<R>(request: Request): Promise<R> {
    const call = new Call(this.#timeoutMs, [request.signal, this.#closing.signal]);
    try {
      const response = await this.#sendAgain(request, call);
      if (response.statusCode! >= 300) throw await this.#refusal(response, call);
      const text = await this.#body(response);
      const value: unknown = parseJson(text);
      if (typeof value !== 'object' || value === null) {
        throw new WeftError('WEFT_API_MALFORMED', `the answer is no object: ${excerpt(text)}`);
      }
      return value as R;
    } catch (error) {
      throw this.#explain(error, request.method, request.path, call);
    } finally {
      call.end();
    }
  }

  /** A kept connection may have been closed by the server just now; a GET is then sent once more, on a new one. */
  async #sendAgain(request: Request, call: Call): Promise<http.IncomingMessage> {
    try {
      return await this.#send(request, call);
    } catch (error) {
      if (!(error instanceof StaleConnection) || request.method !== 'GET') throw error;
      return this.#send(request, call);
    }
  }

  async #send(request: Request, call: Call): Promise<http.IncomingMessage> {
    const body = request.body === undefined ? undefined : Buffer.from(JSON.stringify(request.body));
    const headers: http.OutgoingHttpHeaders = { accept: 'application/json', 'user-agent': this.#userAgent };
    if (body) {
      headers['content-type'] = request.contentType ?? 'application/json';
      headers['content-length'] = body.length;
    }
    const token = await this.#bearer();
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>();
    const client = (this.#base.protocol === 'http:' ? http : https).request({
      host: this.#base.hostname.replace(/^\[|\]$/g, ''),
      port: this.#base.port || (this.#base.protocol === 'http:' ? 80 : 443),
      method: request.method,
      path: request.path,
      headers,
      agent: this.#agent,
      signal: call.signal,
    });
    client.on('socket', (socket) => socket.setKeepAlive(true, KEEPALIVE_SECONDS * 1000));
    client.on('response', resolve);
    client.on('error', (error: NodeJS.ErrnoException) => {
      const stale = client.reusedSocket && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
      reject(stale && !call.signal.aborted ? new StaleConnection(error.message, { cause: error }) : error);
    });
    client.end(body);
    return promise;
  }

  async #bearer(): Promise<string | undefined> {
    const { token, tokenFile } = this.#access;
    if (tokenFile === undefined) return token;
    if (!this.#token || this.#token.until < Date.now()) {
      const value = (await readFile(tokenFile, 'utf8')).trim();
      this.#token = { value, until: Date.now() + TOKEN_MS };
    }
    return this.#token.value;
  }

  async #body(response: http.IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    let length = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > this.#maxBodyBytes) {
        throw new WeftError('WEFT_API_MALFORMED', `the answer exceeds ${this.#maxBodyBytes} bytes`);
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks, length).toString('utf8');
  }

  /** The server's Status, or one made of what a proxy or another server said instead. */
  async #refusal(response: http.IncomingMessage, call: Call): Promise<ApiError> {
    const text = await this.#body(response);
    call.answered();
    const code = response.statusCode!;
    let status: Status = {
      apiVersion: 'v1',
      kind: 'Status',
      metadata: {},
      status: 'Failure',
      message: `HTTP ${code}: ${excerpt(text)}`,
      code,
    };
    try {
      const value = JSON.parse(text) as Partial<Status> | null;
      if (value?.kind === 'Status') status = { ...status, ...value, code: value.code ?? code };
    } catch {
      // not JSON: the excerpt says what it was
    }
    const retryAfter = Number(response.headers['retry-after']);
    if (response.headers['retry-after'] !== undefined && Number.isFinite(retryAfter)) {
      status.details = { retryAfterSeconds: retryAfter, ...status.details };
    }
    return new ApiError(status);
  }

  #explain(error: unknown, method: string, path: string, call: Call): unknown {
    if (error instanceof ApiError) return error;
    if (call.signal.aborted && !call.timedOut) return call.signal.reason;
    const what = `${method} ${this.#base.origin}${path.replace(/\?.*/, '')}`;
    if (error instanceof WeftError) {
      return new WeftError(error.code, `${what}: ${error.message}`, {
        cause: error.cause,
        details: error.details,
      });
    }
    const code = (error as NodeJS.ErrnoException).code;
    const reason = call.timedOut
      ? `no answer within ${this.#timeoutMs} ms`
      : messageOf(error) || code || 'failed';
    return new WeftError('WEFT_API_UNREACHABLE', `${what}: ${reason}`, {
      cause: error,
      details: { server: this.#base.origin, ...(code !== undefined && { code }) },
    });
  }
}

class StaleConnection extends Error {}

/** What can end one request early: its deadline, its caller, the client's end. */
class Call {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #sources: AbortSignal[];
  readonly #onAbort: (event: globalThis.Event) => void;
  timedOut = false;

  constructor(timeoutMs: number, sources: Array<AbortSignal | undefined>) {
    this.#timer = setTimeout(() => {
      this.timedOut = true;
      this.#controller.abort();
    }, timeoutMs);
    this.#onAbort = (event) => this.#controller.abort((event.target as AbortSignal).reason);
    // Not AbortSignal.any: its dependents stay with a long-lived source, and every request would leave one behind.
    this.#sources = sources.filter((source) => source !== undefined);
    for (const source of this.#sources) {
      if (source.aborted) this.#controller.abort(source.reason);
      else source.addEventListener('abort', this.#onAbort, { once: true });
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The deadline is met. */
  answered(): void {
    clearTimeout(this.#timer);
  }

  /** Nothing of the request is needed any more; an unfinished answer is cut off. */
  end(): void {
    clearTimeout(this.#timer);
    for (const source of this.#sources) source.removeEventListener('abort', this.#onAbort);
    this.#controller.abort();
  }
}

function query(options: WatchOptions & { watch?: boolean }): string {
  const { watch, labelSelector, fieldSelector, resourceVersion, limit, timeoutSeconds, allowWatchBookmarks } =
    options;
  const params = new URLSearchParams();
  const given = {
    watch,
    labelSelector,
    fieldSelector,
    resourceVersion,
    limit,
    continue: options.continue,
    timeoutSeconds,
    allowWatchBookmarks,
  };
  for (const [name, value] of Object.entries(given)) if (value !== undefined) params.set(name, String(value));
  const text = params.toString();
  return text && `?${text}`;
}

function excerpt(text: string): string {
  const line = text.replace(/\s+/g, ' ').trim();
  return line.length > 200 ? `${line.slice(0, 200)}…` : line || '(empty)';
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new WeftError('WEFT_API_MALFORMED', `not JSON: ${excerpt(text)}`, { cause: error });
  }
}

const EVENT_TYPES: ReadonlySet<unknown> = new Set(['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR']);

function parseEvent<T>(line: string): WatchEvent<T> {
  const value = parseJson(line) as Partial<WatchEvent<T>> | null;
  const wellFormed =
    EVENT_TYPES.has(value?.type) && typeof value?.object === 'object' && value.object !== null;
  if (!wellFormed) throw new WeftError('WEFT_API_MALFORMED', `not a watch event: ${excerpt(line)}`);
  return value as WatchEvent<T>;
}
