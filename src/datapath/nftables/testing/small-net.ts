/**
 * A node with two pods, and another node beyond it, in namespaces of their own; attached as Weft attaches, by `ip`:
 *
 *     pod a ── wefta ┐
 *                    ├ node ── eth0 ──── eth0 ── other
 *     pod b ── weftb ┘ 10.9.0.1          10.9.0.2 (a node), 10.9.0.3 (its second address), 192.0.2.1 (the world)
 */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import type { ScratchNamespaces } from '../../../kernel/testing/scratch.ts';
import type { NodeFilter } from '../../../state/fabric-plan.ts';

export const HOST_MAC = '02:57:65:66:74:01';
export const POD_A = { 4: '10.77.0.2', 6: 'fd77::2' } as const;
export const POD_B = { 4: '10.77.0.3', 6: 'fd77::3' } as const;
export const REMOTE_POD = { 4: '10.77.1.2', 6: 'fd77:0:0:1::2' } as const;
export const NODE = { 4: '10.9.0.1', 6: 'fd09::1' } as const;
export const OTHER = { 4: '10.9.0.2', 6: 'fd09::2' } as const;
export const OTHER_SECOND = { 4: '10.9.0.3', 6: 'fd09::3' } as const;
export const WORLD = { 4: '192.0.2.1', 6: '2001:db8::1' } as const;
export const PORT = 8472;

export const FILTER: NodeFilter = {
  podCIDRs: ['10.77.0.0/24', 'fd77::/64'],
  noMasquerade: ['10.77.0.0/16', 'fd77::/32', '10.9.0.1/32', '10.9.0.2/32', 'fd09::1/128', 'fd09::2/128'],
  vteps: [OTHER[4], OTHER[6]],
  encapPort: PORT,
  masquerade: true,
};

export interface SmallNet {
  node: string;
  a: string;
  b: string;
  other: string;
}

export function makeSmallNet(scratch: ScratchNamespaces): SmallNet {
  const net = { node: scratch.create(), a: scratch.create(), b: scratch.create(), other: scratch.create() };
  const name = (ns: string): string => path.basename(ns);
  batch(net.node, [
    `link add eth0 type veth peer name eth0 netns ${name(net.other)}`,
    ...(['a', 'b'] as const).flatMap((pod) =>
      podOnNode(`weft${pod}`, name(net[pod]), pod === 'a' ? POD_A : POD_B),
    ),
    `address add ${NODE[4]}/24 dev eth0`,
    `address add ${NODE[6]}/64 dev eth0 nodad`,
    ...linkLocal('fe80::901'),
    'link set eth0 up',
    `route add default via ${OTHER[4]}`,
    `route add ::/0 via ${OTHER[6]}`,
    `route add 10.77.1.0/24 via ${OTHER[4]}`,
    `route add fd77:0:0:1::/64 via ${OTHER[6]}`,
  ]);
  for (const pod of ['a', 'b'] as const) batch(net[pod], podInside(pod === 'a' ? POD_A : POD_B));
  batch(net.other, [
    ...[OTHER, OTHER_SECOND].flatMap((ip) => [
      `address add ${ip[4]}/24 dev eth0`,
      `address add ${ip[6]}/64 dev eth0 nodad`,
    ]),
    `address add ${WORLD[4]}/32 dev lo`,
    `address add ${WORLD[6]}/128 dev lo nodad`,
    ...linkLocal('fe80::902'),
    'link set eth0 up',
    `route add 10.77.0.0/24 via ${NODE[4]}`,
    `route add fd77::/64 via ${NODE[6]}`,
  ]);
  inside(net.node, 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  return net;
}

/** At once: while its own is still being checked for duplicates, a router asks nobody for neighbours. */
function linkLocal(ip: string): string[] {
  return ['link set eth0 addrgenmode none', `address add ${ip}/64 dev eth0 nodad`];
}

function podOnNode(dev: string, ns: string, ip: { 4: string; 6: string }): string[] {
  return [
    `link add ${dev} address ${HOST_MAC} group 0x57e0 type veth peer name eth0 netns ${ns}`,
    `link set ${dev} addrgenmode none`,
    `link set ${dev} up`,
    `route add ${ip[4]}/32 dev ${dev} proto 87`,
    `route add ${ip[6]}/128 dev ${dev} proto 87`,
  ];
}

function podInside(ip: { 4: string; 6: string }): string[] {
  return [
    'link set eth0 addrgenmode none', // no chatter of its own, which would be counted
    `address add ${ip[4]}/32 dev eth0`,
    `address add ${ip[6]}/128 dev eth0 nodad`,
    'link set eth0 up',
    `neighbour replace 169.254.1.1 lladdr ${HOST_MAC} dev eth0 nud permanent`,
    `neighbour replace fe80::1 lladdr ${HOST_MAC} dev eth0 nud permanent`,
    'route add default via 169.254.1.1 dev eth0 onlink',
    'route add ::/0 via fe80::1 dev eth0 onlink',
  ];
}

/** The pods' MACs on the node; they are made by the kernel. */
export function addPodNeighbours(net: SmallNet, macs: { a: string; b: string }): void {
  batch(
    net.node,
    (['a', 'b'] as const).flatMap((pod) =>
      Object.values(pod === 'a' ? POD_A : POD_B).map(
        (ip) => `neighbour replace ${ip} lladdr ${macs[pod]} dev weft${pod} nud permanent`,
      ),
    ),
  );
}

/** Many commands of `ip` by one process. */
export function batch(ns: string, commands: string[]): void {
  execFileSync('ip', ['-n', path.basename(ns), '-batch', '-'], { input: `${commands.join('\n')}\n` });
}

/** A program of the machine, run inside. */
export function inside(ns: string, ...command: string[]): string {
  return execFileSync('ip', ['netns', 'exec', path.basename(ns), ...command], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

export function nft(ns: string, ...commands: string[]): string {
  return inside(ns, 'nft', commands.join('; '));
}
