/**
 * The network of a two-node cluster as an expert would make it by hand: `ip`, `bridge` and nothing else. It is what Weft's
 * own is measured against, so it has the same devices with the same MTU in the same places, and no firewall rules at all.
 *
 * ```
 *   pod-1-1 ──eth0─p1┐                                        ┌p1─eth0── pod-2-1
 *                    ├ node-1 ──eth0────┐        ┌────eth0── node-2
 *   pod-1-2 ──eth0─p2┘  └(vx)┄┄┄┄┄┄ node-1 br1 node-2 ┄┄┄┄┄(vx)┘
 *                                     └── net ───┘
 * ```
 *
 * Pods have a /32 and a gateway that nobody is (169.254.1.1); neighbours are permanent; nodes route.
 */
import { netnsName, run, type Scope } from './scope.ts';

export interface HandMadeOptions {
  /** Tells it from the other networks of this run. */
  label: string;
  fabric: 'vxlan' | 'host-gw';
  /** Bytes. */
  podMtu: number;
  /** Masquerade what pods send out of the cluster: the one nft rule (and with it connection tracking) that real pods need. */
  masquerade: boolean;
}

export interface HandMade {
  /** Path of a pod's network namespace and its address. Nodes and pods are counted from 1. */
  pod(node: number, number: number): { netns: string; address: string };
  /** Path of a node's network namespace. */
  node(number: number): string;
}

const UNDERLAY_MTU = 1500;
const NODES = [1, 2];
const PODS_PER_NODE = 2;
const GATEWAY = '169.254.1.1';

const nodeAddress = (node: number): string => `172.29.1.1${node}`;
const podCidr = (node: number): string => `10.244.${node}.0/24`;
const vtepAddress = (node: number): string => `10.244.${node}.0`;
const vtepMac = (node: number): string => `02:00:00:00:0f:0${node}`;
const podAddress = (node: number, pod: number): string => `10.244.${node}.1${pod}`;
const podMac = (node: number, pod: number): string => `02:00:00:00:0${node}:1${pod}`;
const HOST_MAC = '02:00:00:00:00:01';

export async function makeByHand(scope: Scope, options: HandMadeOptions): Promise<HandMade> {
  const { label, fabric, podMtu, masquerade } = options;
  const name = (part: string): string => netnsName(`${label}-${part}`);

  const namespace = async (part: string): Promise<void> => {
    await scope.run(['ip', 'netns', 'add', name(part)]);
    scope.defer(`remove namespace ${name(part)}`, () => run(['ip', 'netns', 'delete', name(part)]));
    await ip(part, 'link set lo up');
  };
  /** Lines for `ip -batch`, inside a namespace of ours. */
  const ip = async (part: string, lines: string): Promise<void> => {
    await scope.run(['ip', '-n', name(part), '-batch', '-'], { stdin: lines });
  };
  const inside = async (part: string, argv: string[], stdin?: string): Promise<void> => {
    await scope.run(['ip', 'netns', 'exec', name(part), ...argv], { ...(stdin !== undefined && { stdin }) });
  };

  // The physical network: a switch.
  await namespace('net');
  await ip('net', `link add br1 mtu ${UNDERLAY_MTU} type bridge\nlink set br1 up`);

  for (const node of NODES) {
    const here = `node-${node}`;
    await namespace(here);
    await inside(here, ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);

    // The node's cable.
    await ip(
      'net',
      `link add ${here} mtu ${UNDERLAY_MTU} type veth peer name eth0 mtu ${UNDERLAY_MTU} netns ${name(here)}
       link set ${here} master br1 up`,
    );
    await ip(here, `address add ${nodeAddress(node)}/24 dev eth0\nlink set eth0 up`);

    // Its pods.
    for (let pod = 1; pod <= PODS_PER_NODE; pod++) {
      const there = `pod-${node}-${pod}`;
      await namespace(there);
      await ip(
        here,
        `link add p${pod} address ${HOST_MAC} mtu ${podMtu} type veth peer name eth0 address ${podMac(node, pod)} mtu ${podMtu} netns ${name(there)}
         link set p${pod} up
         neighbour add ${podAddress(node, pod)} lladdr ${podMac(node, pod)} dev p${pod} nud permanent
         route add ${podAddress(node, pod)}/32 dev p${pod}`,
      );
      await ip(
        there,
        `address add ${podAddress(node, pod)}/32 dev eth0
         link set eth0 up
         neighbour add ${GATEWAY} lladdr ${HOST_MAC} dev eth0 nud permanent
         route add default via ${GATEWAY} dev eth0 onlink`,
      );
    }

    // The way to the pods of the others.
    if (fabric === 'vxlan') {
      await ip(
        here,
        `link add vx address ${vtepMac(node)} mtu ${podMtu} type vxlan id 1 local ${nodeAddress(node)} dstport 8472 nolearning
         address add ${vtepAddress(node)}/32 dev vx
         link set vx up`,
      );
    }
    for (const other of NODES.filter((candidate) => candidate !== node)) {
      if (fabric === 'host-gw') {
        await ip(here, `route add ${podCidr(other)} via ${nodeAddress(other)} dev eth0`);
        continue;
      }
      await ip(
        here,
        `neighbour add ${vtepAddress(other)} lladdr ${vtepMac(other)} dev vx nud permanent
         route add ${podCidr(other)} via ${vtepAddress(other)} dev vx onlink`,
      );
      await inside(here, [
        ...['bridge', 'fdb', 'append', vtepMac(other), 'dev', 'vx'],
        ...['dst', nodeAddress(other), 'self', 'permanent'],
      ]);
    }

    if (masquerade) {
      await inside(
        here,
        ['nft', '-f', '-'],
        `table ip nat {
           chain postrouting {
             type nat hook postrouting priority srcnat;
             ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
           }
         }`,
      );
    }
  }
  return {
    pod: (node, pod) => ({
      netns: `/run/netns/${name(`pod-${node}-${pod}`)}`,
      address: podAddress(node, pod),
    }),
    node: (node) => `/run/netns/${name(`node-${node}`)}`,
  };
}
