/**
 * Tells users what happened, as Kubernetes Events (core/v1): `kubectl describe` shows them at the object they are about.
 *
 * As in Kubernetes' own recorder, the same thing happening again counts up one Event; many alike with different words
 * become one; and an object about which too much is said is heard less often. Telling never blocks, never throws, and
 * is given up when the server refuses it: nothing may depend on Events.
 */
import { type ApiClient, EVENTS } from '../api/client.ts';
import { ApiError, isAlreadyExists, isNotFound } from '../api/errors.ts';
import type { Event, KubeObject, ObjectReference } from '../api/types.ts';
import { backoffDelay } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

export interface EventRecorderOptions {
  client: ApiClient;
  /** Who speaks, e.g. `weft-agent`. */
  component: string;
  /** Node on which it speaks. */
  host?: string;
  clock: Clock;
  logger: Logger;
  random?: () => number;
}

export type EventType = 'Normal' | 'Warning';

/** Distinct messages of one reason about one object within {@link SIMILAR_MS}, beyond which they are combined. */
const SIMILAR_LIMIT = 10;
const SIMILAR_MS = 10 * 60_000;
/** Events about one object: so many at once, then one per REFILL_MS (Kubernetes' spam filter). */
const BURST = 25;
const REFILL_MS = 5 * 60_000;
/** Remembered events and objects; the ones used longest ago are forgotten. */
const CACHE_SIZE = 1024;
/** Events that wait for the server; of more the oldest are dropped. */
const QUEUE_SIZE = 256;
const ATTEMPTS = 8;
/** What Kubernetes takes of a message at most (core/v1 Event). */
const MESSAGE_LENGTH = 1024 - '(combined from similar events): '.length;

interface Told {
  event: Event;
  /** What the server has; undefined: nothing yet. */
  stored: number | undefined;
}

export class EventRecorder {
  /** Events that were not told: too many, or refused. For metrics. */
  dropped = 0;
  readonly #options: EventRecorderOptions;
  readonly #told = new Cache<Told>();
  readonly #similar = new Cache<{ since: number; messages: Set<string> }>();
  readonly #buckets = new Cache<{ tokens: number; at: number }>();
  readonly #queue = new Set<Told>();
  readonly #closing = new AbortController();
  #writing: Promise<void> | undefined;
  #serial = 0;

  constructor(options: EventRecorderOptions) {
    this.#options = options;
  }

