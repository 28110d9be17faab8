/**
 * What the fabric and the node's own plumbing desire of this node's kernel: computed by `src/fabric`, carried out by
 * `src/datapath/links` (objects, sysctls) and `src/datapath/nftables` (filter).
 */
import type { Cidr, Ip } from '../base/ip.ts';
import type { NetObject } from '../base/net-objects.ts';
import type { Sysctl } from './attachment.ts';

/** A node as fabrics see it: the narrow form of a Node object. */
export interface FabricNode {
  name: string;
  /** Underlay addresses, at most one per family. */
  nodeIPs: Ip[];
  podCIDRs: Cidr[];
  /** VTEP MAC as the node announced it (annotation `weft.dev/vtep-mac`); absent: it has none yet. */
  vtepMac?: string;
  /** When the Node object was made, RFC 3339: of two nodes with the same claim the older one keeps it. */
  createdAt?: string;
}

/** What a fabric needs to know of this machine's underlay, observed by the agent. */
export interface Underlay {
  /** The device with the node addresses, its MTU in bytes, and the prefixes that are directly on it. */
  dev: string;
  mtu: number;
  onLink: Cidr[];
}

export interface FabricPlan {
  /** Links, addresses, routes, neighbours, FDB entries and rules, none of which is a pod's. */
  objects: NetObject[];
  sysctls: Sysctl[];
  /** MTU of pods on this node, bytes. */
  podMtu: number;
  filter: NodeFilter;
  /** Nodes that cannot be reached as configured, and why: becomes status and Events. */
  problems: FabricProblem[];
}

export interface FabricProblem {
  /** The node it concerns; this node's own name for a fault of its own configuration. */
  node: string;
  /** The reason of the Event, in Kubernetes' CamelCase. */
  reason:
    | 'NodeWithoutAddress'
    | 'NodeNotOnSharedSubnet'
    | 'NodeWithoutVtep'
    | 'NoCommonUnderlayFamily'
    | 'AddressClaimedTwice'
    | 'PodCIDRClaimedTwice'
    | 'VtepMacClaimedTwice'
    | 'InvalidNode'
    | 'MtuTooLarge'
    | 'MtuTooSmall';
  message: string;
}

/** The input of the node's base nftables table. */
export interface NodeFilter {
  /** Sources that are masqueraded when they leave the cluster. */
  podCIDRs: Cidr[];
  /** Destinations that pods reach with their own address. */
  noMasquerade: Cidr[];
  /** Empty: encapsulated packets are accepted from nobody. */
  vteps: Ip[];
  /** UDP port of the encapsulation; absent: this node uses none. */
  encapPort?: number;
  masquerade: boolean;
}
