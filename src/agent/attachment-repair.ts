/**
 * The node side of attachments under other people's hands: what the kernel reports as changed by someone else is compared
 * with the plan and put right, within a second, and told with who it was; what the kernel does not report, the audit finds.
 *
 *   events ─▶ suspects ─ settle ─▶ Reconciler ─▶ update   looks at suspects; retry and status per attachment
 *   attachments table ───────────▶            └▶ prune    looks at all: at start, after lost events, every minute
 *
 * ADD and DEL do their own work and answer for it: a row that comes or goes costs the reconciler no look at the kernel.
 */
import { planAttachment } from '../attach/plan-attachment.ts';
import type { Clock } from '../base/clock.ts';
import type { KeyedMutex } from '../base/keyed-mutex.ts';
import type { Logger } from '../base/log.ts';
import { netObjectKey } from '../base/net-objects.ts';
import { type Difference, hostDifferences, Observed } from '../datapath/attach/differences.ts';
import {
  isSandboxGone,
  observeHost,
  repair,
  unownedLinks,
  verifySysctls,
} from '../datapath/attach/repair.ts';
import type { Actor, Kernel, KernelEvent } from '../kernel/types.ts';
import type { Attachment } from '../state/attachment.ts';
import { filterTable } from '../state/derived.ts';
import type { Index, MemoryTable } from '../state/memory-table.ts';
import { DONE, type ObjectStatus, type Outcome, type PruneReport } from '../state/operations.ts';
import { Reconciler } from '../state/reconciler.ts';
import type { ReadTable } from '../state/table.ts';

export interface Drift {
  attachment: Attachment;
  differences: Difference[];
  /** Who changed it, where the kernel told. */
  by?: Actor;
}

export interface AttachmentRepairOptions {
  kernel: Kernel;
  table: MemoryTable<Attachment>;
  /** Shared with whoever else changes attachments. */
  mutex: KeyedMutex;
  clock: Clock;
  logger: Logger;
  /** What someone else changed, once it has been put right. */
  onDrift: (drift: Drift) => void;
  /** Takes away links of pods that no attachment has. */
  removeLinks: (names: string[]) => Promise<void>;
}

/** What came of one attachment that differed. */
type Repaired = { id: string; error?: unknown };
type ObjectEvent = Extract<KernelEvent, { type: 'new' | 'delete' }>;

/** Events of one change arrive together: a link that goes takes routes and neighbours along. */
const SETTLE_MS = 30;
/** Forwarding is switched for the whole node, and whoever keeps the node's own sysctls puts it back for every device. */
const SYSCTL_SETTLE_MS = 300;
const RETRY = { min: 100, max: 10_000 };
/** The first failure may be of the moment; the second one people should know of. */
const BROKEN_AFTER = 2;

export class AttachmentRepair {
  /** Attachments that could not be put right twice in a row. Tried again all the same. */
  readonly broken: ReadTable<ObjectStatus>;
  readonly #o: AttachmentRepairOptions;
  readonly #byDevice: Index<Attachment>;
  readonly #byRoute: Index<Attachment>;
  readonly #started = Promise.withResolvers<void>();
  readonly #reconciler: Reconciler<Attachment>;
  /** Ids as events name them, and who touched them. */
  #reported = new Map<string, Actor | undefined>();
  /** Ids that the reconciler's next update is to look at. */
  #suspects = new Map<string, Actor | undefined>();
  #timer: NodeJS.Timeout | undefined;
  #all = false;
  #adopted = false;
  #closed = false;

