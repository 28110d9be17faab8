/**
 * What a lab consists of, computed from its options alone: namespaces, links and addresses. Nothing is made here.
 *
 * ```
 *   node-1 (eth0) ──┐                       ┌── eth0 (outside)
 *   node-3 (eth0) ──┤ br1 ┐           ┌─────┘   knows the underlay, no pods
 *                   └─────┤    net    ├ outside
 *   node-2 (eth0) ──┬─────┤ (router)  │
 *   node-4 (eth0) ──┘ br2 ┘           ┘
 * ```
 *
 * Addresses are of ranges for private use, benchmarks and documentation (RFC 1918, RFC 4193, RFC 5737, RFC 3849), and live
 * in the lab's own namespaces only: two labs with the same addresses never meet.
 */
import type { FabricBackend } from '../api/config.ts';
import { WeftError } from '../base/errors.ts';
import {
  type Cidr,
  canonicalCidr,
  cidrOverlaps,
  type Family,
  familyOf,
  type Ip,
  parseCidr,
} from '../base/ip.ts';
import { checkLabName } from './paths.ts';

export interface LabOptions {
  name: string;
  /** 1–64. */
  nodes: number;
  /** Underlay subnets over which the nodes are spread in turn, 1–16. Default 1. */
  subnets?: number;
  /** Default both. */
  families?: Family[];
  /** At most one per family. */
  clusterCIDRs?: Cidr[];
  fabric?: FabricBackend;
}

/** {@link LabOptions} with every default filled in, and valid. */
export type LabSpec = Required<LabOptions>;

export interface NodeTopology {
  name: string;
  /** 1-based. */
  subnet: number;
  /** Port of the node's bridge in the `net` namespace; the node's end is `eth0`. */
  port: string;
  /** With prefix lengths, as they stand on eth0. */
  addresses: Cidr[];
  nodeIPs: Ip[];
  gateways: Ip[];
}

export interface SubnetTopology {
  bridge: string;
  /** The router's addresses on the bridge. */
  addresses: Cidr[];
}

export interface Topology {
  spec: LabSpec;
  /** Bytes, of every underlay link. */
  mtu: number;
  subnets: SubnetTopology[];
  nodes: NodeTopology[];
  outside: { routerAddresses: Cidr[]; addresses: Cidr[]; ips: Ip[]; gateways: Ip[] };
  /** Where the nodes find the API server. */
  api: { address: Ip; port: number };
}

export const MAX_NODES = 64;
const FIRST_HOST = 10;
const CLUSTER_CIDRS: Record<Family, Cidr> = { 4: '10.244.0.0/16', 6: 'fd00:10:244::/48' };
const underlay: Record<Family, (subnet: number) => { prefix: string; length: number }> = {
  4: (subnet) => ({ prefix: `172.29.${subnet}.`, length: 24 }),
  6: (subnet) => ({ prefix: `fd57:29:${subnet}::`, length: 64 }),
};
const outside: Record<Family, { prefix: string; length: number }> = {
  4: { prefix: '198.51.100.', length: 24 },
  6: { prefix: '2001:db8:51::', length: 64 },
};

/** Host number in the family's notation: decimal for IPv4; for IPv6 the same digits, so that the two look alike. */
const join = (range: { prefix: string; length: number }, host: number): Cidr =>
  `${range.prefix}${host}/${range.length}`;
const bare = (cidr: Cidr): Ip => parseCidr(cidr).ip;

/** @throws WEFT_BAD_CONFIG, WEFT_BAD_ADDRESS */
export function labSpec(options: LabOptions): LabSpec {
  const bad = (message: string): WeftError =>
    new WeftError('WEFT_BAD_CONFIG', `lab ${options.name}: ${message}`);
  checkLabName(options.name);
  const families = [...new Set(options.families ?? ([4, 6] as Family[]))].sort();
  const { nodes, subnets = 1, fabric = 'auto' } = options;
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > MAX_NODES)
    throw bad(`nodes must be 1 to ${MAX_NODES}, not ${nodes}`);
  if (!Number.isInteger(subnets) || subnets < 1 || subnets > 16)
    throw bad(`subnets must be 1 to 16, not ${subnets}`);
  if (families.length === 0 || families.some((family) => family !== 4 && family !== 6)) {
    throw bad('families must be 4, 6 or both');
  }
  if (!['auto', 'vxlan', 'host-gw'].includes(fabric)) {
    throw bad(`fabric must be auto, vxlan or host-gw, not ${JSON.stringify(fabric)}`);
  }
  const clusterCIDRs = (options.clusterCIDRs ?? families.map((family) => CLUSTER_CIDRS[family])).map(
    canonicalCidr,
  );
  if (clusterCIDRs.length === 0 || new Set(clusterCIDRs.map(familyOf)).size !== clusterCIDRs.length) {
    throw bad('cluster CIDRs must be one per family');
  }
  for (const cidr of clusterCIDRs) {
    const family = familyOf(cidr);
    if (!families.includes(family))
      throw bad(`cluster CIDR ${cidr} is IPv${family}, which the lab does not have`);
    for (const other of ['172.29.0.0/16', 'fd57:29::/32', '198.51.100.0/24', '2001:db8:51::/64']) {
      if (cidrOverlaps(cidr, other))
        throw bad(`cluster CIDR ${cidr} overlaps the lab's own network ${other}`);
    }
  }
  return { name: options.name, nodes, subnets, families, clusterCIDRs, fabric };
}

/** `names`: the nodes that exist, when that is not `node-1` to `node-<count>` (nodes were removed or added). */
export function topologyOf(spec: LabSpec, names = defaultNodeNames(spec.nodes)): Topology {
  const { families } = spec;
  const cidrs = (range: (family: Family) => { prefix: string; length: number }, host: number): Cidr[] =>
    families.map((family) => join(range(family), host));
  const subnets: SubnetTopology[] = [];
  for (let subnet = 1; subnet <= spec.subnets; subnet++) {
    subnets.push({ bridge: `br${subnet}`, addresses: cidrs((family) => underlay[family](subnet), 1) });
  }
  const nodes = names.map((name): NodeTopology => {
    const number = nodeNumber(name);
    const subnet = ((number - 1) % spec.subnets) + 1;
    const addresses = cidrs((family) => underlay[family](subnet), FIRST_HOST + number);
    return {
      name,
      subnet,
      port: name,
      addresses,
      nodeIPs: addresses.map(bare),
      gateways: subnets[subnet - 1]!.addresses.map(bare),
    };
  });
  const beyond = cidrs((family) => outside[family], 2);
  const router = cidrs((family) => outside[family], 1);
  return {
    spec,
    mtu: 1500,
    subnets,
    nodes,
    outside: {
      routerAddresses: router,
      addresses: beyond,
      ips: beyond.map(bare),
      gateways: router.map(bare),
    },
    api: { address: bare(subnets[0]!.addresses[0]!), port: 6443 },
  };
}

export function defaultNodeNames(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `node-${i + 1}`);
}

/** `node-7` → 7. @throws WEFT_BAD_CONFIG */
export function nodeNumber(name: string): number {
  const match = /^node-([1-9]\d?\d?)$/.exec(name);
  const number = Number(match?.[1]);
  if (!match || number > 200)
    throw new WeftError('WEFT_BAD_CONFIG', `${JSON.stringify(name)} is not a node of a lab (node-1 …)`);
  return number;
}
