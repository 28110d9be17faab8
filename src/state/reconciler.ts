/**
 * Makes a target hold what a table desires, and keeps it so: changes as they come, failures again after a while, and
 * now and then everything compared with everything.
 *
 *   desired table ─ changes ─▶ work (by key) ─ due ─▶ deletes, classes descending
 *                                  ▲                  updates, classes ascending ─▶ outcomes ─▶ done │ retry later
 *                                  └───────────────────────────────────────────────────────────────┘
 *   timer, pruneNow() ───────────────────────────────▶ prune (alone)
 *
 * Nothing is touched before the desired table is complete (`synced`); then the first pass is a prune, so that a
 * restart adopts what it finds and changes only what differs. Deletes go before updates: what goes frees the names,
 * addresses and numbers that what comes may need.
 */
import { backoffDelay } from '../base/backoff.ts';
import type { Clock } from '../base/clock.ts';
import { isWeftError, messageOf, WeftError } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import { MemoryTable } from './memory-table.ts';
import type { ObjectStatus, Operations, Outcome, PruneReport } from './operations.ts';
import type { Change, ReadTable } from './table.ts';

export interface ReconcilerOptions<T> {
  /** For logs and the status table. */
  name: string;
  desired: ReadTable<T>;
  operations: Operations<T>;
  /** Resolves when `desired` is complete; default: it is. */
  synced?: Promise<unknown>;
  /**
   * Order class of a row: lower ones are updated before and deleted after higher ones (links 0, addresses 1, routes
   * 2). Default: all the same.
   */
  orderOf?: (row: T) => number;
  clock: Clock;
  logger: Logger;
  /** Delays between attempts at one object, milliseconds; default 100 to 30 000. */
  retry?: { min: number; max: number };
  /** Milliseconds between full comparisons, ±10 %; default 60 000; Infinity: only on request. */
  pruneIntervalMs?: number;
  /** Rows per call of the target; default 512. */
  batchSize?: number;
  /** Calls under way at once within an order class; default 1. */
  concurrency?: number;
  /** Hears of each completed prune that found something. */
  onPruned?: (report: PruneReport) => void;
  random?: () => number;
}

/** What is to be done about one key. Replaced, never changed, when the desired row changes. */
interface Work<T> {
  readonly key: string;
  readonly row: T;
  readonly deleting: boolean;
  attempts: number;
  /** Milliseconds since the epoch. */
  dueAt: number;
  /** A call about it is under way. */
  begun?: boolean;
  /** The target was changed after that call began: once more, then. */
  again?: boolean;
}

export class Reconciler<T> {
  /** Status of every desired row, and of rows being deleted until they are gone. */
  readonly statuses: ReadTable<ObjectStatus>;
  /**
   * Resolves when the first full pass is done. Rows that failed in it do not hold it up: they are in `statuses`, and
   * tried again. Rejects with WEFT_CLOSED if closed before.
   */
  readonly ready: Promise<void>;

  readonly #options: ReconcilerOptions<T>;
  readonly #statuses: MemoryTable<ObjectStatus>;
  readonly #work = new Map<string, Work<T>>();
  /** What the target is known to hold. A row is forgotten while a call about it is under way. */
  readonly #applied = new Map<string, T>();
  readonly #subscription: Disposable;
  readonly #loop: Promise<void>;
  readonly #readiness = Promise.withResolvers<void>();
  readonly #closing = new AbortController();
  #waiting: AbortController | undefined;
  #woken = false;
  #passed = false;
  #nextPruneAt = 0;
  #pruneFailures = 0;
  /** Keys whose repair was asked for while a prune was under way, which may have looked at them before; else undefined. */
  #sincePrune: Set<string> | undefined;
  #pruneRequests: Array<PromiseWithResolvers<PruneReport>> = [];
  #errors = 0;

  constructor(options: ReconcilerOptions<T>) {
    this.#options = options;
    this.#statuses = new MemoryTable(`${options.name} status`, (row) => row.key);
    this.statuses = this.#statuses;
    this.ready = this.#readiness.promise;
    this.ready.catch(() => {}); // it is no fault to close without anybody waiting
    this.#subscription = options.desired.subscribe((changes) => this.#take(changes), { initial: true });
    this.#loop = this.#run();
  }

  get isReady(): boolean {
    return this.#passed;
  }

  /** Rows in state `error`. */
  get errorCount(): number {
    return this.#errors;
  }

  /** Rows not yet as desired, failed ones included. */
  get backlog(): number {
    return this.#work.size;
  }

