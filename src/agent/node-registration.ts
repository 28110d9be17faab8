/**
 * The node's own objects in the API: the Node with its addresses, the Lease that says it lives, the Ready condition.
 *
 * Under a kubelet (`registerNode: false`) the Node is the kubelet's; Weft then only writes its own annotation and the
 * NetworkUnavailable condition, as network plugins do.
 */
import os from 'node:os';
import { type ApiClient, LEASES, NODES } from '../api/client.ts';
import { isConflict, isNotFound } from '../api/errors.ts';
import type { Condition, Lease, Node } from '../api/types.ts';
import type { Clock } from '../base/clock.ts';
import { messageOf } from '../base/errors.ts';
import type { Cidr, Ip } from '../base/ip.ts';
import type { Logger } from '../base/log.ts';

/** Kubernetes' own numbers (kubelet --node-lease-duration-seconds, --node-status-update-frequency). */
const LEASE_SECONDS = 40;
const RENEW_MS = 10_000;
const LEASE_NAMESPACE = 'kube-node-lease';

export interface NodeFacts {
  name: string;
  addresses: Ip[];
  annotations: Record<string, string>;
  /** Pods here hold addresses of these: a Node that has to be made again keeps them. */
  podCIDRs?: Cidr[];
}

export class NodeRegistration {
  readonly #client: ApiClient;
  readonly #clock: Clock;
  readonly #log: Logger;
  readonly #owns: boolean;
  readonly #abort = new AbortController();
  #facts: NodeFacts;
  #beating: Promise<void> | undefined;
  #lastStatus = '';
  /** As {@link register} last found it. */
  #node: Node | undefined;

  constructor(options: {
    client: ApiClient;
    clock: Clock;
    logger: Logger;
    facts: NodeFacts;
    ownsNode: boolean;
  }) {
    this.#client = options.client;
    this.#clock = options.clock;
    this.#log = options.logger;
    this.#facts = options.facts;
    this.#owns = options.ownsNode;
  }

