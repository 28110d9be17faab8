/** What every backend needs to know to decide how this node reaches another one. */
import type { AgentConfig } from '../api/config.ts';
import { cidrContains, type Family, familyOf, type Ip, parseCidr } from '../base/ip.ts';
import type { FabricNode, FabricProblem, Underlay } from '../state/fabric-plan.ts';

/** The part of the agent's configuration that fabrics read. */
export type FabricConfig = Pick<AgentConfig, 'fabric' | 'masquerade' | 'clusterCIDRs'>;

export interface FabricContext {
  /** This node. */
  self: FabricNode;
  underlays: readonly Underlay[];
  config: FabricConfig;
}

/** The family of the outer header of a tunnel. */
export type TunnelFamily = Family;

/** How the pods of one family on a remote node are reached. */
export type Path =
  /** Their node is on a subnet of ours: a plain route by its address. */
  | { kind: 'direct'; via: Ip; dev: string }
  /** Encapsulated, between node addresses of this family. */
  | { kind: 'tunnel'; outer: TunnelFamily }
  | { kind: 'none'; reason: FabricProblem['reason']; message: string };

/** A backend is the choice of a path; what a path is made of is the same for all. */
export type ChoosePath = (context: FabricContext, remote: FabricNode, family: Family) => Path;

/**
 * Metric of all routes Weft makes to other nodes. Not 0: a route that the operator made for the same prefix has another
 * key in the kernel, so it is never replaced by ours, and it wins.
 */
export const FABRIC_METRIC = 1087;

/** Metric of `unreachable` routes: below every route that leads somewhere. */
export const UNREACHABLE_METRIC = 8700;

export function nodeIp(node: FabricNode, family: Family): Ip | undefined {
  return node.nodeIPs.find((ip) => familyOf(ip) === family);
}

export function podCidrs(node: FabricNode, family: Family): string[] {
  return node.podCIDRs.filter((cidr) => familyOf(cidr) === family);
}

/** The underlay that carries this node's address of the family; with host-prefix addresses, the first. */
export function underlayOf(context: FabricContext, family: Family): Underlay | undefined {
  const ip = nodeIp(context.self, family);
  if (ip === undefined) return undefined;
  return (
    context.underlays.find((u) => u.onLink.some((cidr) => cidrContains(cidr, ip))) ?? context.underlays[0]
  );
}

/** Whether this node takes part in the family at all: pods or node address. */
export function speaks(node: FabricNode, family: Family): boolean {
  return podCidrs(node, family).length > 0 || nodeIp(node, family) !== undefined;
}

/**
 * The source address of this node's own packets to pods elsewhere: its node address, so that a host-network pod is seen
 * under the address in its status; where it has none of the family (IPv6 pods over an IPv4 underlay), its VTEP address.
 */
export function nodeSource(node: FabricNode, family: Family): Ip | undefined {
  return nodeIp(node, family) ?? vtepAddress(node, family);
}

/**
 * A node's VTEP address of a family: the network address of its pod CIDR, which IPAM never gives to a pod.
 * Undefined without a CIDR of the family.
 */
export function vtepAddress(node: FabricNode, family: Family): Ip | undefined {
  const cidr = podCidrs(node, family)[0];
  return cidr === undefined ? undefined : parseCidr(cidr).network;
}
