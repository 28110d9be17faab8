/**
 * The kernel door: {@link openKernel} gives the {@link Kernel} that everything above works with.
 *
 * There are two lanes, each a thread of its own. What the kernel does at once takes the fast one. Deleting a link makes the
 * caller wait 15–40 ms for RCU grace periods, and finding an address in the connection tracking table means walking all of it
 * (15 ms at least), which nobody who attaches a pod should have to: programs with such ops, and the probing of features,
 * take the slow one, which is started when first needed and ends when idle. Programs in
 * different lanes run side by side, so whoever depends on an order awaits the first.
 *
 * The threads keep the process alive only while a call is under way or a watch is open.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { WeftError } from '../base/errors.ts';
import type { Ip } from '../base/ip.ts';
import type { NetObject, NsPath, Route } from '../base/net-objects.ts';
import { KernelThread } from './kernel-thread.ts';
import { failureError } from './op-failure.ts';
import type { DumpFilter } from './rtnl.ts';
import type { CallName, SyncKernel, WatchRequest } from './sync-kernel.ts';
import type {
  Conntrack,
  DumpKind,
  Kernel,
  KernelEvent,
  KernelFeatures,
  NetnsInfo,
  NftElement,
  NftFamily,
  NftListing,
  RunResult,
  Step,
  Watch,
} from './types.ts';

/** A thread costs some 15 MB: none is kept for the next deletion for longer than a burst of them may pause. */
const SLOW_IDLE_MS = 10_000;
const RESTART_DELAY_MS = 100;
const RESTART_DELAY_MAX_MS = 5_000;

type Lane = 'fast' | 'slow';
type Parameters_<M extends CallName> = Parameters<SyncKernel[M]>;
type Result<M extends CallName> = ReturnType<SyncKernel[M]>;

/** @throws WEFT_NOT_LINUX, WEFT_NOT_ROOT */
export async function openKernel(): Promise<Kernel> {
  if (process.geteuid?.() !== 0) {
    throw new WeftError('WEFT_NOT_ROOT', 'programming the kernel needs root; this is not');
  }
  const kernel = new ThreadedKernel();
  await kernel.netnsInfo(''); // the thread is up, and /proc is there
  return kernel;
}

interface OpenWatch {
  ns: NsPath;
  what: WatchRequest;
  onEvents: (events: KernelEvent[]) => void;
  /** The thread that carries it. */
  thread: KernelThread;
}

export class ThreadedKernel implements Kernel {
  readonly #threads: Record<Lane, KernelThread | undefined> = { fast: undefined, slow: undefined };
  readonly #watches = new Map<number, OpenWatch>();
  #nextWatch = 1;
  #closed = false;
  #deaths = 0;
  #idle: NodeJS.Timeout | undefined;

  #thread(lane: Lane): KernelThread {
    if (this.#closed) throw new WeftError('WEFT_KERNEL_WORKER_DIED', 'the kernel door is closed');
    let thread = this.#threads[lane];
    if (!thread?.alive) {
      thread = new KernelThread(`weft-kernel-${lane}`, {
        onEvents: (watch, events) => this.#watches.get(watch)?.onEvents(events),
        onDeath: () => this.#onDeath(lane),
      });
      this.#threads[lane] = thread;
      if (lane === 'fast') this.#rewatch(thread);
    }
    return thread;
  }