  /** Create the Node or bring it up to date. Retries are the caller's. @throws ApiError, WEFT_API_UNREACHABLE */
  async register(): Promise<Node> {
    const { name, annotations, podCIDRs = [] } = this.#facts;
    const labels = {
      'kubernetes.io/hostname': name,
      'kubernetes.io/os': 'linux',
      'kubernetes.io/arch': os.arch() === 'x64' ? 'amd64' : os.arch(),
    };
    if (this.#owns) {
      try {
        await this.#client.get(NODES, { name });
      } catch (error) {
        if (!isNotFound(error)) throw error;
        if (this.#node) this.#log.warn('the Node object was deleted while its agent runs; it is made again');
        await this.#client.create<Node>(NODES, {
          apiVersion: 'v1',
          kind: 'Node',
          metadata: { name, labels, annotations },
          spec: podCIDRs.length > 0 ? { podCIDR: podCIDRs[0]!, podCIDRs } : {},
        });
      }
    }
    this.#node = await this.#client.patch<Node>(
      NODES,
      { name },
      { metadata: this.#owns ? { annotations, labels } : { annotations } },
    );
    return this.#node;
  }

  /** The node has other addresses or annotations than before. */
  async update(facts: NodeFacts): Promise<void> {
    this.#facts = facts;
    await this.register();
  }

  /**
   * Write the conditions and addresses; does nothing when they are as last written, to this very Node object. To be called after
   * {@link update}.
   * `reason` and `message` explain a node that is not ready.
   */
  async setReady(ready: boolean, reason: string, message: string): Promise<void> {
    const uid = this.#node?.metadata.uid;
    const fingerprint = JSON.stringify([uid, this.#facts.addresses, ready, reason, message]);
    if (fingerprint === this.#lastStatus && this.#bearsStatus()) return;
    await this.#writeStatus(ready, reason, message);
    this.#lastStatus = fingerprint;
  }

  /** Whether what we wrote is there still; what others made of the conditions is their affair (Ready of a silent node is Unknown). */
  #bearsStatus(): boolean {
    const { addresses = [], conditions = [] } = this.#node?.status ?? {};
    const types = this.#owns ? ['NetworkUnavailable', 'Ready'] : ['NetworkUnavailable'];
    return (
      types.every((type) => conditions.some((condition) => condition.type === type)) &&
      (!this.#owns || this.#facts.addresses.every((ip) => addresses.some(({ address }) => address === ip)))
    );
  }

  async #writeStatus(ready: boolean, reason: string, message: string): Promise<void> {
    const now = new Date(this.#clock.now()).toISOString();
    const condition = (type: string, status: boolean, why: string, text: string): Condition => ({
      type,
      status: status ? 'True' : 'False',
      reason: why,
      message: text,
      lastHeartbeatTime: now,
      lastTransitionTime: now,
    });
    const node = await this.#client.get(NODES, { name: this.#facts.name });
    const { resourceVersion } = node.metadata;
    const current = node.status?.conditions ?? [];
    const fresh: Condition[] = [
      condition(
        'NetworkUnavailable',
        !ready,
        ready ? 'WeftIsUp' : reason,
        ready ? 'Weft is running on this node' : message,
      ),
      ...(this.#owns ? [condition('Ready', ready, ready ? 'WeftReady' : reason, message)] : []),
    ];
    for (const next of fresh) {
      const before = current.find((c) => c.type === next.type);
      if (before?.status === next.status && before.lastTransitionTime)
        next.lastTransitionTime = before.lastTransitionTime;
    }
    const status: NonNullable<Node['status']> = { conditions: fresh };
    if (this.#owns) {
      const cpu = String(os.cpus().length);
      const memory = `${Math.floor(os.totalmem() / 1024)}Ki`;
      const size = { cpu, memory, pods: '1100', 'ephemeral-storage': '0' };
      Object.assign(status, {
        addresses: [
          ...this.#facts.addresses.map((address) => ({ type: 'InternalIP' as const, address })),
          { type: 'Hostname' as const, address: this.#facts.name },
        ],
        capacity: size,
        allocatable: size,
        nodeInfo: {
          architecture: os.arch() === 'x64' ? 'amd64' : os.arch(),
          bootID: '',
          containerRuntimeVersion: 'weft://0.1.0',
          kernelVersion: os.release(),
          kubeProxyVersion: '',
          kubeletVersion: 'v1.32.0-weft.0.1.0',
          machineID: '',
          operatingSystem: 'linux',
          osImage: 'Linux',
          systemUUID: '',
        },
      });
    }
    const ref = { name: this.#facts.name };
    if (!this.#owns) {
      // Conditions merge by type, so the kubelet's own stay.
      await this.#client.patch(NODES, ref, { status }, { type: 'strategic', subresource: 'status' });
      return;
    }
    // Strategic patches merge addresses by type too (core/v1 NodeStatus), which loses one of two InternalIPs.
    const others = current.filter((old) => !fresh.some((next) => next.type === old.type));
    const patch = { metadata: { resourceVersion }, status: { ...status, conditions: [...others, ...fresh] } };
    await this.#client.patch(NODES, ref, patch, { type: 'merge', subresource: 'status' });
  }

  /** Renew the Lease every ten seconds until {@link close}. Failures are logged and tried again. */
  startHeartbeat(): void {
    if (!this.#owns || this.#beating) return;
    this.#beating = this.#beat();
  }

  async #beat(): Promise<void> {
    const { signal } = this.#abort;
    while (!signal.aborted) {
      try {
        await this.#renew();
      } catch (error) {
        this.#log.warn({ error: messageOf(error) }, 'cannot renew the node lease');
      }
      await this.#clock.sleep(RENEW_MS, signal).catch(() => {});
    }
  }

  async #renew(): Promise<void> {
    const name = this.#facts.name;
    const renewTime = microTime(this.#clock.now());
    const spec = { holderIdentity: name, leaseDurationSeconds: LEASE_SECONDS, renewTime };
    try {
      await this.#client.patch(LEASES, { name, namespace: LEASE_NAMESPACE }, { spec });
    } catch (error) {
      if (isConflict(error)) return; // another writer, the next beat settles it
      if (!isNotFound(error)) throw error;
      await this.#client.create<Lease>(LEASES, {
        apiVersion: 'coordination.k8s.io/v1',
        kind: 'Lease',
        metadata: { name, namespace: LEASE_NAMESPACE },
        spec,
      });
    }
  }

  async close(): Promise<void> {
    this.#abort.abort();
    await this.#beating;
  }
}

/** metav1.MicroTime: RFC 3339 with six digits of fraction. */
function microTime(ms: number): string {
  return new Date(ms).toISOString().replace(/\.(\d{3})Z$/, '.$1000Z');
}
