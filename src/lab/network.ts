/** A topology as programs for the kernel door. Every step is idempotent, so making a lab and repairing one are the same. */

import { createServer } from 'node:net';
import { isWeftError, WeftError } from '../base/errors.ts';
import { cidrContains, familyOf, type Mac, parseCidr } from '../base/ip.ts';
import type { Kernel, Op, RunResult, Step } from '../kernel/types.ts';
import type { LabPaths } from './paths.ts';
import type { NodeTopology, Topology } from './topology.ts';

/** Addresses of the lab are usable at once: nobody else can have them, so there is nothing to detect (RFC 4862 §5.4). */
const QUIET: Op[] = (['default', 'all'] as const).flatMap((scope) => [
  { op: 'sysctl.write', path: `net/ipv6/conf/${scope}/accept_dad`, value: 0 },
  { op: 'sysctl.write', path: `net/ipv6/conf/${scope}/dad_transmits`, value: 0 },
  { op: 'sysctl.write', path: `net/ipv6/conf/${scope}/accept_ra`, value: 0 },
]);

/** A machine that comes with the address of another tells its neighbours at once, as network managers do (RFC 5227 §3, RFC 4861 §7.2.6). */
const ANNOUNCED: Op[] = [
  { op: 'sysctl.write', path: 'net/ipv4/conf/all/arp_notify', value: 1 },
  { op: 'sysctl.write', path: 'net/ipv6/conf/all/ndisc_notify', value: 1 },
];

/** The router: a bridge per subnet, and the link to the outside host. Its namespaces must be there. */
export function routerSteps(topology: Topology, paths: LabPaths): Step[] {
  const { mtu, outside } = topology;
  const ns = paths.netNetns;
  return [
    { ns, ops: QUIET, continueOnError: true },
    { ns: paths.outsideNetns, ops: QUIET, continueOnError: true },
    {
      ns,
      ops: [
        { op: 'sysctl.write', path: 'net/ipv4/ip_forward', value: 1 },
        ...(topology.spec.families.includes(6)
          ? [{ op: 'sysctl.write' as const, path: 'net/ipv6/conf/all/forwarding', value: 1 }]
          : []),
      ],
    },
    ...topology.subnets.flatMap((subnet, i): Step[] => [
      step(ns, {
        op: 'link.create',
        link: { kind: 'link', name: subnet.bridge, type: 'bridge', mtu, mac: routerMac(i + 1) },
      }),
      {
        ns,
        ops: [
          ...subnet.addresses.map((address): Op => addressOp(subnet.bridge, address)),
          { op: 'link.set', link: { name: subnet.bridge, up: true } },
        ],
      },
    ]),
    step(ns, {
      op: 'link.create',
      link: {
        kind: 'link',
        name: 'outside',
        type: 'veth',
        mtu,
        peer: { name: 'eth0', netns: paths.outsideNetns, mtu },
      },
    }),
    {
      ns,
      ops: [
        ...outside.routerAddresses.map((address): Op => addressOp('outside', address)),
        { op: 'link.set', link: { name: 'outside', up: true } },
      ],
    },
    {
      ns: paths.outsideNetns,
      ops: [
        ...outside.addresses.map((address): Op => addressOp('eth0', address)),
        { op: 'link.set', link: { name: 'eth0', up: true } },
        ...outside.gateways.map((via): Op => defaultRoute(via)),
      ],
    },
  ];
}

/** A node's cable to the bridge of its subnet. */
export function nodeSteps(node: NodeTopology, topology: Topology, paths: LabPaths): Step[] {
  const { netns } = paths.node(node.name);
  const { bridge } = topology.subnets[node.subnet - 1]!;
  const { mtu } = topology;
  return [
    { ns: netns, ops: [...QUIET, ...ANNOUNCED], continueOnError: true },
    step(paths.netNetns, {
      op: 'link.create',
      link: { kind: 'link', name: node.port, type: 'veth', mtu, peer: { name: 'eth0', netns, mtu } },
    }),
    {
      ns: paths.netNetns,
      ops: [{ op: 'link.set', link: { name: node.port, master: bridge, up: true } }],
    },
    {
      ns: netns,
      ops: [
        ...node.addresses.map((address): Op => addressOp('eth0', address)),
        { op: 'link.set', link: { name: 'eth0', up: true } },
        ...node.gateways
          .filter((via) => node.addresses.some((address) => cidrContains(network(address), via)))
          .map((via): Op => defaultRoute(via)),
      ],
    },
  ];
}

/** The router and the outside host. @throws what {@link Kernel.run} throws, WEFT_NETLINK_REFUSED */
export async function ensureRouter(kernel: Kernel, topology: Topology, paths: LabPaths): Promise<void> {
  await Promise.all([paths.netNetns, paths.outsideNetns].map((ns) => ensureNetns(kernel, ns)));
  await runSteps(kernel, routerSteps(topology, paths));
}

/** A node's network namespace and its cable; the router must be there. */
export async function ensureNode(
  kernel: Kernel,
  node: NodeTopology,
  topology: Topology,
  paths: LabPaths,
): Promise<void> {
  await ensureNetns(kernel, paths.node(node.name).netns);
  await runSteps(kernel, nodeSteps(node, topology, paths));
}

export async function ensureNetns(kernel: Kernel, ns: string): Promise<void> {
  try {
    await kernel.netnsCreate(ns);
  } catch (error) {
    if (!isWeftError(error, 'WEFT_NETNS_EXISTS')) throw error;
  }
}

/** Like {@link Kernel.must}, but a link that is there already is as good as made, and kernels without IPv6 lack some sysctls. */
async function runSteps(kernel: Kernel, steps: Step[]): Promise<void> {
  const result: RunResult = await kernel.run(steps);
  const failure = result.failures.find(
    (f) => !f.gone && f.errnoName !== 'EEXIST' && steps[f.step]!.ops[f.op]!.op !== 'sysctl.write',
  );
  if (failure) {
    throw new WeftError('WEFT_NETLINK_REFUSED', `${steps[failure.step]!.ns}: ${failure.message}`, {
      details: { errno: failure.errnoName, op: steps[failure.step]!.ops[failure.op] },
    });
  }
}

/** A bridge without an address of its own takes one of its ports', another one when a machine comes or goes: no gateway does that. */
const routerMac = (subnet: number): Mac => `02:57:29:00:00:${subnet.toString(16).padStart(2, '0')}`;

/** A link that may be there already: alone in its step, so that EEXIST stops nothing. */
const step = (ns: string, op: Op): Step => ({ ns, ops: [op], continueOnError: true });

const network = (address: string): string => {
  const { network: first, length } = parseCidr(address);
  return `${first}/${length}`;
};

const addressOp = (dev: string, address: string): Op => ({
  op: 'address.replace',
  address: { kind: 'address', dev, address, ...(familyOf(address) === 6 && { noDad: true }) },
});

const defaultRoute = (via: string): Op => ({
  op: 'route.replace',
  // Not Weft's protocol number: these are the machine's own routes, which an agent must leave alone. 4 is RTPROT_STATIC.
  route: { kind: 'route', dst: familyOf(via) === 4 ? '0.0.0.0/0' : '::/0', via, dev: 'eth0', protocol: 4 },
});

/** A TCP port of 127.0.0.1 that nobody listens on at this moment. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number };
      server.close(() => resolve(port));
    });
  });
}
