import { isConflict } from '../api/errors.ts';
import { backoffDelay } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';

/** Failures in a row after which one is worth a warning. A Conflict only says that another writer was faster. */
const TELLING = 3;
const TELLING_CONFLICTS = 8;

export interface WorkQueueOptions {
  /** Looks at what is, and does what is to be done about `key`. A failure is tried again. */
  handle: (key: string) => Promise<void>;
  clock: Clock;
  logger: Logger;
  /** Keys handled at once; default 4. */
  concurrency?: number;
  /** Delays between attempts, milliseconds; default 100 to 60 000. */
  retry?: { min: number; max: number };
  random?: () => number;
}

/**
 * Keys that want attention: each handled by one at a time, again if it was added meanwhile, and again after a while if
 * it failed.
 */
export class WorkQueue {
  readonly #options: WorkQueueOptions;
  /** Key → when it is due, milliseconds since the epoch. */
  readonly #due = new Map<string, number>();
  readonly #attempts = new Map<string, number>();
  /** Those whose failing has been warned of, until they succeed. */
  readonly #told = new Set<string>();
  readonly #running = new Map<string, Promise<void>>();
  #sleeping: { until: number; stop: AbortController } | undefined;
  #closed = false;

  constructor(options: WorkQueueOptions) {
    this.#options = options;
  }

  /** Keys that wait or are being handled. */
  get size(): number {
    return new Set([...this.#due.keys(), ...this.#running.keys()]).size;
  }

  /** Have `key` handled in `delay` milliseconds; of two times the earlier counts. */
  add(key: string, delay = 0): void {
    if (this.#closed) return;
    const at = this.#options.clock.now() + delay;
    const known = this.#due.get(key);
    if (known === undefined || at < known) this.#due.set(key, at);
    this.#pump();
  }

  /** Forgets what waits and ends after what is being handled. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#due.clear();
    this.#sleeping?.stop.abort();
    await Promise.all(this.#running.values());
  }

  #pump(): void {
    const { clock, concurrency = 4 } = this.#options;
    const now = clock.now();
    let next = Number.POSITIVE_INFINITY;
    for (const [key, at] of this.#due) {
      if (this.#running.size >= concurrency) return; // whoever ends pumps again
      if (this.#running.has(key)) continue;
      if (at > now) {
        next = Math.min(next, at);
        continue;
      }
      this.#due.delete(key);
      this.#running.set(key, this.#run(key));
    }
    if (next < (this.#sleeping?.until ?? Number.POSITIVE_INFINITY)) void this.#wakeAt(next);
  }

  async #run(key: string): Promise<void> {
    const { handle, logger, retry = { min: 100, max: 60_000 }, random = Math.random } = this.#options;
    await null; // never inside the stack of whoever adds
    try {
      await handle(key);
      this.#attempts.delete(key);
      this.#told.delete(key);
      this.#running.delete(key);
    } catch (error) {
      const attempts = (this.#attempts.get(key) ?? 0) + 1;
      this.#attempts.set(key, attempts);
      this.#running.delete(key);
      const telling = attempts >= (isConflict(error) ? TELLING_CONFLICTS : TELLING) && !this.#told.has(key);
      if (telling) this.#told.add(key);
      const level = telling ? 'warn' : 'debug';
      logger[level]({ key, attempts, error: messageOf(error) }, 'failed; will try again');
      this.add(key, backoffDelay(attempts, { ...retry, random }));
    }
    if (!this.#closed) this.#pump();
  }

  async #wakeAt(until: number): Promise<void> {
    this.#sleeping?.stop.abort();
    const stop = new AbortController();
    this.#sleeping = { until, stop };
    await this.#options.clock
      .sleep(Math.max(0, until - this.#options.clock.now()), stop.signal)
      .catch(() => {});
    if (stop.signal.aborted) return;
    this.#sleeping = undefined;
    this.#pump();
  }
}