  constructor(options: AttachmentRepairOptions) {
    this.#o = options;
    this.#byDevice = options.table.index((a) => [a.hostIfname]);
    this.#byRoute = options.table.index((a) => a.ips);
    this.#reconciler = new Reconciler<Attachment>({
      name: 'attachments',
      desired: options.table,
      synced: this.#started.promise,
      operations: {
        update: (rows) => this.#update(rows),
        delete: async (rows) => this.#forget(rows),
        prune: (desired) => this.#prune(desired),
      },
      clock: options.clock,
      logger: options.logger,
      retry: RETRY,
    });
    this.broken = filterTable(
      this.#reconciler.statuses,
      'broken attachments',
      (status) => status.attempts >= BROKEN_AFTER,
    );
  }

  /** Of each attachment: as planned, to be looked at, or what went wrong last. */
  get statuses(): ReadTable<ObjectStatus> {
    return this.#reconciler.statuses;
  }

  /** The table is complete: compare all of it with the kernel, and keep it right from now on. @throws WEFT_NETLINK_REFUSED */
  async start(): Promise<PruneReport> {
    const first = this.#reconciler.pruneNow();
    this.#started.resolve();
    return await first;
  }

  /** Compare everything now, what the kernel reports no change of included. @throws WEFT_NETLINK_REFUSED, WEFT_CLOSED */
  audit(): Promise<PruneReport> {
    return this.#reconciler.pruneNow();
  }

  handleKernelEvents(events: readonly KernelEvent[]): void {
    /** The kernel does not say who changed a link, so our own attaching is heard too: the last notice of each tells. */
    const links = new Map<string, ObjectEvent>();
    let settle = SETTLE_MS;
    for (const event of events) {
      if (event.type === 'resync') this.#all = true;
      else if (event.type === 'sysctl') {
        this.#all = true;
        settle = SYSCTL_SETTLE_MS;
      } else if (event.type === 'nft' || event.own) continue;
      else if (event.object.kind === 'link') links.set(event.object.name, event);
      else this.#suspect(event);
    }
    for (const event of links.values()) if (!this.#isAsPlanned(event)) this.#suspect(event);
    if (this.#all || this.#reported.size > 0) this.#schedule(settle);
  }

  #suspect({ object, by }: ObjectEvent): void {
    // Of one change the kernel may send several notices, and not name who in each.
    for (const { id } of this.#concerned(object)) this.#reported.set(id, by ?? this.#reported.get(id));
  }

  /** A link that stands as it should calls for no look at the whole node, which costs more the more pods there are. */
  #isAsPlanned({ type, object }: ObjectEvent): boolean {
    if (type === 'delete') return false;
    const host = new Observed([object]);
    const key = netObjectKey(object);
    return [...this.#concerned(object)].every((attachment) =>
      hostDifferences(planAttachment(attachment), host).every((difference) => difference.key !== key),
    );
  }

  #concerned(object: ObjectEvent['object']): Iterable<Attachment> {
    switch (object.kind) {
      case 'link':
        return this.#byDevice.get(object.name);
      case 'route':
        return this.#byRoute.get(object.dst);
      case 'neighbour':
        return this.#byDevice.get(object.dev);
      default:
        return [];
    }
  }

  #schedule(ms: number): void {
    if (this.#closed || this.#timer) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#handOver();
    }, ms);
    this.#timer.unref();
  }

  #handOver(): void {
    // What was detached meanwhile is nobody's any more.
    const reported = new Map([...this.#reported].filter(([id]) => this.#o.table.has(id)));
    this.#reported = new Map();
    this.#mark(reported);
    if (this.#all) this.audit().catch(() => {}); // the reconciler tells of it, and tries again
    this.#all = false;
    this.#reconciler.repair(reported.keys());
  }

  #mark(suspects: ReadonlyMap<string, Actor | undefined>): void {
    for (const [id, by] of suspects) this.#suspects.set(id, by ?? this.#suspects.get(id));
  }

  // --- the reconciler's target ---

  /** Of the rows given, those that someone is known to have touched: the others are as ADD left them. */
  async #update(rows: Attachment[]): Promise<Outcome[]> {
    const touched = rows.filter(({ id }) => this.#suspects.has(id));
    if (touched.length === 0) return rows.map(() => DONE);
    const failed = new Map(
      (await this.#attempt(touched, false)).flatMap(({ id, error }) =>
        error === undefined ? [] : [[id, error] as const],
      ),
    );
    return rows.map(({ id }) => (failed.has(id) ? { error: failed.get(id) } : DONE));
  }

  /** DEL has taken the links down before it let the row go. */
  #forget(rows: Attachment[]): Outcome[] {
    for (const { id } of rows) if (!this.#o.table.has(id)) this.#suspects.delete(id);
    return rows.map(() => DONE);
  }

  async #prune(desired: ReadonlyMap<string, Attachment>): Promise<PruneReport> {
    const report: PruneReport = { changes: [], errors: [] };
    // At start only what costs little: pods wait for it. Sysctls are read one by one.
    const results = await this.#attempt([...desired.values()], this.#adopted, async (host) => {
      const owned = new Set([...this.#o.table.values()].map((a) => a.hostIfname));
      const unowned = unownedLinks(host, owned);
      // In the same turn as they were found to be nobody's: an ADD that takes the name comes after.
      if (unowned.length > 0) await this.#o.removeLinks(unowned);
      for (const name of unowned) report.changes.push({ key: `link ${name}`, action: 'removed' });
    });
    for (const { id, error } of results) {
      if (error !== undefined) report.errors.push({ key: id, error });
      else report.changes.push({ key: id, action: 'replaced' });
    }
    this.#adopted = true;
    return report;
  }

  /** {@link #putRight}, after which only what failed is suspected, besides what was reported meanwhile. */
  async #attempt(
    rows: Attachment[],
    withSysctls: boolean,
    onObserved?: (host: Observed) => Promise<void>,
  ): Promise<Repaired[]> {
    const who = new Map<string, Actor | undefined>();
    for (const { id } of rows) if (this.#suspects.has(id)) who.set(id, this.#suspects.get(id));
    for (const id of who.keys()) this.#suspects.delete(id);
    try {
      const host = await observeHost(this.#o.kernel);
      await onObserved?.(host);
      const results = await this.#putRight(rows, host, who, withSysctls);
      const failed = results.filter(({ error }) => error !== undefined);
      this.#mark(new Map(failed.map(({ id }) => [id, who.get(id)])));
      return results;
    } catch (error) {
      this.#mark(who);
      throw error;
    }
  }

  /** Returns what differed. */
  async #putRight(
    rows: Attachment[],
    seen: Observed,
    who: ReadonlyMap<string, Actor | undefined>,
    withSysctls: boolean,
  ): Promise<Repaired[]> {
    const differing: Attachment[] = [];
    for (const row of rows) {
      if ((await this.#differences(row, seen, withSysctls)).length > 0) differing.push(row);
    }
    if (differing.length === 0) return [];
    // An ADD or DEL may have been under way when the host was observed: let it end, and look again.
    await Promise.all(differing.map(({ id }) => this.#o.mutex.run(id, async () => {})));
    const host = await observeHost(this.#o.kernel);
    const results: Repaired[] = [];
    for (const row of differing) {
      const { id } = row;
      try {
        if (await this.#repairOne(row, who.get(id), host, withSysctls)) results.push({ id });
      } catch (error) {
        results.push({ id, error }); // the others all the same
      }
    }
    return results;
  }

  async #differences(row: Attachment, host: Observed, withSysctls: boolean): Promise<Difference[]> {
    const plan = planAttachment(row);
    const differences = hostDifferences(plan, host);
    if (!withSysctls || !host.link(plan.link.name)) return differences;
    return [...differences, ...(await verifySysctls(this.#o.kernel, plan))];
  }

  async #repairOne(
    attachment: Attachment,
    by: Actor | undefined,
    host: Observed,
    withSysctls: boolean,
  ): Promise<boolean> {
    const { kernel, table, mutex, logger, onDrift } = this.#o;
    const { id } = attachment;
    return await mutex.run(id, async () => {
      // Another row by now: it was deleted or made anew since, and is right.
      if (table.get(id) !== attachment || !(await this.#hasSandbox(attachment))) return false;
      const differences = await this.#differences(attachment, host, withSysctls);
      if (differences.length === 0) return false;
      await repair(kernel, planAttachment(attachment), differences);
      logger.warn({ id, by, differences: differences.map((d) => d.text) }, 'repaired');
      onDrift({ attachment, differences, ...(by && { by }) });
      return true;
    });
  }

  /** A pod that ends takes its veth along: no drift, and nothing to repair. */
  async #hasSandbox({ netns, netnsInode }: Attachment): Promise<boolean> {
    try {
      return (await this.#o.kernel.netnsInfo(netns)).inode === netnsInode;
    } catch (error) {
      if (isSandboxGone(error)) return false;
      throw error;
    }
  }

  /** Finish what is under way, begin nothing more. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#reconciler.close();
  }
}
