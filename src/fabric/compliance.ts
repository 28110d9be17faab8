/**
 * What every fabric must do, whatever it is made of: one suite over a topology given by interface, so that it runs on
 * namespaces joined by hand, on the lab with its real agents, and on machines, for every backend there is or will be.
 *
 * Its rules are those of Kubernetes' network model (https://kubernetes.io/docs/concepts/services-networking/): pods reach
 * pods, and nodes pods, without NAT; the address that a pod sees for itself is the one that others see.
 */
import assert from 'node:assert/strict';
import type { Readable, Writable } from 'node:stream';
import { type Family, familyOf, type Ip, type Mac } from '../base/ip.ts';
import { encapsulatedDatagram } from './encapsulated-datagram.ts';
import { ProbeClient } from './probe-client.ts';

/** A pod, a host-network pod (which is its node), or a machine outside. */
export interface Endpoint {
  /** Unique. */
  name: string;
  kind: 'pod' | 'node' | 'outside';
  node: string;
  /** Its own addresses, at most one per family. */
  addresses: Ip[];
  /** Bytes; of a pod's interface. */
  mtu?: number;
  /** Run a program in its network namespace. */
  spawn(argv: string[]): ProbeProcess;
}

export interface ProbeProcess {
  stdin: Writable;
  stdout: Readable;
  kill(): void;
}

export interface Topology {
  /** All end points as they are now. */
  endpoints(): Endpoint[];
  /** A machine beyond the cluster. */
  outside?: Endpoint;
  /** Whether pods are masqueraded on the way there. */
  masquerades?: boolean;
  /** Addresses of pod CIDRs that no pod has. */
  unallocated?: Ip[];
  /** VXLAN, and whether packets from unknown hosts are filtered. */
  vxlan?: { vni: number; port: number; vtepMac(node: string): Mac };
  /**
   * Packets that the machine beneath has dropped so far for want of time, whoever's they were: a loss during which this
   * grew proves nothing.
   */
  dropped?(): number;
  /** What may happen to a cluster. */
  events?: Array<{
    name: string;
    run(): Promise<void>;
    /** Not one packet may be lost meanwhile; otherwise everything must hold again when it has happened. */
    lossless: boolean;
  }>;
}

/** One thing that must hold. */
export interface Check {
  group: string;
  name: string;
  /** @throws AssertionError, or an Error that says what did not arrive */
  run(): Promise<void>;
}

export type Command =
  | { do: 'tcp' | 'udp'; to: Ip; bytes: number }
  | { do: 'ping'; to: Ip; size: number }
  | { do: 'flow.start'; flow: string; to: Ip; intervalMs: number }
  | { do: 'flow.sent' | 'flow.stop'; flow: string }
  | { do: 'send'; to: Ip; port: number; hex: string }
  | { do: 'heard'; note: string };

export type Answer = { id: number; value: unknown } | { id: number; error: string };

export interface Flow {
  sent: number;
  /** Sequence numbers. */
  lost: number[];
}

/** Any port will do that is free everywhere, on nodes too. */
export const PROBE_PORT = 17_007;

/** Of an event during which nothing may be lost, on a machine that drops packets by itself. */
const ATTEMPTS = 5;

/** Start the probes, list the checks, end the probes. */
export class ComplianceSuite implements AsyncDisposable {
  readonly #topology: Topology;
  readonly #probes = new Map<string, ProbeClient>();

  constructor(topology: Topology) {
    this.#topology = topology;
  }

  /** Run a probe at every end point that has none yet, and end those whose end point is gone. */
  async start(): Promise<void> {
    const wanted = new Map(this.#all().map((endpoint) => [endpoint.name, endpoint]));
    for (const [name, probe] of this.#probes) {
      if (wanted.has(name)) continue;
      probe.end();
      this.#probes.delete(name);
    }
    const missing = [...wanted.values()].filter(({ name }) => !this.#probes.has(name));
    await Promise.all(
      missing.map(async (endpoint) => {
        const probe = new ProbeClient(endpoint, PROBE_PORT);
        this.#probes.set(endpoint.name, probe);
        await probe.ready;
      }),
    );
  }

  /** Everything but the events, in no particular order; checks are independent of each other. */
  checks(): Check[] {
    return [
      ...this.#reachability(),
      ...this.#fullSize(),
      ...this.#outside(),
      ...this.#refusals(),
      ...this.#forgeries(),
    ];
  }

  /** The events, in order: each without a lost packet, or else followed by all other checks. */
  eventChecks(): Check[] {
    return (this.#topology.events ?? []).map((event) => ({
      group: 'events',
      name: event.name,
      run: async () => {
        if (event.lossless) return await this.#losesNothing(event.run);
        await event.run();
        await this.start();
        await runChecks(this.checks());
      },
    }));
  }

