/**
 * Keeps the network objects of one namespace as they are desired: `apply` for a new desired state, events of the kernel for
 * what others did to it, a slow audit for what the kernel does not tell (sysctls, IPv4 routes flushed in silence).
 *
 *   apply(objects, sysctls) ─┐
 *   handleEvents(events) ────┼─▶ due ─▶ dump ─ diff ─▶ one run ─▶ statuses, drifts
 *   audit, retry ────────────┘
 *
 * Idempotent: the same desired state again costs a dump and no operation. On a restart nothing is remembered and nothing
 * needs to be: what the kernel holds is compared with what is desired, and what is equal is adopted.
 */
import { backoffDelay } from '../../base/backoff.ts';
import { type Clock, systemClock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Logger } from '../../base/log.ts';
import { formatNetObject } from '../../base/net-object-text.ts';
import { type NetObject, type NetObjectKind, type NsPath, netObjectKey } from '../../base/net-objects.ts';
import type { Actor, Kernel, KernelEvent, Watch } from '../../kernel/types.ts';
import type { Sysctl } from '../../state/attachment.ts';
import { structurallyEqual } from '../../state/equal.ts';
import { type Deviation, type Diff, diff, makeOp, type PlannedOp, rank, removeOp } from './diff.ts';
import { Suspects } from './suspects.ts';

/** The kinds of objects this reconciler reads, writes and wants events of. */
export const LINK_KINDS: NetObjectKind[] = ['link', 'address', 'route', 'rule', 'neighbour', 'fdb'];

/** Somebody else changed something of ours; it has been put back. */
export interface Drift {
  /** As desired; for `extra`, as found; absent for a sysctl. */
  object?: NetObject;
  what: 'missing' | 'changed' | 'extra';
  /** One sentence: what had changed. */
  message: string;
  /** Who did it, where the kernel tells. */
  by?: Actor;
}

export interface Failure {
  key: string;
  message: string;
}

export interface ApplyReport {
  /** Operations sent to the kernel. Zero: everything was already as desired. */
  operations: number;
  failures: Failure[];
  shadowed: Diff['shadowed'];
}

export interface LinkChange {
  set: NetObject[];
  unset: NetObject[];
}

export interface LinkReconcilerOptions {
  kernel: Pick<Kernel, 'run' | 'dump' | 'watch' | 'sysctlRead'>;
  ns: NsPath;
  logger: Logger;
  clock?: Clock;
  /** Hears of each repair, once it was tried. */
  onDrift?: (drifts: Drift[]) => void;
  /** Hears when the set of objects that could not be made as desired changes. */
  onStatus?: (failures: Failure[]) => void;
  /** Milliseconds between audits; default 30 000. */
  auditIntervalMs?: number;
  random?: () => number;
}

/** Milliseconds from the first event to the repair: the rest of a burst usually arrives within it. */
const SETTLE_MS = 20;
/** Ceiling of the above while somebody keeps undoing our work: still within a second. */
const SETTLE_MAX_MS = 640;
/** A quiet time after which somebody's changes are no longer a fight. */
const PEACE_MS = 2000;
const RETRY = { min: 250, max: 30_000 };

export class LinkReconciler {
  readonly #options: LinkReconcilerOptions;
  readonly #clock: Clock;
  #desired = new Map<string, NetObject>();
  #sysctls: readonly Sysctl[] = [];
  /** What the kernel is known to have held as desired: if it differs later, somebody changed it. Key → object. */
  #settled = new Map<string, NetObject>();
  /** Sysctls that once had the desired value. Path → value. */
  #settledSysctls = new Map<string, string>();
  #failures: Failure[] = [];
  #suspects = new Suspects(this.#desired);
  /** Before the first apply nothing is ours to repair. */
  #started = false;
  #attempts = 0;
  /** How often in a row the same object had to be put back. */
  #fights = 0;
  #lastRepairAt = Number.NEGATIVE_INFINITY;
  /** What was put back lately: key → when. */
  #repaired = new Map<string, number>();
  #due: number | undefined;
  #timer: AbortController | undefined;
  #queue: Promise<unknown> = Promise.resolve();
  #watch: Watch | undefined;
  #closed = false;

