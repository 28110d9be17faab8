/** A lab as the compliance suite of the fabrics wants it: pods, nodes and the outside host, and what may happen to them. */
import { execFile, spawn } from 'node:child_process';
import { promisify } from 'node:util';
import type { Pod } from '../../api/types.ts';
import { cidrAt, familyOf, type Ip } from '../../base/ip.ts';
import type { Endpoint, ProbeProcess, Topology } from '../../fabric/compliance.ts';
import { softnetDrops } from '../../fabric/testing/softnet.ts';
import { vtepMac } from '../../fabric/vxlan/tunnel.ts';
import { labReady, replaceNode } from '../lab.ts';
import { eventually } from './pod-lab.ts';
import { ipsOf, type TestLab } from './test-lab.ts';

const run = promisify(execFile);

export class LabTopology {
  readonly #lab: TestLab;
  /** By node: the addresses now, and how often the machine was another one. */
  readonly #nodes = new Map<string, { ips: Ip[]; generation: number }>();
  #pods: Array<{ node: string; pod: Pod; mtu: number }> = [];
  readonly #unallocated: Ip[] = [];

  private constructor(lab: TestLab) {
    this.#lab = lab;
    for (const { name, nodeIPs } of lab.topology.nodes)
      this.#nodes.set(name, { ips: nodeIPs, generation: 0 });
  }

  /** Two pods on the first node, for what happens within one; elsewhere one is enough. */
  static async of(lab: TestLab): Promise<LabTopology> {
    const topology = new LabTopology(lab);
    for (const ns of [lab.paths.netNetns, lab.paths.outsideNetns]) await unlimited(ns);
    await Promise.all(
      [...topology.#nodes.keys()].flatMap((node, i) => [
        unlimited(lab.paths.node(node).netns),
        topology.#addPod(node, 'a'),
        ...(i === 0 ? [topology.#addPod(node, 'b')] : []),
      ]),
    );
    await topology.#settled();
    return topology;
  }

  get pods(): readonly { node: string; pod: Pod }[] {
    return this.#pods;
  }

  async #addPod(node: string, letter: string): Promise<void> {
    const pod = await this.#lab.pod(`${node}-${letter}`, { nodeName: node });
    const ns = this.#lab.netnsOf(pod);
    await unlimited(ns);
    const { stdout } = await run('nsenter', [`--net=${ns}`, 'ip', '-j', 'link', 'show', 'eth0']);
    const [{ mtu }] = JSON.parse(stdout) as [{ mtu: number }];
    this.#pods.push({ node, pod, mtu });
  }

  /** What the suite works on. */
  topology(events: Topology['events'] = []): Topology {
    const { spec, outside } = this.#lab.topology;
    const encapsulates = spec.fabric === 'vxlan' || (spec.fabric === 'auto' && spec.subnets > 1);
    return {
      endpoints: () => [
        ...[...this.#nodes].map(
          ([node, { ips, generation }]): Endpoint => ({
            name: `${node}#${generation}`,
            kind: 'node',
            node,
            addresses: ips,
            spawn: spawnIn(this.#lab.paths.node(node).netns),
          }),
        ),
        ...this.#pods.map(
          ({ node, pod, mtu }): Endpoint => ({
            name: `${pod.metadata.name}#${this.#nodes.get(node)!.generation}`,
            kind: 'pod',
            node,
            addresses: ipsOf(pod),
            mtu,
            spawn: spawnIn(this.#lab.netnsOf(pod)),
          }),
        ),
      ],
      outside: {
        name: 'outside',
        kind: 'outside',
        node: 'outside',
        addresses: outside.ips,
        spawn: spawnIn(this.#lab.paths.outsideNetns),
      },
      masquerades: true,
      dropped: softnetDrops,
      unallocated: this.#unallocated,
      ...(encapsulates && { vxlan: { vni: 1, port: 8472, vtepMac } }),
      events,
    };
  }

  // --- what may happen ---

  /** The machine is renumbered under a running agent that finds its addresses by itself. */
  async renumber(node: string): Promise<void> {
    const lab = this.#lab;
    const { addresses, gateways } = lab.topology.nodes.find(({ name }) => name === node)!;
    lab.configureAgent(node, { nodeIPs: [] });
    await lab.restartAgent(node);
    const later = addresses.map((address) =>
      familyOf(address) === 4
        ? address.replace(/(\d+)\//, (_, n) => `${+n + 100}/`)
        : address.replace(/(\d+)\//, '$100/'),
    );
    for (const address of addresses) await lab.must(node, 'ip', 'address', 'del', address, 'dev', 'eth0');
    for (const address of later) {
      await lab.must(
        node,
        'ip',
        'address',
        'add',
        address,
        'dev',
        'eth0',
        ...(address.includes(':') ? ['nodad'] : []),
      );
    }
    for (const via of gateways) await lab.must(node, 'ip', 'route', 'replace', 'default', 'via', via);
    const ips = later.map((address) => address.split('/')[0]!);
    this.#nodes.get(node)!.ips = ips;
    await this.#settled();
  }

  /** Another machine takes the name; its pods are new ones. */
  async replace(node: string): Promise<void> {
    await replaceNode(this.#lab.name, node);
    await labReady(this.#lab.name);
    const entry = this.#nodes.get(node)!;
    entry.generation++;
    entry.ips = this.#lab.topology.nodes.find(({ name }) => name === node)!.nodeIPs;
    this.#pods = this.#pods.filter((each) => each.node !== node);
    await unlimited(this.#lab.paths.node(node).netns);
    await this.#addPod(node, 'a');
    await this.#settled();
  }

  /** Until the nodes have heard of each other as they are now: every node reaches every pod. */
  async #settled(): Promise<void> {
    const names = [...this.#nodes.keys()];
    const targets = this.#pods.flatMap(({ pod }) => ipsOf(pod));
    await Promise.all(
      names.map((from) =>
        eventually<true>(`${from} to reach all pods`, 20_000, async () => {
          const pings = targets.map((ip) => this.#lab.onNode(from, 'ping', '-nqc1', '-W1', ip));
          const silent = (await Promise.all(pings)).flatMap(({ code }, i) =>
            code === 0 ? [] : [targets[i]],
          );
          return silent.length === 0 ? true : { not: silent };
        }),
      ),
    );
    const cidrs = await Promise.all(names.map((name) => this.#lab.podCIDRs(name)));
    this.#unallocated.splice(0, Number.POSITIVE_INFINITY, ...cidrs.flat().map((cidr) => cidrAt(cidr, 200)));
  }
}

/** Errors are what is tested here: none may be held back. */
async function unlimited(ns: string): Promise<void> {
  await run('nsenter', [
    `--net=${ns}`,
    'sysctl',
    '-qew',
    'net.ipv4.icmp_ratelimit=0',
    'net.ipv6.icmp.ratelimit=0',
  ]);
}

const spawnIn =
  (ns: string) =>
  (argv: string[]): ProbeProcess => {
    const child = spawn('nsenter', [`--net=${ns}`, ...argv], { stdio: ['pipe', 'pipe', 'inherit'] });
    return { stdin: child.stdin, stdout: child.stdout, kill: () => child.kill('SIGKILL') };
  };