  async #losesNothing(event: () => Promise<void>): Promise<void> {
    const dropped = (): number => this.#topology.dropped?.() ?? 0;
    for (let attempt = 1; ; attempt++) {
      const before = dropped();
      const flows = await this.#startFlows();
      await event();
      await this.#flowOn(flows);
      const losses: string[] = [];
      for (const { probe, flow, pair } of flows) {
        const { sent, lost } = (await probe.ask({ do: 'flow.stop', flow })) as Flow;
        if (lost.length > 0) losses.push(`${pair}: lost ${lost.length} of ${sent} packets`);
      }
      if (attempt < ATTEMPTS && losses.length > 0 && dropped() !== before) continue;
      assert.deepEqual(losses, []);
      return;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const probe of this.#probes.values()) probe.end();
    this.#probes.clear();
  }

  #all(): Endpoint[] {
    const { outside } = this.#topology;
    return [...this.#topology.endpoints(), ...(outside ? [outside] : [])];
  }

  #probe(endpoint: Endpoint): ProbeClient {
    const probe = this.#probes.get(endpoint.name);
    if (!probe) throw new Error(`no probe runs at ${endpoint.name}`);
    return probe;
  }

  /** Every ordered pair with a pod in it, and every family the target has. */
  #pairs(): Array<{ from: Endpoint; to: Endpoint; address: Ip; family: Family }> {
    const endpoints = this.#topology.endpoints();
    return endpoints.flatMap((from) =>
      endpoints.flatMap((to) => {
        if (from === to || (from.kind === 'node' && to.kind === 'node')) return [];
        return to.addresses.flatMap((address) => {
          const family = familyOf(address);
          // A node reaches pods of a family in which it has no address itself; a pod does not.
          if (from.kind === 'pod' && addressOf(from, family) === undefined) return [];
          return [{ from, to, address, family }];
        });
      }),
    );
  }

  #reachability(): Check[] {
    return this.#pairs().map(({ from, to, address, family }) => ({
      group: `${from.kind} to ${to.kind} ${from.node === to.node ? 'on one node' : 'across nodes'}, IPv${family}`,
      name: `${from.name} → ${to.name} (${address})`,
      run: async () => {
        const probe = this.#probe(from);
        const own = addressOf(from, family);
        const { ok, text } = (await probe.ask({ do: 'ping', to: address, size: 84 })) as Ping;
        assert.ok(ok, `ICMP: ${text}`);
        for (const command of ['tcp', 'udp'] as const) {
          const seen = await probe.ask({ do: command, to: address, bytes: command === 'tcp' ? 40_000 : 600 });
          // From a node to a pod of its own, and without an address of the family, any address of the node will do.
          if (own !== undefined && (from.kind === 'pod' || from.node !== to.node)) {
            assert.equal(seen, own, `${to.name} sees ${from.name} as ${seen} by ${command}`);
          }
        }
      },
    }));
  }

  /** The largest packet arrives whole; one byte more is refused at once, by whoever cannot carry it, never swallowed. */
  #fullSize(): Check[] {
    return this.#pairs()
      .filter(({ from, to }) => from.kind === 'pod' && from.mtu !== undefined && to.kind === 'pod')
      .map(({ from, to, address, family }) => ({
        group: `full size, IPv${family}`,
        name: `${from.name} → ${to.name}: ${from.mtu} bytes`,
        run: async () => {
          const probe = this.#probe(from);
          const mtu = Math.min(from.mtu!, to.mtu ?? from.mtu!);
          const fits = (await probe.ask({ do: 'ping', to: address, size: mtu })) as Ping;
          assert.ok(fits.ok, `${mtu} bytes did not arrive: ${fits.text}`);
          const over = (await probe.ask({ do: 'ping', to: address, size: mtu + 1 })) as Ping;
          assert.match(
            over.text,
            /message too long|Frag needed|Packet too big/i,
            `${mtu + 1} bytes: ${over.text}`,
          );
          // Large segments, coalesced and offloaded: every byte is compared.
          await probe.ask({ do: 'tcp', to: address, bytes: 1_000_000 });
        },
      }));
  }

  #outside(): Check[] {
    const { outside, masquerades } = this.#topology;
    if (!outside) return [];
    const endpoints = this.#topology.endpoints();
    return endpoints
      .filter(({ kind }) => kind === 'pod')
      .flatMap((pod) =>
        outside.addresses.flatMap((address) => {
          const family = familyOf(address);
          const node = endpoints.find((e) => e.kind === 'node' && e.node === pod.node);
          const own = addressOf(pod, family);
          const expected = masquerades ? node && addressOf(node, family) : own;
          if (own === undefined || expected === undefined) return [];
          return [
            {
              group: `to the outside, IPv${family}`,
              name: `${pod.name} → ${outside.name} (${address}) as ${expected}`,
              run: async () => {
                assert.equal(await this.#probe(pod).ask({ do: 'tcp', to: address, bytes: 40_000 }), expected);
                assert.equal(await this.#probe(pod).ask({ do: 'udp', to: address, bytes: 600 }), expected);
              },
            },
          ];
        }),
      );
  }

  /** An address that nobody has is answered for, not sent around or swallowed. */
  #refusals(): Check[] {
    const pods = this.#topology.endpoints().filter(({ kind }) => kind === 'pod');
    return (this.#topology.unallocated ?? []).flatMap((address) =>
      pods
        .filter((pod) => addressOf(pod, familyOf(address)) !== undefined)
        .map((pod) => ({
          group: 'unallocated addresses',
          name: `${pod.name} → ${address}`,
          run: async () => {
            const { ok, text } = (await this.#probe(pod).ask({ do: 'ping', to: address, size: 84 })) as Ping;
            assert.ok(!ok, `somebody answers at ${address}`);
            assert.match(text, /unreachable|No route/i, text);
          },
        })),
    );
  }

  /**
   * An encapsulated packet, as a VTEP would send it, arrives from a node, and from nobody else: not from a host that is none,
   * not from a pod.
   */
  #forgeries(): Check[] {
    const { vxlan, outside } = this.#topology;
    if (!vxlan) return [];
    const endpoints = this.#topology.endpoints();
    const nodes = endpoints.filter(({ kind }) => kind === 'node');
    const pods = endpoints.filter(({ kind }) => kind === 'pod');
    const checks: Check[] = [];
    for (const target of nodes) {
      const victim = pods.find((pod) => pod.node === target.node && addressOf(pod, 4) !== undefined);
      const friend = nodes.find((node) => node !== target);
      const pretended = pods.find((pod) => pod.node === friend?.node);
      if (!victim || !friend || !pretended) continue;
      const attempt = async (sender: Endpoint, outer: Ip): Promise<boolean> => {
        const note = `note:${sender.name}>${target.name}#${Math.random()};`;
        const hex = encapsulatedDatagram({
          vni: vxlan.vni,
          sourceMac: vxlan.vtepMac(friend.node),
          targetMac: vxlan.vtepMac(target.node),
          source: addressOf(pretended, 4)!,
          target: addressOf(victim, 4)!,
          port: PROBE_PORT,
          payload: note,
        });
        await this.#probe(sender).ask({ do: 'send', to: outer, port: vxlan.port, hex });
        for (let i = 0; i < 20; i++) {
          if (await this.#probe(victim).ask({ do: 'heard', note })) return true;
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        return false;
      };
      const outer = target.addresses[0]!;
      checks.push({
        group: 'encapsulated packets',
        name: `for ${victim.name}: from another node only`,
        run: async () => {
          assert.ok(
            await attempt(friend, outer),
            'a genuine one does not arrive either: the attempt proves nothing',
          );
          for (const pod of pods) {
            if (pod.node === target.node || pod.node === friend.node) {
              assert.ok(!(await attempt(pod, outer)), `one from the pod ${pod.name} arrives`);
            }
          }
          if (outside) assert.ok(!(await attempt(outside, outer)), `one from ${outside.name} arrives`);
        },
      });
    }
    return checks;
  }

  /** One flow for every pair of pods on different nodes, and from every node to a pod elsewhere. */
  async #startFlows(): Promise<StartedFlow[]> {
    const flows = this.#pairs()
      .filter(({ from, to }) => from.node !== to.node && to.kind === 'pod')
      .map(({ from, to, address }, i) => ({
        probe: this.#probe(from),
        flow: `flow ${i}`,
        pair: `${from.name} → ${to.name} (${address})`,
        to: address,
      }));
    await Promise.all(
      flows.map(({ probe, flow, to }) => probe.ask({ do: 'flow.start', flow, to, intervalMs: 10 })),
    );
    await this.#flowOn(flows);
    return flows;
  }

  /** Until every flow has sent ten packets more. */
  async #flowOn(flows: StartedFlow[]): Promise<void> {
    await Promise.all(
      flows.map(async ({ probe, flow, pair }) => {
        const sent = async (): Promise<number> => (await probe.ask({ do: 'flow.sent', flow })) as number;
        const enough = (await sent()) + 10;
        const deadline = Date.now() + 5000;
        while ((await sent()) < enough) {
          if (Date.now() > deadline) throw new Error(`${pair}: the flow sends nothing`);
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
      }),
    );
  }
}

interface StartedFlow {
  probe: ProbeClient;
  flow: string;
  pair: string;
}

interface Ping {
  ok: boolean;
  text: string;
}

/** Run them a few at a time; all failures in one error. */
export async function runChecks(checks: Check[], concurrency = 8): Promise<void> {
  const failed: string[] = [];
  const queue = [...checks];
  const work = async (): Promise<void> => {
    for (let check = queue.shift(); check; check = queue.shift()) {
      try {
        await check.run();
      } catch (error) {
        failed.push(
          `${check.group}: ${check.name}: ${error instanceof Error ? error.message : String(error)}`,
        );
      }
    }
  };
  await Promise.all(Array.from({ length: concurrency }, work));
  assert.equal(failed.length, 0, `${failed.length} of ${checks.length} checks failed:\n${failed.join('\n')}`);
}

function addressOf(endpoint: Endpoint, family: Family): Ip | undefined {
  return endpoint.addresses.find((ip) => familyOf(ip) === family);
}
