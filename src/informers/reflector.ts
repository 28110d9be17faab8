/**
 * Keeps a table equal to a collection of the API.
 *
 *            ┌──────────────── 410 Gone, or nothing to resume from ─────────────────┐
 *            ▼                                                                      │
 *   list pages ─▶ replaceAll ─▶ watch from resourceVersion ─▶ rows                  │
 *            ▲                      ▲        │ ended, cut, silent too long          │
 *      back-off                     └────────┴── back-off unless it did its work ───┘
 *
 * While the server cannot be reached the rows stay: what was true a moment ago beats nothing. A relist changes only
 * what differs. Objects are narrowed as they arrive, page by page: the whole of a large collection is never in memory.
 *
 * Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
 */
import type { ApiClient, Resource } from '../api/client.ts';
import { ApiError, isGone } from '../api/errors.ts';
import { objectKey } from '../api/object-key.ts';
import type { KubeObject, WatchEvent } from '../api/types.ts';
import { backoffDelay } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf, WeftError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { MemoryTable } from '../state/memory-table.ts';

export interface ReflectorOptions<T extends KubeObject, R> {
  client: ApiClient;
  resource: Resource<T>;
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  /** Its key of a row must be `objectKey` of the object. Nobody else writes to it. */
  table: MemoryTable<R>;
  /** What of an object the table holds; undefined: nothing. Pure. */
  map: (object: T) => R | undefined;
  clock: Clock;
  logger: Logger;
  /** Objects per page of a list; default 500. */
  pageSize?: number;
  /** Delays after failures, milliseconds; default 200 to 30 000. */
  backoff?: { min: number; max: number };
  /** The server ends a watch after about this long, and we do if it does not; default 300. */
  watchSeconds?: number;
  /**
   * A watch that says nothing for so long is taken up again from where it was; default 90. Bookmarks count, and
   * Kubernetes sends one a minute; a peer that vanished is found earlier, by TCP keep-alive.
   */
  silenceSeconds?: number;
  random?: () => number;
  /** The server answers again after a failure. */
  onReconnect?: () => void;
}

export interface Reflector {
  /** Resolves when the table first held all that the server had. Rejects with WEFT_CLOSED if closed before. */
  readonly synced: Promise<void>;
  readonly isSynced: boolean;
  /** Synced, and the last exchange with the server was no failure. */
  readonly connected: boolean;
  readonly lastError: Error | undefined;
  /** resourceVersion that the table stands at; undefined before the first list. */
  readonly resourceVersion: string | undefined;
  /** Totals since the start, for metrics. */
  readonly counts: Readonly<{ lists: number; watches: number; events: number; failures: number }>;
  /** The server may be there again: ends a wait after a failure, unless the server asked for it; the next one is short. */
  retryNow(): void;
  /** Ends the watch; the rows stay. Idempotent. */
  close(): Promise<void>;
}

export function startReflector<T extends KubeObject, R>(options: ReflectorOptions<T, R>): Reflector {
  return new ListWatch(options);
}

/** The collection cannot be resumed and must be listed again. */
class Relist extends Error {}

/** Refusals of a watch in a row, after which the server is asked for everything: it may have been set up anew. */
const REFUSALS = 3;

class ListWatch<T extends KubeObject, R> implements Reflector {
  readonly counts = { lists: 0, watches: 0, events: 0, failures: 0 };
  readonly synced: Promise<void>;
  isSynced = false;
  lastError: Error | undefined;
  resourceVersion: string | undefined;

  readonly #options: ReflectorOptions<T, R>;
  readonly #syncing = Promise.withResolvers<void>();
  readonly #closing = new AbortController();
  readonly #loop: Promise<void>;
  /** Ends a back-off that nobody but we decided on. */
  #waiting: AbortController | undefined;
  /** Failures since a watch last brought something or lived for a while; a list alone is no proof. */
  #attempts = 0;

  constructor(options: ReflectorOptions<T, R>) {
    this.#options = options;
    this.synced = this.#syncing.promise;
    this.synced.catch(() => {}); // it is no fault to close without anybody waiting
    this.#loop = this.#run();
  }

