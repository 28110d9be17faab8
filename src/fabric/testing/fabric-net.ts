/**
 * Nodes, pods and an outside host as network namespaces, with the fabric's compiler, the link reconciler and the node
 * filter on each node, and no agents: the fabric by itself, on the real kernel.
 *
 *   rack 0 (198.18.0.0/24, 2001:db8:0::/64)      rack 1 (198.18.1.0/24 …)
 *     n1   n2                                       n3
 *      └─┬──┘                                        │
 *      br0 ──────────── router ──────────────────── br1
 *                          └── outside (203.0.113.9, 2001:db8:ff::9)
 *
 * It is made strict on purpose: every node filters reverse paths (rp_filter 1), and the router answers packets with pod
 * addresses by "prohibited", as clouds do, so nothing works here by the kindness of the underlay.
 */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import { attachmentId, hostIfnameOf, macOf } from '../../attach/names.ts';
import { planAttachment } from '../../attach/plan-attachment.ts';
import { cidrAt, familyOf, hostCidr, type Ip } from '../../base/ip.ts';
import { silentLogger } from '../../base/log.ts';
import { attachSteps } from '../../datapath/attach/attach.ts';
import { type Drift, LinkReconciler } from '../../datapath/links/link-reconciler.ts';
import { NodeFilterReconciler } from '../../datapath/nftables/reconcile.ts';
import { openKernel } from '../../kernel/kernel.ts';
import type { Kernel } from '../../kernel/types.ts';
import type { FabricNode, FabricPlan } from '../../state/fabric-plan.ts';
import type { Endpoint, ProbeProcess, Topology } from '../compliance.ts';
import type { FabricConfig } from '../context.ts';
import { compileFabric } from '../plan.ts';
import { vtepMac } from '../vxlan/tunnel.ts';
import { softnetDrops } from './softnet.ts';

const run = promisify(execFile);

export interface FabricNetOptions {
  /** Tells test files apart; a few letters. */
  label: string;
  backend: FabricConfig['fabric']['backend'];
  /** Node numbers by rack, e.g. [[1, 2], [3]]. */
  racks: number[][];
  /** Families of the underlay; pods always have both. Default both. */
  underlay?: Array<4 | 6>;
  /** Nodes that differ from it. */
  familiesOf?: Record<number, Array<4 | 6>>;
  /** Of the underlay devices; default 1500. */
  mtu?: number;
  filter?: boolean;
}

interface Machine {
  number: number;
  name: string;
  ns: string;
  rack: number;
  nodeIPs: Ip[];
  podCIDRs: string[];
  /** Grows when the machine is replaced: a new namespace and new pods. */
  generation: number;
  reconciler: LinkReconciler;
  filter: NodeFilterReconciler;
  plan?: FabricPlan;
  watching: boolean;
  pods: Pod[];
}

interface Pod {
  name: string;
  ns: string;
  ips: Ip[];
  mtu: number;
}

export class FabricNet implements AsyncDisposable {
  readonly kernel: Kernel;
  readonly drifts: Drift[] = [];
  readonly #options: Required<FabricNetOptions>;
  readonly #prefix: string;
  readonly #machines = new Map<number, Machine>();
  /** Operations that the fabric asked of the kernel since the last reset. */
  operations = 0;

  private constructor(kernel: Kernel, options: FabricNetOptions) {
    this.kernel = kernel;
    this.#options = { underlay: [4, 6], familiesOf: {}, mtu: 1500, filter: true, ...options };
    this.#prefix = `wf${options.label}${process.pid}`;
  }