  /**
   * @param reason One CamelCase word, the same for everything that is counted and searched together.
   * @param host Node it happened on, for who speaks of several.
   */
  event(
    about: ObjectReference,
    type: EventType,
    reason: string,
    message: string,
    host = this.#options.host,
  ): void {
    if (this.#closing.signal.aborted) return;
    const now = this.#options.clock.now();
    const object = [about.kind, about.namespace ?? '', about.name, about.uid ?? ''].join('/');
    const text = this.#combined(`${object} ${type} ${reason}`, message.slice(0, MESSAGE_LENGTH), now);
    const key = `${object} ${type} ${reason} ${text.key}`;
    let told = this.#told.get(key);
    const allowed = this.#allowed(object, now);
    if (!told && !allowed) {
      this.dropped++;
      return;
    }
    const time = new Date(now).toISOString().replace(/\.\d+Z$/, 'Z');
    if (told) {
      told.event = {
        ...told.event,
        count: (told.event.count ?? 0) + 1,
        lastTimestamp: time,
        message: text.message,
      };
    } else
      told = { event: this.#make(about, type, reason, text.message, host, time, now), stored: undefined };
    this.#told.set(key, told);
    if (!allowed) return; // counted; the server hears of it with the next one that is allowed
    this.#queue.add(told);
    if (this.#queue.size > QUEUE_SIZE) {
      for (const oldest of this.#queue) {
        this.#queue.delete(oldest);
        this.dropped++;
        break;
      }
    }
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
  }

  /** Resolves when everything said so far was told or given up. */
  async flush(): Promise<void> {
    while (this.#writing) await this.#writing;
  }

  /** Says no more; tells what waits if the server answers at once. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.flush();
  }

  #combined(group: string, message: string, now: number): { key: string; message: string } {
    let similar = this.#similar.get(group);
    if (!similar || now - similar.since > SIMILAR_MS) similar = { since: now, messages: new Set() };
    this.#similar.set(group, similar);
    if (similar.messages.size >= SIMILAR_LIMIT && !similar.messages.has(message)) {
      return { key: '(combined)', message: `(combined from similar events): ${message}` };
    }
    similar.messages.add(message);
    return { key: message, message };
  }

  #allowed(object: string, now: number): boolean {
    const bucket = this.#buckets.get(object) ?? { tokens: BURST, at: now };
    const tokens = Math.min(BURST, bucket.tokens + (now - bucket.at) / REFILL_MS);
    this.#buckets.set(object, { tokens: Math.max(0, tokens - 1), at: now });
    return tokens >= 1;
  }

  #make(
    about: ObjectReference,
    type: EventType,
    reason: string,
    message: string,
    host: string | undefined,
    time: string,
    now: number,
  ): Event {
    const { component } = this.#options;
    return {
      apiVersion: 'v1',
      kind: 'Event',
      // Events about what has no namespace stand in `default`, where kubectl looks for them.
      metadata: { name: this.#name(about.name ?? '', now), namespace: about.namespace || 'default' },
      involvedObject: about,
      type,
      reason,
      message,
      count: 1,
      firstTimestamp: time,
      lastTimestamp: time,
      source: { component, ...(host !== undefined && { host }) },
      reportingComponent: component,
      reportingInstance: host ?? '',
    };
  }

  /** `<object>.<nanoseconds, hexadecimal>`, as Kubernetes names them; the last digits are a serial number here. */
  #name(object: string, now: number): string {
    const nanos = BigInt(Math.trunc(now)) * 1_000_000n + BigInt(this.#serial++ % 1_000_000);
    return `${object}.${nanos.toString(16)}`;
  }

  async #write(): Promise<void> {
    await null; // what is said in one go is counted before it is told
    let attempts = 0;
    for (;;) {
      const [told] = this.#queue;
      if (!told) return;
      this.#queue.delete(told);
      try {
        await this.#tell(told);
        attempts = 0;
      } catch (error) {
        const refused = error instanceof ApiError && error.code < 500 && error.code !== 429;
        const { clock, logger, random = Math.random } = this.#options;
        if (refused || ++attempts >= ATTEMPTS || this.#closing.signal.aborted) {
          this.dropped++;
          attempts = 0;
          logger.debug({ event: told.event.reason, error: messageOf(error) }, 'an Event was not taken');
          continue;
        }
        this.#queue.add(told);
        const delay = backoffDelay(attempts, { min: 200, max: 10_000, random });
        await clock.sleep(delay, this.#closing.signal).catch(() => {});
      }
    }
  }

  async #tell(told: Told): Promise<void> {
    const { client, clock } = this.#options;
    const { event } = told;
    const { name, namespace } = event.metadata;
    if (told.stored !== undefined) {
      const { count, lastTimestamp, message } = event;
      try {
        await client.patch(EVENTS, { name, namespace: namespace! }, { count, lastTimestamp, message });
        told.stored = count;
        return;
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
      // Expired meanwhile: a new one begins to count.
      const since = event.lastTimestamp;
      const renamed = { ...event.metadata, name: this.#name(event.involvedObject.name ?? '', clock.now()) };
      told.event = {
        ...event,
        metadata: renamed,
        count: 1,
        ...(since !== undefined && { firstTimestamp: since }),
      };
    }
    const count = told.event.count ?? 1;
    try {
      await client.create(EVENTS, told.event);
    } catch (error) {
      // After a cut connection: it had arrived.
      if (!isAlreadyExists(error)) throw error;
    }
    told.stored = count;
  }
}

/** What an Event about this object refers to. */
export function referenceTo(object: KubeObject): ObjectReference {
  const { name, namespace, uid } = object.metadata;
  return {
    apiVersion: object.apiVersion,
    kind: object.kind,
    name,
    ...(namespace !== undefined && { namespace }),
    ...(uid !== undefined && { uid }),
  };
}

/** A map that forgets what was used longest ago. */
class Cache<V> {
  readonly #entries = new Map<string, V>();

  get(key: string): V | undefined {
    return this.#entries.get(key);
  }

  set(key: string, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    if (this.#entries.size <= CACHE_SIZE) return;
    for (const oldest of this.#entries.keys()) {
      this.#entries.delete(oldest);
      break;
    }
  }
}
