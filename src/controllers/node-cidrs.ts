/**
 * Gives each Node its pod CIDRs, one per family, out of the cluster CIDRs.
 *
 *   Node without podCIDRs ─▶ queue ─▶ allocate ─▶ conditional patch ─▶ comes back as a row and is adopted
 *   Node with podCIDRs ────────────▶ adopt: claimed as they are, whoever set them; a conflict is told, not mended
 *   Node gone ─────────────────────▶ blocks released; Nodes that wait for one are tried again
 *
 * Nothing is allocated before all Nodes are known, so a restart finds what was given. One instance may run at a time.
 */
import { type ApiClient, NODES } from '../api/client.ts';
import { isNotFound } from '../api/errors.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf, WeftError } from '../base/errors.ts';
import { type Cidr, type Family, parseCidr } from '../base/ip.ts';
import type { Logger } from '../base/log.ts';
import { structurallyEqual } from '../state/equal.ts';
import type { Change } from '../state/table.ts';
import type { SourcedTable } from '../state/table-source.ts';
import { CidrAllocator } from './cidr-allocator.ts';
import type { EventRecorder } from './event-recorder.ts';
import { type NodeRow, nodeReference, toNodeRow } from './rows.ts';
import { WorkQueue } from './work-queue.ts';

export interface NodeCidrConfig {
  /** At most one per family. Empty: nothing is allocated. */
  clusterCIDRs: Cidr[];
  /** Prefix length of a node's block; default 24 for IPv4, 64 for IPv6. */
  nodeMaskSizes?: { ipv4?: number; ipv6?: number };
}

export interface NodeCidrOptions {
  config: NodeCidrConfig;
  nodes: SourcedTable<NodeRow>;
  client: ApiClient;
  events: Pick<EventRecorder, 'event'>;
  clock: Clock;
  logger: Logger;
}

/** In order of the cluster CIDRs. @throws WEFT_BAD_CONFIG, WEFT_BAD_ADDRESS */
export function nodeCidrAllocators(config: NodeCidrConfig): CidrAllocator[] {
  const families = new Set<Family>();
  return config.clusterCIDRs.map((cidr) => {
    const { family } = parseCidr(cidr);
    if (families.has(family)) {
      throw new WeftError(
        'WEFT_BAD_CONFIG',
        `clusterCIDRs has more than one for IPv${family}: ${config.clusterCIDRs}`,
      );
    }
    families.add(family);
    const { ipv4 = 24, ipv6 = 64 } = config.nodeMaskSizes ?? {};
    return new CidrAllocator(cidr, family === 4 ? ipv4 : ipv6);
  });
}

export class NodeCidrController {
  readonly #options: NodeCidrOptions;
  readonly #allocators: CidrAllocator[];
  readonly #queue: WorkQueue;
  /** Node → what was allocated for it and may not have arrived yet. */
  readonly #reserved = new Map<string, Cidr[]>();
  /** Nodes for which there was nothing left. */
  readonly #waiting = new Set<string>();
  #subscription: Disposable | undefined;
  #closed = false;