  static async create(options: FabricNetOptions): Promise<FabricNet> {
    const net = new FabricNet(await openKernel(), options);
    try {
      net.#wire();
      for (const [rack, numbers] of options.racks.entries()) {
        for (const number of numbers) net.#addMachine(number, rack, 0);
      }
      await net.sync();
      for (const machine of net.#machines.values()) await net.#attachPods(machine);
      return net;
    } catch (error) {
      await net[Symbol.asyncDispose]();
      throw error;
    }
  }

  // --- the machines ---

  machine(number: number): Machine {
    const machine = this.#machines.get(number);
    if (!machine) throw new Error(`no node n${number}`);
    return machine;
  }

  /** Run a command in a namespace, as an administrator would; what it does is not our own in the events. */
  sh(ns: string, ...argv: string[]): Promise<{ stdout: string }> {
    return run('nsenter', [`--net=${ns}`, ...argv]);
  }

  /** Compile and apply on every node, as the agents would after a change of the node list. */
  async sync(only?: number[]): Promise<void> {
    const nodes = [...this.#machines.values()].map(fabricNode);
    await Promise.all(
      [...this.#machines.values()]
        .filter(({ number }) => only?.includes(number) ?? true)
        .map(async (machine) => {
          const plan = compileFabric(fabricNode(machine), nodes, [this.#underlayOf(machine)], this.#config());
          machine.plan = plan;
          if (this.#options.filter) await machine.filter.apply(plan.filter);
          const report = await machine.reconciler.apply(plan.objects, plan.sysctls);
          if (!machine.watching) {
            machine.watching = true;
            await machine.reconciler.watch();
          }
          this.operations += report.operations;
          if (report.failures.length > 0)
            throw new Error(`${machine.name}: ${JSON.stringify(report.failures)}`);
          if (plan.problems.length > 0) throw new Error(`${machine.name}: ${JSON.stringify(plan.problems)}`);
        }),
    );
  }

  /** The agent of a node dies and comes back: everything it knew is gone, the kernel keeps forwarding. */
  async restartAgent(number: number): Promise<void> {
    const machine = this.machine(number);
    await machine.reconciler.close();
    machine.reconciler = this.#reconciler(machine.ns);
    machine.watching = false;
    machine.filter = new NodeFilterReconciler(this.kernel, machine.ns, silentLogger);
    await this.sync([number]);
  }

  /** A node joins; the pods of the others are as they were attached. */
  async join(number: number, rack: number): Promise<void> {
    const machine = this.#addMachine(number, rack, 0);
    await this.sync();
    await this.#attachPods(machine);
  }

  async changeAddress(number: number): Promise<void> {
    const machine = this.machine(number);
    const old = machine.nodeIPs;
    machine.nodeIPs = old.map((ip) =>
      familyOf(ip) === 4 ? ip.replace(/\d+$/, (n) => `${+n + 100}`) : `${ip}00`,
    );
    const address = (verb: string, ip: Ip): Promise<unknown> => {
      const nodad = verb === 'add' && ip.includes(':') ? ['nodad'] : [];
      return this.sh(machine.ns, 'ip', 'addr', verb, prefixed(ip), 'dev', 'eth0', ...nodad);
    };
    // The old ones first: with the first address of a subnet the kernel removes those that were added to it.
    for (const ip of old) await address('del', ip);
    for (const ip of machine.nodeIPs) await address('add', ip);
    for (const family of this.#familiesOf(number))
      await this.sh(machine.ns, ...defaultRoute(family, machine.rack));
    this.#introduce(machine);
    await this.sync();
  }

  /** The machine goes, and another one takes its name and pod CIDRs at another address; its VTEP MAC stays. */
  async replace(number: number): Promise<void> {
    const { rack, generation } = this.machine(number);
    await this.#removeMachine(number);
    await this.sync();
    const machine = this.#addMachine(number, rack, generation + 1);
    await this.sync();
    await this.#attachPods(machine);
  }

  /** What the compliance suite works on. */
  topology(events: Topology['events'] = []): Topology {
    const encapsulates = [...this.#machines.values()].every((m) =>
      m.plan?.objects.some((o) => o.kind === 'link' && o.name === 'weft-vxlan'),
    );
    return {
      endpoints: () =>
        [...this.#machines.values()].flatMap((m): Endpoint[] => [
          {
            name: `${m.name}#${m.generation}`,
            kind: 'node',
            node: m.name,
            addresses: m.nodeIPs,
            spawn: (argv) => spawnIn(m.ns, argv),
          },
          ...m.pods.map(
            (pod): Endpoint => ({
              name: pod.name,
              kind: 'pod',
              node: m.name,
              addresses: pod.ips,
              mtu: pod.mtu,
              spawn: (argv) => spawnIn(pod.ns, argv),
            }),
          ),
        ]),
      ...(this.#options.filter && {
        outside: {
          name: 'outside',
          kind: 'outside' as const,
          node: 'outside',
          addresses: this.#options.underlay.map((family) =>
            family === 4 ? '203.0.113.9' : '2001:db8:ff::9',
          ),
          spawn: (argv: string[]) => spawnIn(this.#path('x'), argv),
        },
        masquerades: true,
        ...(encapsulates && { vxlan: { vni: 1, port: 8472, vtepMac } }),
      }),
      dropped: softnetDrops,
      unallocated: [...this.#machines.values()].flatMap((m) => m.podCIDRs.map((cidr) => cidrAt(cidr, 200))),
      events,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const machine of this.#machines.values()) await machine.reconciler.close();
    await this.kernel[Symbol.asyncDispose]();
    const left = execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' })
      .split('\n')
      .map((line) => line.split(' ')[0]!)
      .filter((name) => name.startsWith(this.#prefix));
    execFileSync('ip', ['-batch', '-'], { input: left.map((name) => `netns del ${name}\n`).join('') });
  }

  // --- wiring ---

  #path(name: string): string {
    return `/run/netns/${this.#prefix}${name}`;
  }

  /** The router with one bridge per rack, and the outside host. */
  #wire(): void {
    this.#makeNs('r');
    this.#makeNs('x');
    const racks = this.#options.racks.map((_, rack) => rack);
    this.#batch('r', [
      ...racks.flatMap((rack) => [
        // A fixed address: a bridge without one takes the lowest of its ports, another one whenever a port comes or goes.
        `link add br${rack} address ${routerMac(rack)} type bridge forward_delay 0`,
        `link set br${rack} up mtu ${this.#options.mtu}`,
        `addr add 198.18.${rack}.254/24 dev br${rack}`,
        `addr add 2001:db8:${rack}::fe/64 dev br${rack} nodad`,
      ]),
      `link add out type veth peer name eth0 netns ${this.#prefix}x`,
      'link set out up',
      'addr add 203.0.113.254/24 dev out',
      'addr add 2001:db8:ff::fe/64 dev out nodad',
      // Pod addresses have no business on the underlay.
      'rule add from 10.244.0.0/16 prohibit prio 1',
    ]);
    const v6Rule = ['-6', 'rule', 'add', 'from', 'fd00:10:244::/48', 'prohibit', 'prio', '1'];
    execFileSync('ip', ['-n', `${this.#prefix}r`, ...v6Rule]);
    this.#batch('x', [
      'addr add 203.0.113.9/24 dev eth0',
      'addr add 2001:db8:ff::9/64 dev eth0 nodad',
      'link set eth0 up',
      'route add default via 203.0.113.254',
      'route add default via 2001:db8:ff::fe',
    ]);
    this.#sysctl('r', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  }

  #addMachine(number: number, rack: number, generation: number): Machine {
    const suffix = `n${number}`;
    this.#makeNs(suffix);
    this.#sysctl(suffix, 'net.ipv4.conf.all.rp_filter=1', 'net.ipv4.conf.default.rp_filter=1');
    // Not an address that its predecessor had: neighbours would have to forget its MAC first.
    const host = number + 50 * generation;
    const families = this.#familiesOf(number);
    const nodeIPs = families.map((family) =>
      family === 4 ? `198.18.${rack}.${host}` : `2001:db8:${rack === 0 ? '' : `${rack}:`}:${host}`,
    );
    this.#batch('r', [
      `link add p${number} type veth peer name eth0 address ${underlayMac(number, generation)} netns ${this.#prefix}${suffix}`,
      `link set p${number} up mtu ${this.#options.mtu} master br${rack}`,
    ]);
    this.#batch(suffix, [
      `link set eth0 mtu ${this.#options.mtu}`,
      ...nodeIPs.map((ip) => `addr add ${prefixed(ip)} dev eth0${ip.includes(':') ? ' nodad' : ''}`),
      'link set eth0 up',
      ...families.map((family) => defaultRoute(family, rack).slice(1).join(' ')),
    ]);
    const ns = this.#path(suffix);
    const machine: Machine = {
      number,
      name: suffix,
      ns,
      rack,
      nodeIPs,
      podCIDRs: [`10.244.${number}.0/24`, `fd00:10:244:${number}::/64`],
      generation,
      reconciler: this.#reconciler(ns),
      filter: new NodeFilterReconciler(this.kernel, ns, silentLogger),
      watching: false,
      pods: [],
    };
    this.#machines.set(number, machine);
    this.#introduce(machine);
    return machine;
  }

  /**
   * Permanent neighbours on the underlay. Dynamic ones are limited over all namespaces of the machine together (gc_thresh3,
   * 1024), so what other tests do would decide whether a packet arrives here.
   */
  #introduce(machine: Machine): void {
    const neighbours = (ips: Ip[], mac: string, dev: string): string[] =>
      ips.map((ip) => `neigh replace ${ip} lladdr ${mac} dev ${dev} nud permanent`);
    const mac = underlayMac(machine.number, machine.generation);
    const gateways = [`198.18.${machine.rack}.254`, `2001:db8:${machine.rack}::fe`];
    this.#batch('r', neighbours(machine.nodeIPs, mac, `br${machine.rack}`));
    this.#batch(machine.name, neighbours(gateways, routerMac(machine.rack), 'eth0'));
    for (const other of this.#machines.values()) {
      if (other === machine || other.rack !== machine.rack) continue;
      const itsMac = underlayMac(other.number, other.generation);
      this.#batch(other.name, neighbours(machine.nodeIPs, mac, 'eth0'));
      this.#batch(machine.name, neighbours(other.nodeIPs, itsMac, 'eth0'));
    }
  }

  async #removeMachine(number: number): Promise<void> {
    const machine = this.machine(number);
    await machine.reconciler.close();
    this.#machines.delete(number);
    execFileSync('ip', ['-batch', '-'], {
      input: [machine.ns, ...machine.pods.map(({ ns }) => ns)]
        .map((ns) => `netns del ${ns.replace('/run/netns/', '')}\n`)
        .join(''),
    });
    // The bridge port goes with the namespace of its other end, a moment later.
    this.#batch('r', [`link del p${number}`], true);
  }

  async #attachPods(machine: Machine): Promise<void> {
    // Two on the first node, for what happens within one; elsewhere one is enough.
    for (let i = 0; i < (machine.number === 1 ? 2 : 1); i++) {
      const name = `${machine.name}${'abcdef'[i]}`;
      this.#makeNs(name);
      const ips = machine.podCIDRs.map((cidr) => cidrAt(cidr, 10 + i));
      const id = attachmentId(`${this.#prefix}${name}${machine.generation}`, 'eth0');
      const mtu = machine.plan!.podMtu;
      const plan = planAttachment({
        id,
        containerId: name,
        ifname: 'eth0',
        network: 'weft',
        netns: this.#path(name),
        netnsInode: 0,
        ips: ips.map(hostCidr),
        mac: macOf(id),
        hostIfname: hostIfnameOf(id),
        mtu,
        createdAt: '2026-01-01T00:00:00Z',
      });
      // The steps are those of the agent, whose own namespace is the node's.
      const steps = attachSteps(plan).map((step) => (step.ns === '' ? { ...step, ns: machine.ns } : step));
      await this.kernel.must(
        steps.map((step) => ({ ...step, ops: step.ops.filter(({ op }) => op !== 'conntrack.purge') })),
      );
      machine.pods.push({
        name: `${machine.name}/${'abcdef'[i]}#${machine.generation}`,
        ns: this.#path(name),
        ips,
        mtu,
      });
    }
  }

  #reconciler(ns: string): LinkReconciler {
    return new LinkReconciler({
      kernel: this.kernel,
      ns,
      logger: silentLogger,
      onDrift: (drifts) => this.drifts.push(...drifts),
    });
  }

  #familiesOf(number: number): Array<4 | 6> {
    return this.#options.familiesOf[number] ?? this.#options.underlay;
  }

  #underlayOf({ rack, number }: Machine): { dev: string; mtu: number; onLink: string[] } {
    const onLink = this.#familiesOf(number).map((family) =>
      family === 4 ? `198.18.${rack}.0/24` : `2001:db8:${rack}::/64`,
    );
    return { dev: 'eth0', mtu: this.#options.mtu, onLink };
  }

  #config(): FabricConfig {
    return {
      clusterCIDRs: ['10.244.0.0/16', 'fd00:10:244::/48'],
      fabric: { backend: this.#options.backend, vxlanVni: 1, vxlanPort: 8472, mtu: 0 },
      masquerade: { enabled: true, exclude: [] },
    };
  }

  #makeNs(name: string): void {
    execFileSync('ip', ['netns', 'add', `${this.#prefix}${name}`]);
    this.#batch(name, ['link set lo up']);
    // Errors are what is tested here: none may be held back.
    this.#sysctl(name, 'net.ipv4.icmp_ratelimit=0', 'net.ipv6.icmp.ratelimit=0');
  }

  #batch(name: string, lines: string[], force = false): void {
    execFileSync('ip', ['-n', `${this.#prefix}${name}`, ...(force ? ['-force'] : []), '-batch', '-'], {
      input: `${lines.join('\n')}\n`,
      stdio: ['pipe', 'pipe', force ? 'ignore' : 'inherit'],
    });
  }

  #sysctl(name: string, ...assignments: string[]): void {
    execFileSync('nsenter', [`--net=${this.#path(name)}`, 'sysctl', '-qw', ...assignments]);
  }
}

const underlayMac = (number: number, generation: number): string => `02:00:00:00:0${generation}:0${number}`;
const routerMac = (rack: number): string => `02:00:00:00:bb:0${rack}`;

const fabricNode = (m: Machine): FabricNode => ({
  name: m.name,
  nodeIPs: m.nodeIPs,
  podCIDRs: m.podCIDRs,
  vtepMac: vtepMac(m.name),
});

const prefixed = (ip: Ip): string => `${ip}/${familyOf(ip) === 4 ? 24 : 64}`;

function defaultRoute(family: 4 | 6, rack: number): string[] {
  return family === 4
    ? ['ip', 'route', 'replace', 'default', 'via', `198.18.${rack}.254`]
    : ['ip', 'route', 'replace', 'default', 'via', `2001:db8:${rack}::fe`];
}

function spawnIn(ns: string, argv: string[]): ProbeProcess {
  const child = spawn('nsenter', [`--net=${ns}`, ...argv], { stdio: ['pipe', 'pipe', 'inherit'] });
  return { stdin: child.stdin, stdout: child.stdout, kill: () => child.kill('SIGKILL') };
}