  constructor(options: LinkReconcilerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /**
   * Make this the desired state and bring it about. What is no longer desired is removed; `apply([])` leaves nothing of ours.
   * Refusals of the kernel are in the report and tried again later, on their own or when something changes that they may
   * have waited for. Rejects only if the kernel cannot be read.
   */
  apply(objects: Iterable<NetObject>, sysctls: readonly Sysctl[] = []): Promise<ApplyReport> {
    this.#desired = new Map();
    for (const object of objects) this.#desired.set(netObjectKey(object), object);
    this.#sysctls = sysctls;
    this.#suspects = new Suspects(this.#desired);
    return this.#enqueue(() => this.#converge('apply'));
  }

  /**
   * A change to the desired state, in time proportional to the change: no dump. Falls back to a full comparison where links
   * or rules are concerned, and before the first {@link apply}.
   */
  patch(change: LinkChange): Promise<ApplyReport> {
    for (const object of change.unset) this.#desired.delete(netObjectKey(object));
    for (const object of change.set) this.#desired.set(netObjectKey(object), object);
    this.#suspects.add(change.set);
    const all = [...change.set, ...change.unset];
    const whole = !this.#started || all.some(({ kind }) => kind === 'link' || kind === 'rule');
    return this.#enqueue(() => (whole ? this.#converge('apply') : this.#change(change)));
  }

  /** Compare everything now, and repair. */
  verify(): Promise<ApplyReport> {
    return this.#enqueue(() => this.#converge('repair'));
  }

  /** Subscribe to the kernel's events and begin the audits; until {@link close}. */
  async watch(): Promise<void> {
    const { kernel, ns } = this.#options;
    this.#watch = await kernel.watch(ns, { kinds: LINK_KINDS }, (events) => this.handleEvents(events));
    this.#schedule(this.#auditInterval());
  }

  /** Events of the namespace, ours among them. */
  handleEvents(events: KernelEvent[]): void {
    if (!this.#started || this.#closed) return;
    let concerned = false;
    for (const event of events) {
      if (this.#suspects.concerns(event, this.#failures.length > 0)) concerned = true;
    }
    if (!concerned) return;
    // Against somebody who keeps undoing it, ever more slowly; anything else is answered at once.
    const fights = this.#clock.now() - this.#lastRepairAt < PEACE_MS ? this.#fights : 0;
    this.#schedule(Math.min(SETTLE_MAX_MS, SETTLE_MS * 2 ** Math.min(fights, 10)));
  }

  /** What could not be made as desired, and why. */
  get failures(): readonly Failure[] {
    return this.#failures;
  }

  get size(): number {
    return this.#desired.size;
  }

  /** Status of one desired object. */
  statusOf(key: string): { state: 'done' | 'pending' } | { state: 'failed'; message: string } | undefined {
    if (!this.#desired.has(key)) return undefined;
    const failure = this.#failures.find((f) => f.key === key);
    if (failure) return { state: 'failed', message: failure.message };
    return { state: this.#settled.get(key) === this.#desired.get(key) ? 'done' : 'pending' };
  }

  /** Ends after what is under way. Leaves the kernel as it is: forwarding goes on. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timer?.abort();
    await this.#watch?.close();
    await this.#queue.catch(() => {});
  }

  #enqueue<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#queue.then(work, work);
    this.#queue = result.catch(() => {});
    return result;
  }

  async #converge(cause: 'apply' | 'repair'): Promise<ApplyReport> {
    const { kernel, ns } = this.#options;
    const suspects = this.#suspects.take();
    const first = !this.#started;
    // As of now: what changes while this waits for the kernel has its own turn after it.
    const desired = new Map(this.#desired);
    const sysctls = this.#sysctls;
    const [observed, current] = await Promise.all([kernel.dump(ns, LINK_KINDS), this.#readSysctls(sysctls)]);
    const result = diff(desired, observed, sysctls, current);
    const drifts = first
      ? []
      : [...this.#driftsOf(result.deviations, suspects), ...this.#sysctlDrifts(result.ops, current)];
    const failures = await this.#run(result.ops);
    this.#started = true;
    const failed = new Set(failures.map((f) => f.key));
    this.#settled = new Map([...desired].filter(([key]) => !failed.has(key)));
    this.#settledSysctls = new Map(
      sysctls.filter(({ path }) => !failed.has(`sysctl ${path}`)).map(({ path, value }) => [path, value]),
    );
    this.#finish(failures);
    if (drifts.length > 0) {
      this.#countFights(drifts);
      this.#options.onDrift?.(drifts);
    }
    const log = this.#options.logger;
    if (result.ops.length > 0) {
      log.info(
        { ns, cause, operations: result.ops.length, drifts: drifts.map((d) => d.message), failures },
        'links reconciled',
      );
    }
    return { operations: result.ops.length, failures, shadowed: result.shadowed };
  }

  async #change({ set, unset }: LinkChange): Promise<ApplyReport> {
    const ops: PlannedOp[] = [];
    for (const object of [...set].sort((a, b) => rank(a) - rank(b))) {
      const key = netObjectKey(object);
      // A later change may have overtaken this one while it waited.
      if (object.kind === 'link' || this.#desired.get(key) !== object) continue;
      ops.push({ key, op: makeOp(object) });
    }
    for (const object of [...unset].sort((a, b) => rank(b) - rank(a))) {
      const key = netObjectKey(object);
      if (!this.#desired.has(key)) ops.push({ key, op: removeOp(object) });
    }
    const failures = await this.#run(ops);
    const failed = new Set(failures.map((f) => f.key));
    for (const { key } of ops) {
      const object = this.#desired.get(key);
      if (object === undefined || failed.has(key)) this.#settled.delete(key);
      else this.#settled.set(key, object);
    }
    const touched = new Set(ops.map(({ key }) => key));
    this.#finish([...this.#failures.filter((f) => !touched.has(f.key)), ...failures]);
    return { operations: ops.length, failures, shadowed: [] };
  }

  /** One program; what the kernel refuses does not stop the rest. */
  async #run(ops: PlannedOp[]): Promise<Failure[]> {
    if (ops.length === 0) return [];
    const { kernel, ns } = this.#options;
    const { failures } = await kernel.run([{ ns, ops: ops.map(({ op }) => op), continueOnError: true }]);
    const found: Failure[] = [];
    for (const failure of failures) {
      if (failure.gone && ops[failure.op]!.op.op.endsWith('.delete')) continue;
      found.push({ key: ops[failure.op]!.key, message: failure.message });
    }
    return found;
  }

  /** Undefined for what does not exist (yet). */
  async #readSysctls(sysctls: readonly Sysctl[]): Promise<Map<string, string | undefined>> {
    const { kernel, ns } = this.#options;
    const read = async (path: string): Promise<[string, string | undefined]> => {
      try {
        return [path, (await kernel.sysctlRead(ns, path)).trim()];
      } catch {
        return [path, undefined];
      }
    };
    return new Map(await Promise.all(sysctls.map(({ path }) => read(path))));
  }

  #driftsOf(deviations: Deviation[], suspects: Suspects): Drift[] {
    const drifts: Drift[] = [];
    for (const { key, object, what, detail, collateral } of deviations) {
      if (collateral) continue; // the device says it all
      const settled = this.#settled.get(key);
      // Not there before, or desired to be otherwise since: our own work, not a drift.
      if (what === 'extra' ? settled !== undefined : !settled || !structurallyEqual(settled, object))
        continue;
      const by = suspects.whoChanged(object);
      const text = formatNetObject(object);
      drifts.push({
        object,
        what,
        message:
          what === 'missing'
            ? `${text} was gone`
            : what === 'changed'
              ? `${text} had ${detail}`
              : `${text} was there although nobody wants it`,
        ...(by && { by }),
      });
    }
    return drifts;
  }

  #sysctlDrifts(ops: PlannedOp[], current: ReadonlyMap<string, string | undefined>): Drift[] {
    return ops.flatMap(({ op }) => {
      if (op.op !== 'sysctl.write' || this.#settledSysctls.get(op.path) !== op.value) return [];
      const now = current.get(op.path);
      // Gone with its device, which is a drift of its own, or with one that we replace.
      if (now === undefined || now === op.value) return [];
      return [{ what: 'changed' as const, message: `sysctl ${op.path} was ${now} instead of ${op.value}` }];
    });
  }

  #finish(failures: Failure[]): void {
    const text = (list: Failure[]): string => list.map((f) => `${f.key}\0${f.message}`).join('\0');
    const changed = text(failures) !== text(this.#failures);
    this.#failures = failures;
    if (changed) this.#options.onStatus?.(failures);
    this.#attempts = failures.length > 0 ? this.#attempts + 1 : 0;
    if (this.#attempts > 0) {
      const { random } = this.#options;
      this.#schedule(backoffDelay(this.#attempts, { ...RETRY, ...(random && { random }) }));
    } else if (this.#watch) this.#schedule(this.#auditInterval());
  }

  #countFights(drifts: Drift[]): void {
    const now = this.#clock.now();
    for (const [key, at] of this.#repaired) if (now - at > PEACE_MS) this.#repaired.delete(key);
    const keys = drifts.flatMap(({ object }) => (object ? [netObjectKey(object)] : []));
    this.#fights = keys.some((key) => this.#repaired.has(key)) ? this.#fights + 1 : 0;
    for (const key of keys) this.#repaired.set(key, now);
    this.#lastRepairAt = now;
  }

  #auditInterval(): number {
    return this.#options.auditIntervalMs ?? 30_000;
  }

  /** At most one is due at a time: the earliest. */
  #schedule(delay: number): void {
    const at = this.#clock.now() + delay;
    if (this.#closed || (this.#due !== undefined && this.#due <= at)) return;
    this.#timer?.abort();
    const timer = new AbortController();
    this.#timer = timer;
    this.#due = at;
    this.#clock.sleep(delay, timer.signal).then(
      () => {
        if (this.#timer !== timer) return;
        this.#due = undefined;
        this.verify().catch((error: unknown) => {
          this.#options.logger.error({ err: messageOf(error) }, 'links could not be compared');
          this.#schedule(RETRY.min * 4);
        });
      },
      () => {}, // superseded or closed
    );
  }
}