  /** @throws WEFT_BAD_CONFIG, WEFT_BAD_ADDRESS */
  constructor(options: NodeCidrOptions) {
    this.#options = options;
    this.#allocators = nodeCidrAllocators(options.config);
    this.#queue = new WorkQueue({
      handle: (name) => this.#allocate(name),
      clock: options.clock,
      logger: options.logger,
    });
    if (this.#allocators.length > 0) void options.nodes.synced.then(() => this.#start()).catch(() => {});
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#subscription?.[Symbol.dispose]();
    await this.#queue.close();
  }

  #start(): void {
    if (this.#closed) return;
    this.#subscription = this.#options.nodes.table.subscribe((changes) => this.#take(changes), {
      initial: true,
    });
  }

  #take(changes: Change<NodeRow>[]): void {
    // All of a batch is adopted before anything is allocated.
    for (const { key, old, new: now } of changes) {
      if (now === undefined || (old && old.uid !== now.uid)) this.#release(key);
      if (
        now &&
        now.podCIDRs.length > 0 &&
        !(old?.uid === now.uid && structurallyEqual(old.podCIDRs, now.podCIDRs))
      ) {
        this.#adopt(now);
      }
    }
    for (const { key, new: now } of changes) if (now?.podCIDRs.length === 0) this.#queue.add(key);
  }

  #release(name: string): void {
    this.#waiting.delete(name);
    this.#reserved.delete(name);
    let released = false;
    for (const allocator of this.#allocators) released = allocator.release(name) || released;
    if (!released) return;
    for (const waiting of this.#waiting) this.#queue.add(waiting);
    this.#waiting.clear();
  }

  /** Whatever the Node says, it has. */
  #adopt({ key: name, uid, podCIDRs }: NodeRow): void {
    const { events, logger } = this.#options;
    if (structurallyEqual(this.#reserved.get(name), podCIDRs)) {
      this.#reserved.delete(name);
      logger.info({ node: name, podCIDRs }, 'pod CIDRs given');
      return;
    }
    this.#release(name);
    for (const cidr of podCIDRs) {
      try {
        const others = this.#allocators.flatMap((allocator) => allocator.claim(name, cidr));
        if (others.length > 0) {
          const message = `pod CIDR ${cidr} overlaps that of ${others.join(', ')}`;
          logger.error({ node: name, cidr, others }, 'two Nodes have overlapping pod CIDRs');
          events.event(nodeReference(name, uid), 'Warning', 'CIDRConflict', message);
        } else if (!this.#allocators.some((allocator) => allocator.covers(cidr))) {
          const message = `pod CIDR ${cidr} lies outside of ${this.#options.config.clusterCIDRs.join(', ')}`;
          logger.warn({ node: name, cidr }, 'pod CIDR outside of the cluster CIDRs');
          events.event(nodeReference(name, uid), 'Warning', 'CIDROutsideCluster', message);
        }
      } catch (error) {
        logger.error({ node: name, cidr, error: messageOf(error) }, 'a Node has a malformed pod CIDR');
        events.event(nodeReference(name, uid), 'Warning', 'CIDRMalformed', messageOf(error));
      }
    }
  }

  async #allocate(name: string): Promise<void> {
    const { client, nodes } = this.#options;
    const row = nodes.table.get(name);
    if (!row || row.podCIDRs.length > 0) return;
    const cidrs = this.#reserve(row);
    if (!cidrs) return;
    let node: NodeRow & { resourceVersion?: string };
    try {
      const found = await client.get(NODES, { name });
      const { resourceVersion } = found.metadata;
      node = { ...toNodeRow(found), ...(resourceVersion !== undefined && { resourceVersion }) };
    } catch (error) {
      if (isNotFound(error)) return; // its row goes too, and with it the reservation
      throw error;
    }
    // Set by somebody else, or by our own patch whose answer was lost; the row that says so is on its way.
    if (node.uid !== row.uid || node.podCIDRs.length > 0) return;
    await client.patch(
      NODES,
      { name },
      {
        metadata: { uid: row.uid, resourceVersion: node.resourceVersion },
        spec: { podCIDR: cidrs[0], podCIDRs: cidrs },
      },
    );
  }

  /** One block of each family, or nothing. */
  #reserve({ key: name, uid }: NodeRow): Cidr[] | undefined {
    const already = this.#reserved.get(name);
    if (already) return already;
    const cidrs: Cidr[] = [];
    for (const allocator of this.#allocators) {
      const cidr = allocator.allocate(name);
      if (cidr === undefined) {
        for (const each of this.#allocators) each.release(name);
        this.#waiting.add(name);
        const error = new WeftError(
          'WEFT_NODE_CIDR_EXHAUSTED',
          `cluster CIDR ${allocator.clusterCidr} has no /${allocator.blockLength} left: all ${allocator.capacity} are in use`,
          { details: { clusterCIDR: allocator.clusterCidr, node: name } },
        );
        this.#options.logger.error({ node: name, code: error.code, ...error.details }, error.message);
        this.#options.events.event(
          nodeReference(name, uid),
          'Warning',
          'CIDRNotAvailable',
          `${error.code}: ${error.message}`,
        );
        return undefined;
      }
      cidrs.push(cidr);
    }
    this.#reserved.set(name, cidrs);
    return cidrs;
  }
}
