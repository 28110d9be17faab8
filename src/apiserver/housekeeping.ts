/** What goes on in the server without anyone asking: emptying namespaces that are being deleted, and expiry. */
import type { KindDeclaration } from '../api/kind-declaration.ts';
import { namespaceKind } from '../api/kinds/namespace.ts';
import type { KubeObject, Namespace } from '../api/types.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { Store, StoreWatch } from '../store/store.ts';
import { decodeObject, keyOf, prefixOf } from './object-codec.ts';
import type { Registry } from './registry.ts';

const EXPIRY_INTERVAL_MS = 60_000;
/** A namespace that waits for its pods to end is looked at again after so long, if nothing was deleted meanwhile. */
const RECHECK_MS = 1000;

export interface HousekeepingOptions {
  store: Store;
  kinds: readonly KindDeclaration[];
  registry: (kind: KindDeclaration) => Registry;
  logger: Logger;
}

const namespaces = namespaceKind as unknown as KindDeclaration;

export class Housekeeping {
  readonly #options: HousekeepingOptions;
  readonly #terminating = new Set<string>();
  #watch: StoreWatch | undefined;
  #expiry: NodeJS.Timeout | undefined;
  #recheck: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #again = false;
  #closed = false;

  constructor(options: HousekeepingOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const { store } = this.#options;
    const { entries, revision } = await store.list(prefixOf(namespaces));
    for (const entry of entries) this.#note(decodeObject(entry) as Namespace);
    this.#watch = await store.watch('/registry/', { after: revision }, (events) => {
      for (const event of events) {
        if (event.entry && event.key.startsWith(prefixOf(namespaces)))
          this.#note(decodeObject(event.entry) as Namespace);
        else if (event.type === 'delete' && this.#terminating.size > 0) this.#kick();
      }
    });
    this.#expiry = setInterval(() => void this.#expire(), EXPIRY_INTERVAL_MS);
    this.#expiry.unref();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watch?.close();
    clearInterval(this.#expiry);
    clearTimeout(this.#recheck);
    await this.#running;
  }

  #note(namespace: Namespace): void {
    if (!namespace.metadata.deletionTimestamp) return;
    this.#terminating.add(namespace.metadata.name);
    this.#kick();
  }

  #kick(): void {
    if (this.#closed) return;
    if (this.#running) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#recheck);
    this.#running = this.#empty().finally(() => {
      this.#running = undefined;
      if (this.#again) {
        this.#again = false;
        this.#kick();
      } else if (this.#terminating.size > 0 && !this.#closed)
        this.#recheck = setTimeout(() => this.#kick(), RECHECK_MS);
    });
  }

  async #empty(): Promise<void> {
    for (const name of [...this.#terminating]) {
      try {
        if (await this.#emptyOne(name)) this.#terminating.delete(name);
      } catch (error) {
        this.#options.logger.warn({ namespace: name, err: messageOf(error) }, 'emptying a namespace failed');
      }
    }
  }

  /** True when nothing is left, the namespace itself included. */
  async #emptyOne(name: string): Promise<boolean> {
    const { store, kinds, registry } = this.#options;
    let left = 0;
    for (const kind of kinds.filter((k) => k.namespaced)) {
      for (const { key } of (await store.list(prefixOf(kind, name))).entries) {
        const object = key.slice(key.lastIndexOf('/') + 1);
        const gone = await registry(kind)
          .delete(name, object, {})
          .then(
            (outcome) => outcome.gone,
            (error: { code?: number }) => error.code === 404,
          );
        if (!gone) left++;
      }
    }
    if (left > 0) return false;
    const entry = await store.get(keyOf(namespaces, undefined, name));
    if (!entry) return true;
    const { metadata } = decodeObject(entry);
    if (!metadata.deletionTimestamp) return true;
    // Someone else's finalizers are waited for.
    if (metadata.finalizers?.length) return false;
    return (await store.delete(entry.key, entry.revision)).ok;
  }

  async #expire(): Promise<void> {
    const { store, kinds, logger } = this.#options;
    try {
      for (const kind of kinds) {
        if (kind.ttlSeconds === undefined) continue;
        const oldest = Date.now() - kind.ttlSeconds * 1000;
        for (const entry of (await store.list(prefixOf(kind))).entries)
          if (lastChange(decodeObject(entry)) < oldest) await store.delete(entry.key, entry.revision);
      }
    } catch (error) {
      if (!this.#closed) logger.warn({ err: messageOf(error) }, 'expiry failed');
    }
  }
}

/** The newest of the times that an Event bears. */
function lastChange(object: KubeObject): number {
  const { lastTimestamp, eventTime, series } = object as KubeObject & {
    lastTimestamp?: string;
    eventTime?: string;
    series?: { lastObservedTime?: string };
  };
  const times = [object.metadata.creationTimestamp, lastTimestamp, eventTime, series?.lastObservedTime]
    .map((t) => Date.parse(t ?? ''))
    .filter((t) => !Number.isNaN(t));
  return Math.max(0, ...times);
}
