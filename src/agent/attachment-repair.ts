/**
 * Attachments under other people's hands: what the kernel reports as changed by someone else is compared with the plan
 * and put right, within a second, and told with who it was.
 */
import { planAttachment } from '../attach/plan-attachment.ts';
import { backoffDelay } from '../base/backoff.ts';
import { messageOf } from '../base/errors.ts';
import type { KeyedMutex } from '../base/keyed-mutex.ts';
import type { Logger } from '../base/log.ts';
import { netObjectKey } from '../base/net-objects.ts';
import { type Difference, hostDifferences, Observed } from '../datapath/attach/differences.ts';
import { isSandboxGone, observeHost, repair } from '../datapath/attach/repair.ts';
import type { Actor, Kernel, KernelEvent } from '../kernel/types.ts';
import type { Attachment } from '../state/attachment.ts';
import type { Index, MemoryTable } from '../state/memory-table.ts';

export interface Drift {
  attachment: Attachment;
  differences: Difference[];
  /** Who changed it, where the kernel told. */
  by?: Actor;
}

/** Events of one change arrive together: a link that goes takes routes and neighbours along. */
const SETTLE_MS = 30;

export class AttachmentRepair {
  readonly #kernel: Kernel;
  readonly #table: MemoryTable<Attachment>;
  readonly #mutex: KeyedMutex;
  readonly #log: Logger;
  readonly #onDrift: (drift: Drift) => void;
  readonly #byDevice: Index<Attachment>;
  readonly #byRoute: Index<Attachment>;
  /** Ids to look at, and who touched them; `true` for all. */
  #suspects = new Map<string, Actor | undefined>();
  #all = false;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<unknown> = Promise.resolve();
  #failures = 0;
  #closed = false;

  constructor(options: {
    kernel: Kernel;
    table: MemoryTable<Attachment>;
    /** Shared with whoever else changes attachments. */
    mutex: KeyedMutex;
    logger: Logger;
    onDrift: (drift: Drift) => void;
  }) {
    this.#kernel = options.kernel;
    this.#table = options.table;
    this.#mutex = options.mutex;
    this.#log = options.logger;
    this.#onDrift = options.onDrift;
    this.#byDevice = options.table.index((a) => [a.hostIfname]);
    this.#byRoute = options.table.index((a) => a.ips);
  }

  handleKernelEvents(events: readonly KernelEvent[]): void {
    /** The kernel does not say who changed a link, so our own attaching is heard too: the last notice of each tells. */
    const links = new Map<string, Extract<KernelEvent, { type: 'new' | 'delete' }>>();
    for (const event of events) {
      if (event.type === 'resync') this.#all = true;
      else if (event.type === 'nft' || event.type === 'sysctl' || event.own) continue;
      else if (event.object.kind === 'link') links.set(event.object.name, event);
      else this.#suspect(event);
    }
    for (const event of links.values()) if (!this.#isAsPlanned(event)) this.#suspect(event);
    if (this.#all || this.#suspects.size > 0) this.#schedule(SETTLE_MS);
  }

  #suspect({ object, by }: Extract<KernelEvent, { type: 'new' | 'delete' }>): void {
    // Of one change the kernel may send several notices, and not name who in each.
    for (const { id } of this.#concerned(object)) this.#suspects.set(id, by ?? this.#suspects.get(id));
  }

  /** A link that stands as it should calls for no look at the whole node, which costs more the more pods there are. */
  #isAsPlanned({ type, object }: Extract<KernelEvent, { type: 'new' | 'delete' }>): boolean {
    if (type === 'delete') return false;
    const host = new Observed([object]);
    const key = netObjectKey(object);
    return [...this.#concerned(object)].every((attachment) =>
      hostDifferences(planAttachment(attachment), host).every((difference) => difference.key !== key),
    );
  }

  #concerned(object: Extract<KernelEvent, { type: 'new' | 'delete' }>['object']): Iterable<Attachment> {
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
      this.#running = this.#running.then(() => this.#round());
    }, ms);
    this.#timer.unref();
  }

  async #round(): Promise<void> {
    const suspects = this.#suspects;
    const all = this.#all;
    this.#suspects = new Map();
    this.#all = false;
    try {
      if (all) await this.repairAll();
      else await this.#repairThese(suspects);
      this.#failures = 0;
    } catch (error) {
      this.#log.error({ error: messageOf(error) }, 'repairing attachments; trying again');
      this.#all ||= all;
      for (const [id, by] of suspects) if (!this.#suspects.has(id)) this.#suspects.set(id, by);
      this.#schedule(backoffDelay(++this.#failures, { min: 100, max: 10_000 }));
    }
  }

  /** Compare every attachment's node side with the kernel. Returns how many differed. @throws WEFT_NETLINK_REFUSED */
  async repairAll(): Promise<number> {
    return await this.#repairThese(new Map([...this.#table.keys()].map((id) => [id, undefined])));
  }

  async #repairThese(suspects: Map<string, Actor | undefined>): Promise<number> {
    // What was detached meanwhile is nobody's any more.
    if (![...suspects.keys()].some((id) => this.#table.has(id))) return 0;
    const differing = this.#differing(suspects.keys(), await observeHost(this.#kernel));
    if (differing.length === 0) return 0;
    // An ADD or DEL may have been under way when the host was observed: let it end, and look again.
    await Promise.all(differing.map(({ id }) => this.#mutex.run(id, async () => {})));
    const host = await observeHost(this.#kernel);
    let repaired = 0;
    let failure: unknown;
    for (const attachment of differing) {
      try {
        if (await this.#repairOne(attachment, suspects.get(attachment.id), host)) repaired++;
      } catch (error) {
        failure ??= error; // the others first
      }
    }
    if (failure !== undefined) throw failure;
    return repaired;
  }

  #differing(ids: Iterable<string>, host: Observed): Attachment[] {
    const found: Attachment[] = [];
    for (const id of ids) {
      const attachment = this.#table.get(id);
      if (attachment && hostDifferences(planAttachment(attachment), host).length > 0) found.push(attachment);
    }
    return found;
  }

  async #repairOne(attachment: Attachment, by: Actor | undefined, host: Observed): Promise<boolean> {
    const { id } = attachment;
    return await this.#mutex.run(id, async () => {
      // Another row by now: it was deleted or made anew since, and is right.
      if (this.#table.get(id) !== attachment || !(await this.#hasSandbox(attachment))) return false;
      const plan = planAttachment(attachment);
      const differences = hostDifferences(plan, host);
      if (differences.length === 0) return false;
      await repair(this.#kernel, plan, differences);
      this.#log.warn({ id, by, differences: differences.map((d) => d.text) }, 'repaired');
      this.#onDrift({ attachment, differences, ...(by && { by }) });
      return true;
    });
  }

  /** A pod that ends takes its veth along: no drift, and nothing to repair. */
  async #hasSandbox({ netns, netnsInode }: Attachment): Promise<boolean> {
    try {
      return (await this.#kernel.netnsInfo(netns)).inode === netnsInode;
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
    await this.#running;
  }
}
