/**
 * The kernel's network objects as plain values: the one vocabulary that codecs encode, the kernel reports, compilers
 * desire and datapaths compare. All of it is JSON: it crosses threads and prints in goldens as it is.
 *
 * Field names follow `ip -j` where that has one; addresses are canonical text (see ip.ts). Interfaces are named, never
 * numbered, in desired state; an observed object also carries its ifindex.
 */
import type { Cidr, Family, Ip, Mac } from './ip.ts';

/**
 * A network namespace, as the path of its handle (`/run/netns/x`, `/proc/123/ns/net`), or '' for the one that the
 * process started in.
 */
export type NsPath = string;

/** Weft's number for `rtm_protocol`, `FRA_PROTOCOL` and `NDA_PROTOCOL`: what bears it is ours, and nothing else is. */
export const WEFT_PROTOCOL = 87;

/** The link group of pod veths (host side); also what `delete by group` and nft's `iifgroup` match. */
export const POD_LINK_GROUP = 0x57e0;

export interface Link {
  kind: 'link';
  name: string;
  /** IFLA_INFO_KIND: what the link is. Absent for physical devices and loopback. */
  type?: 'veth' | 'bridge' | 'vxlan' | 'macvlan' | 'tun' | (string & {});
  index?: number;
  mac?: Mac;
  /** Bytes. */
  mtu?: number;
  /** IFF_UP as desired or seen (administrative state). */
  up?: boolean;
  /** IFLA_IFALIAS: how Weft marks a link with its owner. At most 255 bytes. */
  alias?: string;
  group?: number;
  /** Name of the bridge or bond this is a port of. */
  master?: string;
  /** IFLA_TXQLEN. */
  txqlen?: number;
  /** IPv6 address generation: `none` suppresses the automatic link-local address. */
  addrGenMode?: 'eui64' | 'none';
  vxlan?: VxlanOptions;
  /** Times in hundredths of a second, as the kernel and `ip -j` give them. */
  bridge?: { vlanFiltering?: boolean; forwardDelay?: number; ageingTime?: number };
  /** `dev` is the device underneath. */
  macvlan?: { dev: string; mode?: 'private' | 'vepa' | 'bridge' | 'passthru' | 'source' };
  /** For a new veth: the other end, and where it appears. */
  peer?: VethPeer;
  /** Observed only: peer's ifindex (IFLA_LINK) and whether it lives in another namespace. */
  linkIndex?: number;
  linkNetnsid?: number;
  /** Observed only: IFF_LOWER_UP. */
  carrier?: boolean;
}

export interface VethPeer {
  name: string;
  /** Namespace that receives the peer; absent: the same as the link's. */
  netns?: NsPath;
  mac?: Mac;
  mtu?: number;
  index?: number;
  addrGenMode?: 'eui64' | 'none';
}

export interface VxlanOptions {
  /** VNI, 0–16777215. */
  id: number;
  /** UDP port; 8472 is Linux's and Flannel's, 4789 is IANA's. */
  port: number;
  local?: Ip;
  /** Name of the underlay device. */
  dev?: string;
  learning?: boolean;
  /** Inner-header entropy in the UDP source port is the default; this limits its range. */
  srcPortRange?: [number, number];
  /** UDP checksum of the outer header over IPv4 (over IPv6 it is always sent unless zero-checksum flags are set). */
  udpCsum?: boolean;
  udp6ZeroCsumTx?: boolean;
  udp6ZeroCsumRx?: boolean;
  ttl?: number;
}

export interface Address {
  kind: 'address';
  dev: string;
  /** `address/length`, host bits kept. */
  address: Cidr;
  /** Peer of a point-to-point address. */
  peer?: Ip;
  scope?: 'global' | 'link' | 'host' | 'site';
  /** IFA_F_NODAD: usable at once (IPv6). */
  noDad?: boolean;
  /** IFA_F_NOPREFIXROUTE. */
  noPrefixRoute?: boolean;
  index?: number;
  /** Observed only. */
  flags?: string[];
}

export interface NextHop {
  via?: Ip;
  dev?: string;
  /** 1–256. */
  weight?: number;
  /** RTNH_F_ONLINK: the next hop is on the link although no route says so. */
  onlink?: boolean;
  /** Observed only: `dead`, `linkdown`. */
  flags?: string[];
}

