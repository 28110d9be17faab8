/**
 * Removes links that were detached, in batches: one request for all of them, when it disturbs least.
 *
 * Soon enough that nobody sees them, late enough that a burst of DELs is one batch and the runtime has mostly removed the
 * sandboxes with their links.
 */
import type { Kernel } from '../../kernel/types.ts';

/** The group of links that are down for good (POD_LINK_GROUP + 1). Reserved to Weft, like that one. */
export const DYING_LINK_GROUP = 0x57e1;

/** Milliseconds after the last detach; and after the first one at the latest. */
const QUIET_MS = 60;
const LATEST_MS = 1000;

export class LinkReaper {
  readonly #kernel: Kernel;
  readonly #onError: (error: unknown) => void;
  #timer: NodeJS.Timeout | undefined;
  /** When the oldest link that waits was detached (monotonic milliseconds). */
  #since: number | undefined;
  #reaping: Promise<void> = Promise.resolve();

  constructor(kernel: Kernel, onError: (error: unknown) => void) {
    this.#kernel = kernel;
    this.#onError = onError;
  }

  /** A link was moved to the group. */
  schedule(): void {
    const now = performance.now();
    this.#since ??= now;
    clearTimeout(this.#timer);
    const delay = Math.max(0, Math.min(QUIET_MS, this.#since + LATEST_MS - now));
    this.#timer = setTimeout(() => this.#fire(), delay);
    this.#timer.unref();
  }

  #fire(): void {
    this.#timer = undefined;
    this.#since = undefined;
    this.#reaping = this.#reaping.then(() => this.#reap()).catch(this.#onError);
  }

  async #reap(): Promise<void> {
    await this.#kernel.must([{ ns: '', ops: [{ op: 'link.deleteGroup', group: DYING_LINK_GROUP }] }]);
  }

  /** Reap now what waits, and wait for it. */
  async flush(): Promise<void> {
    if (this.#timer) {
      clearTimeout(this.#timer);
      this.#fire();
    }
    await this.#reaping;
  }
}
