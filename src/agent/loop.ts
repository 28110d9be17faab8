/**
 * A loop that runs one pass at a time: triggers that come while a pass runs are one more pass after it, a failed pass is
 * tried again with growing delay, and a slow period runs it even when nobody asks.
 */
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';

export interface LoopOptions {
  clock: Clock;
  /** One pass; throwing means it did not succeed and is to be tried again. */
  pass: (signal: AbortSignal) => Promise<void>;
  /** Called with each failure, before the wait. */
  onError: (error: unknown, attempt: number) => void;
  /** Milliseconds to gather triggers before a pass. Default 0. */
  settleMs?: number;
  /** Milliseconds after a good pass until the next one without a trigger. Default: never. */
  periodMs?: number;
  /** Milliseconds: first wait after a failure, doubled up to the maximum. Default 100 and 30000. */
  retryMs?: [first: number, max: number];
}

export class Loop {
  readonly #options: LoopOptions;
  readonly #abort = new AbortController();
  #wanted = false;
  #wake: (() => void) | undefined;
  /** Ends the wait after a failed pass. */
  #retry = new AbortController();
  #passes = 0;
  #lastError: unknown;
  #running: Promise<void> | undefined;
  #waiters: Array<{ after: number; resolve: () => void }> = [];

  constructor(options: LoopOptions) {
    this.#options = options;
  }

  /** What the last pass failed with; undefined after a good one. */
  get lastError(): string | undefined {
    return this.#lastError === undefined ? undefined : messageOf(this.#lastError);
  }

  /** Passes that succeeded. */
  get passes(): number {
    return this.#passes;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  trigger(): void {
    this.#wanted = true;
    this.#wake?.();
  }

  /**
   * What failed may succeed now: ends the wait after a failure, and the next one is the first again; that of the pass that
   * runs, too. Causes no pass when none has failed.
   */
  retryNow(): void {
    this.#retry.abort();
  }

  /** Resolves after a whole pass, begun after this call, has succeeded; or when the loop is closed. */
  next(): Promise<void> {
    if (this.#abort.signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      this.#waiters.push({ after: this.#started + 1, resolve });
      this.trigger();
    });
  }

  async close(): Promise<void> {
    this.#abort.abort();
    this.#wake?.();
    await this.#running;
    for (const waiter of this.#waiters.splice(0)) waiter.resolve();
  }

  #started = 0;

  async #run(): Promise<void> {
    const { clock, pass, onError, settleMs = 0, periodMs, retryMs = [100, 30_000] } = this.#options;
    const { signal } = this.#abort;
    let attempt = 0;
    while (!signal.aborted) {
      if (!this.#wanted) await this.#idle(periodMs);
      if (signal.aborted) return;
      if (settleMs > 0 && attempt === 0) await clock.sleep(settleMs, signal).catch(() => {});
      if (signal.aborted) return;
      this.#wanted = false;
      this.#retry = new AbortController();
      const started = ++this.#started;
      try {
        await pass(signal);
        this.#lastError = undefined;
        this.#passes++;
        attempt = 0;
        const due = this.#waiters.filter((waiter) => waiter.after <= started);
        this.#waiters = this.#waiters.filter((waiter) => waiter.after > started);
        for (const waiter of due) waiter.resolve();
      } catch (error) {
        if (signal.aborted) return;
        this.#lastError = error;
        if (this.#retry.signal.aborted) {
          this.#retry = new AbortController();
          attempt = 0;
        }
        onError(error, ++attempt);
        this.#wanted = true;
        const stop = AbortSignal.any([signal, this.#retry.signal]);
        await clock.sleep(Math.min(retryMs[1], retryMs[0] * 2 ** (attempt - 1)), stop).catch(() => {});
        if (this.#retry.signal.aborted) attempt = 0;
      }
    }
  }

  /** Until a trigger, the period, or the end. */
  async #idle(periodMs: number | undefined): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    const stop = new AbortController();
    if (periodMs !== undefined) {
      void this.#options.clock
        .sleep(periodMs, AbortSignal.any([stop.signal, this.#abort.signal]))
        .then(resolve, () => {});
    }
    await promise;
    this.#wake = undefined;
    stop.abort();
  }
}