  /** Compare everything now. Several requests before it starts are one. Rejects if the target could not be looked at. */
  pruneNow(): Promise<PruneReport> {
    if (this.#closing.signal.aborted) return Promise.reject(this.#closedError());
    const request = Promise.withResolvers<PruneReport>();
    this.#pruneRequests.push(request);
    this.#wake();
    return request.promise;
  }

  /**
   * Apply these rows again although they did not change: somebody else changed the target. Unknown keys are ignored; what
   * waits for its next attempt goes on waiting; what is being applied or compared right now is applied once more.
   */
  repair(keys: Iterable<string>): void {
    for (const key of keys) {
      const row = this.#options.desired.get(key);
      if (row === undefined) continue;
      this.#applied.delete(key);
      this.#sincePrune?.add(key);
      const work = this.#work.get(key);
      if (work) work.again = work.begun === true;
      else {
        this.#enqueue(key, row, false);
        this.#wake();
      }
    }
  }

  /** Ends after the call that is under way; begins none. Idempotent. */
  async close(): Promise<void> {
    if (!this.#closing.signal.aborted) {
      this.#subscription[Symbol.dispose]();
      this.#closing.abort(this.#closedError());
      this.#wake();
    }
    await this.#loop;
  }

  #closedError(): WeftError {
    return new WeftError('WEFT_CLOSED', `reconciler ${this.#options.name} is closed`);
  }

