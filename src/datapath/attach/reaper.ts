/**
 * The slow half of detaching: links are removed, and what connection tracking remembers of released addresses is purged, in
 * batches, when it disturbs least.
 *
 * Soon enough that nobody sees it, late enough that a burst of DELs is one batch and the runtime has mostly removed the
 * sandboxes with their links. An address must not be given again before it was purged, or packets of its last owner's
 * connections would reach the next one past every check that trusts "established": {@link Reaper.purged} waits.
 */
import type { Ip } from '../../base/ip.ts';
import type { Kernel, Op } from '../../kernel/types.ts';

/** The group of links that are down for good (POD_LINK_GROUP + 1). Reserved to Weft, like that one. */
export const DYING_LINK_GROUP = 0x57e1;

/** Milliseconds after the last detach; and after the first one at the latest. */
const QUIET_MS = 60;
const LATEST_MS = 1000;
const RETRY_MS = 1000;
/** Addresses purged in one go, 0.7 ms each: how long an ADD may have to wait behind others' (an agent that starts has thousands). */
const BATCH = 256;

export class Reaper {
  readonly #kernel: Kernel;
  readonly #onError: (error: unknown) => void;
  #timer: NodeJS.Timeout | undefined;
  /** When the oldest of what waits was detached (monotonic milliseconds). */
  #since: number | undefined;
  /** Addresses that are to be purged by the next round. */
  #waiting = new Set<Ip>();
  /** Those of the batch under way, and its end. */
  #underWay: ReadonlySet<Ip> = new Set();
  #batch: Promise<void> = Promise.resolve();
  #reaping: Promise<void> = Promise.resolve();
  /** Rounds that run or wait for their turn. */
  #busy = 0;
  #closed = false;

  constructor(kernel: Kernel, onError: (error: unknown) => void) {
    this.#kernel = kernel;
    this.#onError = onError;
  }

  /** Links were moved to the group, and these addresses are nobody's any more. */
  schedule(addresses: Iterable<Ip>): void {
    for (const address of addresses) this.#waiting.add(address);
    const now = performance.now();
    this.#since ??= now;
    this.#arm(Math.max(0, Math.min(QUIET_MS, this.#since + LATEST_MS - now)));
  }

  #arm(ms: number): void {
    if (this.#closed) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#fire(), ms);
    this.#timer.unref();
  }

  #fire(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#since = undefined;
    this.#busy++;
    this.#reaping = this.#reaping.then(() => this.#reap()).finally(() => this.#busy--);
  }

  async #reap(): Promise<void> {
    do {
      const batch = new Set(this.#waiting.values().take(BATCH));
      for (const address of batch) this.#waiting.delete(address);
      this.#underWay = batch;
      const done = this.#reapBatch(batch);
      this.#batch = done.catch(() => {});
      try {
        await done;
      } catch (error) {
        for (const address of batch) this.#waiting.add(address);
        this.#onError(error);
        if (!this.#timer) this.#arm(RETRY_MS);
        return;
      } finally {
        this.#underWay = new Set();
      }
    } while (this.#waiting.size > 0 && !this.#closed);
  }

  async #reapBatch(batch: Iterable<Ip>): Promise<void> {
    await this.#kernel.must([
      { ns: '', ops: [{ op: 'link.deleteGroup', group: DYING_LINK_GROUP }, ...purgeOps(batch)] },
    ]);
  }

  /** Resolves when nothing is remembered of these addresses' last owners: mostly at once. @throws what the kernel said */
  async purged(addresses: readonly Ip[]): Promise<void> {
    if (addresses.some((address) => this.#underWay.has(address))) await this.#batch;
    const left = addresses.filter((address) => this.#waiting.has(address));
    if (left.length === 0) return;
    await this.#kernel.must([{ ns: '', ops: purgeOps(left) }]);
    for (const address of left) this.#waiting.delete(address);
  }

  /**
   * End after the batch that is under way, or after one of what waits. What is left stays down and unowned; the next start
   * removes such links, and purges every address that was released.
   */
  async close(): Promise<void> {
    if (this.#timer && this.#busy === 0) this.#fire();
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#reaping;
  }
}

function purgeOps(addresses: Iterable<Ip>): Op[] {
  return Array.from(addresses, (address) => ({ op: 'conntrack.purge', address }));
}