  get connected(): boolean {
    return this.isSynced && this.lastError === undefined;
  }

  retryNow(): void {
    this.#attempts = 0;
    this.#waiting?.abort();
  }

  async close(): Promise<void> {
    this.#closing.abort(
      new WeftError('WEFT_CLOSED', `the reflector of ${this.#options.resource.plural} is closed`),
    );
    await this.#loop;
  }

  async #run(): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      try {
        if (this.resourceVersion === undefined) await this.#list();
        else await this.#watch();
      } catch (error) {
        if (signal.aborted) break;
        if (error instanceof Relist || isGone(error)) {
          this.#options.logger.info({ reason: messageOf(error) }, 'listing again');
          this.resourceVersion = undefined;
          // The first relist is at once; a server that refuses what it has just listed gets time.
          if (this.#attempts++ > 0) await this.#pause(error);
        } else {
          // Too busy, or not for us: a list would fare no better.
          const telling = error instanceof ApiError && ![401, 403, 429].includes(error.code);
          if (telling && this.#attempts + 1 >= REFUSALS) this.resourceVersion = undefined;
          await this.#failed(error);
        }
      }
    }
    if (!this.isSynced) this.#syncing.reject(signal.reason);
  }

  async #failed(error: unknown): Promise<void> {
    this.counts.failures++;
    this.#attempts++;
    this.lastError = error instanceof Error ? error : new Error(messageOf(error));
    const level = this.#attempts === 1 || this.#attempts % 10 === 0 ? 'warn' : 'debug';
    this.#options.logger[level](
      { resource: this.#options.resource.plural, error: messageOf(error), attempts: this.#attempts },
      'list or watch failed; will try again',
    );
    await this.#pause(error);
  }

  /** Back-off, or what the server asked for if that is longer (Retry-After; an hour at most). */
  async #pause(error: unknown): Promise<void> {
    const { clock, backoff = { min: 200, max: 30_000 }, random = Math.random } = this.#options;
    const asked = error instanceof ApiError ? (error.status.details?.retryAfterSeconds ?? 0) * 1000 : 0;
    const delay = Math.max(
      Math.min(asked, 3_600_000),
      backoffDelay(Math.max(1, this.#attempts), { ...backoff, random }),
    );
    const waiting = new AbortController();
    if (asked === 0) this.#waiting = waiting;
    await clock.sleep(delay, AbortSignal.any([this.#closing.signal, waiting.signal])).catch(() => {});
    this.#waiting = undefined;
  }

  #answered(): void {
    const again = this.lastError !== undefined;
    this.lastError = undefined;
    if (again) this.#options.onReconnect?.();
  }

  async #list(): Promise<void> {
    const { client, resource, table, pageSize = 500 } = this.#options;
    this.counts.lists++;
    const rows: R[] = [];
    let page: string | undefined;
    let first: string | undefined;
    do {
      const list = await client.list(resource, {
        ...this.#selection(),
        limit: pageSize,
        ...(page !== undefined && { continue: page }),
        signal: this.#closing.signal,
      });
      const version = list.metadata?.resourceVersion;
      if (!version || !Array.isArray(list.items)) {
        throw new WeftError(
          'WEFT_API_MALFORMED',
          `the list of ${resource.plural} has no resourceVersion or items`,
        );
      }
      for (const object of list.items) {
        const row = this.#rowOf(object);
        if (row !== undefined) rows.push(row);
      }
      // Should later pages be newer than the first, the watch brings what came between.
      first ??= version;
      page = list.metadata.continue || undefined;
    } while (page !== undefined);
    table.replaceAll(rows);
    this.resourceVersion = first;
    this.#answered();
    if (!this.isSynced) {
      this.isSynced = true;
      this.#syncing.resolve();
    }
  }

  async #watch(): Promise<void> {
    const {
      client,
      resource,
      clock,
      watchSeconds = 300,
      silenceSeconds = 90,
      random = Math.random,
    } = this.#options;
    this.counts.watches++;
    const stop = new AbortController();
    const onClose = (): void => stop.abort();
    this.#closing.signal.addEventListener('abort', onClose, { once: true });
    const began = clock.now();
    // Spread, so that the watches of many agents do not end together.
    const seconds = Math.ceil(watchSeconds * (0.5 + random()));
    let heardAt = began;
    let silent = false;
    const guard = async (): Promise<void> => {
      const end = began + (seconds + 10) * 1000;
      while (!stop.signal.aborted) {
        const until = Math.min(heardAt + silenceSeconds * 1000, end);
        if (clock.now() >= until) {
          silent = true;
          stop.abort();
        } else await clock.sleep(until - clock.now(), stop.signal).catch(() => {});
      }
    };
    const guarding = guard();
    let events = 0;
    try {
      const watch = client.watch(resource, {
        ...this.#selection(),
        resourceVersion: this.resourceVersion!,
        allowWatchBookmarks: true,
        timeoutSeconds: seconds,
        signal: stop.signal,
        onOpen: () => this.#answered(),
      });
      for await (const event of watch) {
        heardAt = clock.now();
        this.#take(event);
        if (++events > 1) continue;
        this.#attempts = 0;
        this.#answered();
      }
    } finally {
      stop.abort();
      this.#closing.signal.removeEventListener('abort', onClose);
      await guarding;
    }
    if (this.#closing.signal.aborted) return;
    if (silent)
      this.#options.logger.debug({ resource: resource.plural }, 'the watch was silent; taking it up again');
    if (events > 0) return;
    if (silent || clock.now() - began >= 5000) this.#attempts = 0;
    else {
      // A server that ends every watch at once must not be asked in a circle. It is no failure yet, though.
      this.#attempts++;
      await this.#pause(undefined);
    }
  }

  #take(event: WatchEvent<T>): void {
    if (event.type === 'ERROR') {
      const status = event.object;
      if (status.code === 410 || status.reason === 'Expired' || status.reason === 'Gone') {
        throw new Relist(status.message ?? 'the server no longer has the changes since our version');
      }
      throw new ApiError(status);
    }
    const { object } = event;
    const version = object.metadata?.resourceVersion;
    if (!version || (event.type !== 'BOOKMARK' && !object.metadata.name)) {
      throw new WeftError('WEFT_API_MALFORMED', `a ${event.type} event without name or resourceVersion`);
    }
    // Events come in order of their version; what is older has been seen, and must not overwrite what is newer.
    if (compareVersions(version, this.resourceVersion!) < 0) return;
    this.resourceVersion = version;
    if (event.type === 'BOOKMARK') return;
    this.counts.events++;
    const { table } = this.#options;
    const row = event.type === 'DELETED' ? undefined : this.#rowOf(object);
    if (row === undefined) table.delete(objectKey(object));
    else table.upsert(row);
  }

  #rowOf(object: T): R | undefined {
    const { logger, map, table } = this.#options;
    const key = objectKey(object);
    let row: R | undefined;
    try {
      row = map(object);
    } catch (error) {
      // One object that is not as its kind says must not keep all others from us.
      logger.error({ resource: table.name, key, error: messageOf(error) }, 'a malformed object is left out');
      return undefined;
    }
    if (row !== undefined && table.keyOf(row) !== key) {
      throw new WeftError('WEFT_INTERNAL', `rows of ${table.name} are not keyed by objectKey: ${key}`);
    }
    return row;
  }

  #selection(): { namespace?: string; labelSelector?: string; fieldSelector?: string } {
    const { namespace, labelSelector, fieldSelector } = this.#options;
    return {
      ...(namespace !== undefined && { namespace }),
      ...(labelSelector !== undefined && { labelSelector }),
      ...(fieldSelector !== undefined && { fieldSelector }),
    };
  }
}

const DECIMAL = /^[1-9][0-9]*$/;

/**
 * Order of resourceVersions of one resource: decimal numbers of any size (KEP-5504). Any other form is opaque, and then
 * all count as the same.
 */
export function compareVersions(a: string, b: string): number {
  if (!DECIMAL.test(a) || !DECIMAL.test(b)) return 0;
  if (a.length !== b.length) return a.length - b.length;
  return a < b ? -1 : a > b ? 1 : 0;
}