  #take(changes: Change<T>[]): void {
    for (const { key, old, new: now } of changes) {
      if (now === undefined) this.#enqueue(key, this.#applied.get(key) ?? old!, true);
      else if (this.#applied.get(key) === now) {
        this.#work.delete(key);
        this.#report(key, 'done');
      } else this.#enqueue(key, now, false);
    }
    this.#wake();
  }

  #enqueue(key: string, row: T, deleting: boolean): void {
    this.#work.set(key, { key, row, deleting, attempts: 0, dueAt: this.#options.clock.now() });
    this.#report(key, 'pending', { deleting });
  }

  async #run(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#closing.signal.addEventListener('abort', () => resolve(), { once: true });
    });
    await Promise.race([this.#options.synced, closed]);
    while (!this.#closing.signal.aborted) {
      // The very first pass is the full one; should it fail, single changes do not wait for it to succeed.
      if (this.#passed || !this.#pruneIsDue()) await this.#applyDue();
      if (this.#pruneIsDue() && !this.#closing.signal.aborted) await this.#prune();
      await this.#idle();
    }
    for (const request of this.#pruneRequests.splice(0)) request.reject(this.#closedError());
    if (!this.#passed) this.#readiness.reject(this.#closedError());
  }

  #wake(): void {
    this.#woken = true;
    this.#waiting?.abort('woken'); // a reason of our own costs no stack trace
  }

  async #idle(): Promise<void> {
    let next = this.#nextPruneAt;
    for (const work of this.#work.values()) if (work.dueAt < next) next = work.dueAt;
    const delay = next - this.#options.clock.now();
    if (!this.#woken && delay > 0) {
      this.#waiting = new AbortController();
      // setTimeout's longest delay is 2³¹−1 ms; waking early is harmless.
      const sleep = this.#options.clock.sleep(Math.min(delay, 0x7fffffff), this.#waiting.signal);
      await sleep.catch(() => {});
      this.#waiting = undefined;
    }
    this.#woken = false;
  }

  #pruneIsDue(): boolean {
    return this.#pruneRequests.length > 0 || this.#options.clock.now() >= this.#nextPruneAt;
  }

  async #applyDue(): Promise<void> {
    const now = this.#options.clock.now();
    const orderOf = this.#options.orderOf ?? (() => 0);
    const deletes = new Map<number, Work<T>[]>();
    const updates = new Map<number, Work<T>[]>();
    for (const work of this.#work.values()) {
      if (work.dueAt > now) continue;
      const classes = work.deleting ? deletes : updates;
      const order = orderOf(work.row);
      const sameOrder = classes.get(order);
      if (sameOrder) sameOrder.push(work);
      else classes.set(order, [work]);
    }
    for (const order of [...deletes.keys()].sort((a, b) => b - a)) {
      await this.#applyClass(deletes.get(order)!, (rows) => this.#options.operations.delete(rows));
    }
    for (const order of [...updates.keys()].sort((a, b) => a - b)) {
      await this.#applyClass(updates.get(order)!, (rows) => this.#options.operations.update(rows));
    }
  }

  /** Batches of one order class, up to `concurrency` at once. */
  async #applyClass(works: Work<T>[], operation: (rows: T[]) => Promise<Outcome[]>): Promise<void> {
    const { batchSize = 512, concurrency = 1 } = this.#options;
    let next = 0;
    const worker = async (): Promise<void> => {
      while (next < works.length && !this.#closing.signal.aborted) {
        // What has been superseded since the round began is left to the next round.
        const batch = works.slice(next, next + batchSize).filter((work) => this.#work.get(work.key) === work);
        next += batchSize;
        if (batch.length > 0) await this.#applyBatch(batch, operation);
      }
    };
    await Promise.all(Array.from({ length: concurrency }, worker));
  }

  async #applyBatch(batch: Work<T>[], operation: (rows: T[]) => Promise<Outcome[]>): Promise<void> {
    for (const work of batch) {
      this.#applied.delete(work.key);
      work.begun = true;
    }
    let outcomes: Outcome[];
    try {
      outcomes = await operation(batch.map((work) => work.row));
      if (outcomes.length !== batch.length) {
        throw new WeftError('WEFT_INTERNAL', `${outcomes.length} outcomes for ${batch.length} rows`);
      }
    } catch (error) {
      outcomes = batch.map(() => ({ error }));
    }
    batch.forEach((work, i) => {
      const { error } = outcomes[i]!;
      work.begun = false;
      if (error !== undefined) this.#failed(work, error);
      else this.#succeeded(work);
    });
  }

  #succeeded(work: Work<T>): void {
    const { key } = work;
    if (!work.deleting && !work.again) this.#applied.set(key, work.row);
    if (this.#work.get(key) !== work) return;
    if (work.again) {
      this.#enqueue(key, work.row, work.deleting);
      return;
    }
    this.#work.delete(key);
    this.#report(key, work.deleting ? undefined : 'done');
  }

  #failed(work: Work<T>, error: unknown): void {
    const { key } = work;
    if (this.#work.get(key) !== work) return;
    work.again = false; // tried once more in any case
    work.attempts++;
    work.dueAt = this.#options.clock.now() + this.#retryDelay(work.attempts);
    const code = isWeftError(error) ? error.code : 'WEFT_INTERNAL';
    const message = messageOf(error);
    this.#report(key, 'error', { ...work, error: { code, message } });
    const level = work.attempts === 1 ? 'warn' : 'debug';
    this.#options.logger[level](
      { key, code, message, attempts: work.attempts },
      work.deleting ? 'could not delete; will try again' : 'could not apply; will try again',
    );
  }

  #retryDelay(attempts: number): number {
    const { retry = { min: 100, max: 30_000 }, random = Math.random } = this.#options;
    return backoffDelay(attempts, { ...retry, random });
  }

  async #prune(): Promise<void> {
    const {
      clock,
      desired,
      logger,
      operations,
      pruneIntervalMs = 60_000,
      random = Math.random,
    } = this.#options;
    const requests = this.#pruneRequests.splice(0);
    const snapshot = new Map<string, T>();
    for (const key of desired.keys()) snapshot.set(key, desired.get(key)!);
    this.#applied.clear();
    this.#sincePrune = new Set();
    let report: PruneReport;
    try {
      report = await operations.prune(snapshot);
    } catch (error) {
      this.#sincePrune = undefined;
      this.#nextPruneAt = clock.now() + this.#retryDelay(++this.#pruneFailures);
      logger.error({ err: error, attempts: this.#pruneFailures }, 'full comparison failed; will try again');
      for (const request of requests) request.reject(error);
      return;
    }
    const strays = this.#settle(snapshot, report);
    const changedMeanwhile = this.#sincePrune;
    this.#sincePrune = undefined;
    this.repair(changedMeanwhile);
    if (strays.length === 0) {
      this.#pruneFailures = 0;
      this.#nextPruneAt = clock.now() + pruneIntervalMs * (0.9 + 0.2 * random());
    } else {
      this.#nextPruneAt = clock.now() + Math.min(pruneIntervalMs, this.#retryDelay(++this.#pruneFailures));
      logger.warn(
        { strays: strays.slice(0, 10), count: strays.length },
        'could not remove strays; will try again',
      );
    }
    if (!this.#passed) {
      this.#passed = true;
      this.#readiness.resolve();
    }
    if (report.changes.length > 0 || report.errors.length > 0) this.#options.onPruned?.(report);
    for (const request of requests) request.resolve(report);
  }

  /** Bring work and statuses up to what a prune of `snapshot` reported; returns failures that no row answers for. */
  #settle(snapshot: ReadonlyMap<string, T>, report: PruneReport): string[] {
    const errors = new Map(report.errors.map(({ key, error }) => [key, error]));
    for (const [key, row] of snapshot) {
      const work = this.#work.get(key);
      if (errors.has(key)) {
        if (!work) this.#enqueue(key, row, false);
        const current = this.#work.get(key)!;
        if (current.row === row && !current.deleting) this.#failed(current, errors.get(key));
      } else {
        this.#applied.set(key, row);
        if (work === undefined ? !this.#statuses.has(key) : work.row === row && !work.deleting) {
          this.#work.delete(key);
          this.#report(key, 'done');
        }
      }
    }
    for (const work of this.#work.values()) {
      if (!work.deleting || snapshot.has(work.key)) continue;
      if (errors.has(work.key)) this.#failed(work, errors.get(work.key));
      else this.#succeeded(work);
    }
    return [...errors.keys()].filter((key) => !snapshot.has(key) && !this.#work.has(key));
  }

  #report(
    key: string,
    state: ObjectStatus['state'] | undefined,
    more: { deleting?: boolean; attempts?: number; error?: ObjectStatus['error'] } = {},
  ): void {
    const before = this.#statuses.get(key);
    this.#errors += Number(state === 'error') - Number(before?.state === 'error');
    if (state === undefined) {
      this.#statuses.delete(key);
      return;
    }
    this.#statuses.upsert({
      key,
      state,
      since: before?.state === state ? before.since : this.#options.clock.now(),
      attempts: more.attempts ?? 0,
      ...(more.deleting && { deleting: true as const }),
      ...(more.error && { error: more.error }),
    });
  }
}
