/**
 * Notices Nodes whose agent has gone silent, and those that speak again.
 *
 *   Lease renewed ──▶ alive        Lease not renewed for its duration ──▶ Ready := Unknown
 *   Ready Unknown ──▶ taint unreachable:NoSchedule       Ready False or absent ──▶ taint not-ready:NoSchedule
 *
 * Time is measured here, from when a renewal was seen, so the clocks of the nodes do not matter. What we could not see
 * is nobody's silence: while the API is away, after our own start, and after this process stood still (a suspended
 * machine), every Node has its full duration again.
 *
 * Source: https://kubernetes.io/docs/concepts/architecture/nodes/#node-heartbeats
 */
import { type ApiClient, NODES } from '../api/client.ts';
import { isNotFound } from '../api/errors.ts';
import { splitKey } from '../api/object-key.ts';
import type { Condition, Node, Taint } from '../api/types.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { SourcedTable } from '../state/table-source.ts';
import type { EventRecorder } from './event-recorder.ts';
import { type LeaseRow, type NodeRow, nodeReference, TAINT_NOT_READY, TAINT_UNREACHABLE } from './rows.ts';
import { syncedOrClosed } from './synced.ts';
import { WorkQueue } from './work-queue.ts';

/** Namespace of the Leases that agents renew, named like their Node. */
export const NODE_LEASE_NAMESPACE = 'kube-node-lease';

/** Reasons of a Ready condition that we set, and may take back. */
const SILENT = 'NodeStatusUnknown';
const NEVER_SPOKE = 'NodeStatusNeverUpdated';

const TICK_MS = 1000;
/** A tick so late means that we stood still. */
const STANDSTILL_MS = 10_000;
/** Seconds for a new Node to renew its Lease for the first time. */
const STARTUP_SECONDS = 60;

export interface NodeLifecycleOptions {
  nodes: SourcedTable<NodeRow>;
  /** Those of namespace kube-node-lease. */
  leases: SourcedTable<LeaseRow>;
  client: ApiClient;
  events: Pick<EventRecorder, 'event'>;
  clock: Clock;
  logger: Logger;
}

interface Pulse {
  uid: string;
  renewTime: string | undefined;
  /** When it was last known to live, or had to be given the benefit of the doubt. */
  at: number;
  /** A renewal was seen since we made its Ready Unknown, or since we started. */
  renewed: boolean;
  /** Its Ready condition before we made it Unknown. */
  before?: Condition;
}

export class NodeLifecycleController {
  readonly #options: NodeLifecycleOptions;
  readonly #pulses = new Map<string, Pulse>();
  readonly #queue: WorkQueue;
  readonly #closing = new AbortController();
  readonly #loop: Promise<void>;
  #lastTick = 0;