export interface Route {
  kind: 'route';
  /** `network/length`; `0.0.0.0/0` and `::/0` for default. */
  dst: Cidr;
  type?:
    | 'unicast'
    | 'local'
    | 'broadcast'
    | 'blackhole'
    | 'unreachable'
    | 'prohibit'
    | 'throw'
    | (string & {});
  /** Default: main (254). */
  table?: number;
  /** Default for desired state: {@link WEFT_PROTOCOL}. */
  protocol?: number;
  /** Priority; IPv6's kernel default is 1024. */
  metric?: number;
  /** Preferred source. */
  src?: Ip;
  scope?: 'global' | 'link' | 'host' | 'site' | 'nowhere';
  via?: Ip;
  dev?: string;
  onlink?: boolean;
  mtu?: number;
  /** Two or more: multipath. One next hop stands in via/dev/onlink. */
  nexthops?: NextHop[];
  flags?: string[];
}

export interface Rule {
  kind: 'rule';
  family: Family;
  priority: number;
  table?: number;
  action?: 'lookup' | 'blackhole' | 'unreachable' | 'prohibit' | 'goto' | (string & {});
  /** Priority of the rule to go on with, for action `goto`. */
  goto?: number;
  src?: Cidr;
  dst?: Cidr;
  iif?: string;
  oif?: string;
  fwmark?: number;
  fwmask?: number;
  protocol?: number;
  invert?: boolean;
  suppressPrefixLength?: number;
}

export type NeighbourState =
  | 'permanent'
  | 'noarp'
  | 'reachable'
  | 'stale'
  | 'delay'
  | 'probe'
  | 'failed'
  | 'incomplete'
  | 'none';

/** An ARP/ND entry. */
export interface Neighbour {
  kind: 'neighbour';
  dev: string;
  dst: Ip;
  mac?: Mac;
  state?: NeighbourState;
  proxy?: boolean;
  router?: boolean;
  protocol?: number;
  index?: number;
}

/** A forwarding entry of a bridge or VXLAN device (`bridge fdb`). */
export interface FdbEntry {
  kind: 'fdb';
  dev: string;
  mac: Mac;
  /** VXLAN: the VTEP that has this MAC. */
  dst?: Ip;
  port?: number;
  vni?: number;
  state?: NeighbourState;
  /** `self`: on the device itself (VXLAN); `master`: in its bridge. Default self. */
  flags?: Array<'self' | 'master' | 'extern_learn' | 'router' | 'sticky'>;
  vlan?: number;
  index?: number;
}

export type NetObject = Link | Address | Route | Rule | Neighbour | FdbEntry;
export type NetObjectKind = NetObject['kind'];

/**
 * What makes two objects the same object within a namespace: the kernel's own key, so that an `update` replaces and
 * never duplicates.
 */
export function netObjectKey(o: NetObject): string {
  switch (o.kind) {
    case 'link':
      return `link ${o.name}`;
    case 'address':
      return `address ${o.dev} ${o.address}`;
    case 'route':
      return `route ${o.table ?? 254} ${o.dst} ${routeMetric(o)}`;
    case 'rule':
      return `rule ${o.family} ${o.priority} ${o.src ?? ''} ${o.dst ?? ''} ${o.iif ?? ''} ${o.oif ?? ''} ${o.fwmark ?? ''}/${o.fwmask ?? ''} ${o.invert ? '!' : ''} ${o.action ?? 'lookup'} ${o.table ?? ''}`;
    case 'neighbour':
      return `neighbour ${o.dev} ${o.dst}${o.proxy ? ' proxy' : ''}`;
    case 'fdb':
      return `fdb ${o.dev} ${o.mac} ${o.dst ?? ''}${o.vlan === undefined ? '' : ` vlan ${o.vlan}`}`;
  }
}

/** The metric the kernel will hold: IPv6 turns an absent one into 1024 (net/ipv6/route.c, IP6_RT_PRIO_USER). */
export function routeMetric(r: Route): number {
  return r.metric || (r.dst.includes(':') ? 1024 : 0);
}