  async #call<M extends CallName>(method: M, args: Parameters_<M>, lane: Lane = 'fast'): Promise<Result<M>> {
    try {
      const result = await this.#thread(lane).call(method, args);
      if (lane === 'fast') this.#deaths = 0;
      return result as Result<M>;
    } finally {
      if (lane === 'slow') this.#endWhenIdle();
    }
  }

  #endWhenIdle(): void {
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      const thread = this.#threads.slow;
      if (!thread || thread.pending > 0) return;
      this.#threads.slow = undefined;
      thread.signalStop();
    }, SLOW_IDLE_MS).unref();
  }

  // --- death and resurrection ---

  #onDeath(lane: Lane): void {
    this.#threads[lane] = undefined;
    if (lane === 'slow' || this.#watches.size === 0 || this.#closed) return;
    // Without watches the next call starts a thread. With them somebody is waiting for events now; but a thread that
    // dies at every start must not become a busy loop.
    const delay =
      this.#deaths === 0 ? 0 : Math.min(RESTART_DELAY_MS * 2 ** this.#deaths, RESTART_DELAY_MAX_MS);
    this.#deaths++;
    void sleep(delay).then(() => {
      if (!this.#closed && this.#watches.size > 0) this.#thread('fast');
    });
  }

  /** The watches of a thread that died, on its successor. What happened in between is unknown: `resync`. */
  #rewatch(thread: KernelThread): void {
    for (const [id, watch] of this.#watches) {
      if (watch.thread.alive) continue;
      watch.thread = thread;
      thread.hold();
      const told = (): void => {
        if (this.#watches.get(id) === watch) watch.onEvents([{ type: 'resync' }]);
      };
      // If its namespace is gone, the subscriber learns that from the dump that `resync` asks of it.
      thread.call('watch', [id, watch.ns, watch.what]).then(told, told);
    }
  }

  /** End the fast thread in the middle of its work, as a crash would. For tests. */
  async crash(): Promise<void> {
    await this.#threads.fast?.kill();
  }

  // --- the interface ---

  run(steps: Step[]): Promise<RunResult> {
    const slow = steps.some((step) =>
      step.ops.some(
        ({ op }) => op === 'link.delete' || op === 'link.deleteGroup' || op === 'conntrack.purge',
      ),
    );
    return this.#call('run', [steps], slow ? 'slow' : 'fast');
  }

  async must(steps: Step[]): Promise<void> {
    const { failures } = await this.run(steps);
    const failure = failures.find((f) => !f.gone);
    if (failure) throw failureError(failure);
  }

  dump(ns: NsPath, kinds: DumpKind[], filter?: DumpFilter): Promise<NetObject[]> {
    return this.#call('dump', [ns, kinds, filter]);
  }

  async watch(ns: NsPath, what: WatchRequest, onEvents: (events: KernelEvent[]) => void): Promise<Watch> {
    const thread = this.#thread('fast');
    const id = this.#nextWatch++;
    const watch: OpenWatch = { ns, what, onEvents, thread };
    this.#watches.set(id, watch);
    thread.hold();
    try {
      await thread.call('watch', [id, ns, what]);
    } catch (error) {
      // A thread that died under the call has taken the watch over to its successor only if it was established.
      this.#watches.delete(id);
      watch.thread.letGo();
      throw error;
    }
    return { close: () => this.#unwatch(id) };
  }

  async #unwatch(id: number): Promise<void> {
    const watch = this.#watches.get(id);
    if (!watch) return;
    this.#watches.delete(id);
    watch.thread.letGo();
    if (watch.thread.alive && !this.#closed) await watch.thread.call('unwatch', [id]);
  }

  routeTo(ns: NsPath, to: Ip, from?: { src?: Ip; iif?: string; mark?: number }): Promise<Route> {
    return this.#call('routeTo', [ns, to, from]);
  }

  nftApply(ns: NsPath, ruleset: string): Promise<void> {
    return this.#call('nftApply', [ns, ruleset]);
  }

  nftList(ns: NsPath, what: string): Promise<NftListing | undefined> {
    return this.#call('nftList', [ns, what]);
  }

  nftRender(ruleset: string, what: string): Promise<NftListing> {
    return this.#call('nftRender', [ruleset, what]);
  }

  nftElements(ns: NsPath, family: NftFamily, table: string, set: string): Promise<NftElement[]> {
    return this.#call('nftElements', [ns, family, table, set]);
  }

  conntrack(ns: NsPath, filter?: { address?: Ip; protocol?: number }): Promise<Conntrack[]> {
    return this.#call('conntrack', [ns, filter]);
  }

  conntrackDelete(ns: NsPath, entries: Conntrack[]): Promise<number> {
    return this.#call('conntrackDelete', [ns, entries]);
  }

  netnsCreate(path: NsPath): Promise<NetnsInfo> {
    return this.#call('netnsCreate', [path]);
  }

  netnsDelete(path: NsPath): Promise<boolean> {
    return this.#call('netnsDelete', [path]);
  }

  netnsInfo(path: NsPath): Promise<NetnsInfo> {
    return this.#call('netnsInfo', [path]);
  }

  netnsList(folder?: string): Promise<string[]> {
    return this.#call('netnsList', [folder]);
  }

  sysctlRead(ns: NsPath, path: string): Promise<string> {
    return this.#call('sysctlRead', [ns, path]);
  }

  listenTcp(ns: NsPath, address: Ip, port: number): Promise<number> {
    return this.#call('listenTcp', [ns, address, port]);
  }

  connectTcp(ns: NsPath, address: Ip, port: number): Promise<number> {
    return this.#call('connectTcp', [ns, address, port]);
  }

  features(): Promise<KernelFeatures> {
    return this.#call('features', [], 'slow');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#idle);
    this.#watches.clear();
    const threads = Object.values(this.#threads).filter((thread) => thread !== undefined);
    await Promise.all(threads.map((thread) => thread.stop()));
  }
}