  constructor(options: NodeLifecycleOptions) {
    this.#options = options;
    this.#queue = new WorkQueue({
      handle: (name) => this.#settle(name),
      clock: options.clock,
      logger: options.logger,
    });
    this.#loop = this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#loop;
    await this.#queue.close();
  }

  async #run(): Promise<void> {
    const { clock, leases, nodes } = this.#options;
    const { signal } = this.#closing;
    await syncedOrClosed([nodes, leases], signal);
    if (signal.aborted) return;
    this.#lastTick = clock.now();
    // Changes are answered at once; the tick finds what does not happen.
    using _nodes = nodes.table.subscribe(
      (changes) => {
        for (const { key } of changes) this.#lookAt(nodes.table.get(key));
      },
      { initial: true },
    );
    using _leases = leases.table.subscribe((changes) => {
      for (const { key } of changes) this.#lookAt(nodes.table.get(splitKey(key).name));
    });
    while (!signal.aborted) {
      for (const node of nodes.table.values()) this.#lookAt(node);
      if (this.#pulses.size > nodes.table.size) {
        for (const name of this.#pulses.keys()) if (!nodes.table.has(name)) this.#pulses.delete(name);
      }
      this.#lastTick = clock.now();
      await clock.sleep(TICK_MS, signal).catch(() => {});
    }
  }

  /** Takes a Node's pulse, and queues it if its object does not say what it ought to. */
  #lookAt(node: NodeRow | undefined): void {
    if (!node) return;
    const { clock, leases, nodes } = this.#options;
    const now = clock.now();
    const blind = now - this.#lastTick > STANDSTILL_MS || !nodes.connected || !leases.connected;
    const lease = leases.table.get(`${NODE_LEASE_NAMESPACE}/${node.key}`);
    let pulse = this.#pulses.get(node.key);
    if (!pulse || pulse.uid !== node.uid) {
      pulse = { uid: node.uid, renewTime: lease?.renewTime, at: now, renewed: false };
      this.#pulses.set(node.key, pulse);
    } else if (lease && lease.renewTime !== pulse.renewTime) {
      pulse.renewTime = lease.renewTime;
      pulse.at = now;
      pulse.renewed = true;
    } else if (blind) pulse.at = now;
    if (!blind && this.#isWrong(node, pulse, now)) this.#queue.add(node.key);
  }

  #isSilent(name: string, pulse: Pulse, now: number): boolean {
    const lease = this.#options.leases.table.get(`${NODE_LEASE_NAMESPACE}/${name}`);
    return now - pulse.at > (lease?.duration ?? STARTUP_SECONDS) * 1000;
  }

  #isWrong(node: NodeRow, pulse: Pulse, now: number): boolean {
    const silent = this.#isSilent(node.key, pulse, now);
    if (silent && node.ready !== 'Unknown') return true;
    if (!silent && pulse.renewed && node.ready === 'Unknown' && isOurs(node.readyReason)) return true;
    const taint = taintFor(node.ready);
    return node.taints.join() !== (taint ? `${taint}:NoSchedule` : '');
  }

  /** Makes status and taints of one Node what they ought to be, on a fresh copy. */
  async #settle(name: string): Promise<void> {
    const { client, clock } = this.#options;
    const pulse = this.#pulses.get(name);
    if (!pulse) return;
    try {
      let node = await client.get(NODES, { name });
      if (node.metadata.uid !== pulse.uid) return;
      const ready = node.status?.conditions?.find((condition) => condition.type === 'Ready');
      const next = this.#readyFor(name, ready, pulse, clock.now());
      if (next) node = await this.#setReady(node, ready, next, pulse);
      await this.#setTaint(node, next ?? ready);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }

  /** The Ready condition to set; undefined: it is right. */
  #readyFor(name: string, ready: Condition | undefined, pulse: Pulse, now: number): Condition | undefined {
    const time = new Date(now).toISOString().replace(/\.\d+Z$/, 'Z');
    if (this.#isSilent(name, pulse, now)) {
      if (ready?.status === 'Unknown') return undefined;
      return {
        type: 'Ready',
        status: 'Unknown',
        reason: ready ? SILENT : NEVER_SPOKE,
        message: ready
          ? 'The node agent stopped renewing its Lease.'
          : 'The node agent never posted node status.',
        lastHeartbeatTime: ready?.lastHeartbeatTime ?? time,
        lastTransitionTime: time,
      };
    }
    if (!pulse.renewed || ready?.status !== 'Unknown' || !isOurs(ready.reason)) return undefined;
    // The agent lives. What it said of itself last holds until it says something new.
    const before = pulse.before ?? {
      type: 'Ready',
      status: 'True' as const,
      reason: 'LeaseRenewed',
      message: 'The node agent renews its Lease again.',
    };
    return { ...before, lastHeartbeatTime: time, lastTransitionTime: time };
  }

  async #setReady(node: Node, old: Condition | undefined, next: Condition, pulse: Pulse): Promise<Node> {
    const { client, events, logger } = this.#options;
    const { name, resourceVersion, uid } = node.metadata;
    const others = (node.status?.conditions ?? []).filter((condition) => condition.type !== 'Ready');
    const patched = await client.patch(
      NODES,
      { name },
      { metadata: { resourceVersion, uid }, status: { conditions: [...others, next] } },
      { subresource: 'status' },
    );
    if (next.status === 'Unknown') {
      pulse.renewed = false;
      if (old) pulse.before = old;
    } else delete pulse.before;
    logger.warn(
      { node: name, from: old?.status, to: next.status, reason: next.reason },
      'Node readiness changed',
    );
    const reason = next.status === 'True' ? 'NodeReady' : 'NodeNotReady';
    const message = `Node ${name} status is now: ${reason}${next.message ? ` (${next.message})` : ''}`;
    events.event(
      nodeReference(name, uid ?? ''),
      next.status === 'True' ? 'Normal' : 'Warning',
      reason,
      message,
    );
    return patched;
  }

  async #setTaint(node: Node, ready: Condition | undefined): Promise<void> {
    const { name, resourceVersion, uid } = node.metadata;
    const wanted = taintFor(ready?.status);
    const before = node.spec?.taints ?? [];
    const ours = (taint: Taint): boolean => taint.key === TAINT_NOT_READY || taint.key === TAINT_UNREACHABLE;
    const mine = before.filter(ours);
    if (
      wanted
        ? mine.length === 1 && mine[0]!.key === wanted && mine[0]!.effect === 'NoSchedule'
        : mine.length === 0
    ) {
      return;
    }
    const taints: Taint[] = before.filter((taint) => !ours(taint));
    if (wanted) taints.push({ key: wanted, effect: 'NoSchedule' });
    await this.#options.client.patch(
      NODES,
      { name },
      { metadata: { resourceVersion, uid }, spec: { taints } },
    );
  }
}

function isOurs(reason: string | undefined): boolean {
  return reason === SILENT || reason === NEVER_SPOKE;
}

function taintFor(ready: NodeRow['ready']): string | undefined {
  if (ready === 'True') return undefined;
  return ready === 'Unknown' ? TAINT_UNREACHABLE : TAINT_NOT_READY;
}
