/** Routes: RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE (include/uapi/linux/rtnetlink.h). */

import { WeftError } from '../../base/errors.ts';
import { familyOf, formatIp, type Ip, parseCidr, parseIp } from '../../base/ip.ts';
import { type NextHop, type Route, WEFT_PROTOCOL } from '../../base/net-objects.ts';
import {
  type Attributes,
  malformed,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  NlReader,
  NlWriter,
  readAttributes,
} from '../netlink.ts';
import {
  AF_INET,
  AF_INET6,
  familyNumber,
  type IndexOf,
  type NameOf,
  RT_TABLE_COMPAT,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  type ScopeName,
  scopeName,
  scopeNumber,
} from './constants.ts';

const RTA_DST = 1;
const RTA_SRC = 2;
const RTA_IIF = 3;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MULTIPATH = 9;
const RTA_TABLE = 15;
const RTA_MARK = 16;
const RTA_VIA = 18;
const RTAX_MTU = 2;
const RTNH_F_ONLINK = 0x4;
/** Answer with the entry of the table that matched, not with the one address asked for. */
const RTM_F_FIB_MATCH = 0x2000;
const RTNEXTHOP = 8;
export const RTMSG = 12;

const types = {
  unicast: 1,
  local: 2,
  broadcast: 3,
  anycast: 4,
  multicast: 5,
  blackhole: 6,
  unreachable: 7,
  prohibit: 8,
  throw: 9,
} as const;
const typeNames = new Map<number, string>(Object.entries(types).map(([name, value]) => [value, name]));

const flagNames: ReadonlyArray<readonly [number, string]> = [
  [0x1, 'dead'],
  [0x2, 'pervasive'],
  [0x8, 'offload'],
  [0x10, 'linkdown'],
  [0x20, 'unresolved'],
  [0x40, 'trap'],
];

function flagList(flags: number): string[] {
  return flagNames.filter(([bit]) => flags & bit).map(([, name]) => name);
}

function typeNumber(route: Route): number {
  const value = (types as Record<string, number>)[route.type ?? 'unicast'];
  if (value === undefined) {
    throw new WeftError('WEFT_BAD_CONFIG', `route ${route.dst}: unknown type ${JSON.stringify(route.type)}`);
  }
  return value;
}

/** ip(8)'s rule for a scope that is not given: IPv4 routes without a next hop are of scope link. */
function defaultScope(route: Route): ScopeName {
  if (familyOf(route.dst) === 6) return 'global';
  switch (route.type ?? 'unicast') {
    case 'local':
      return 'host';
    case 'broadcast':
    case 'multicast':
    case 'anycast':
      return 'link';
    case 'unicast':
      return route.via !== undefined || route.nexthops?.some((hop) => hop.via !== undefined)
        ? 'global'
        : 'link';
    default:
      return 'global';
  }
}

/**
 * `replace` creates it, or puts it in the place of the one with the same destination, metric and table. Without a
 * protocol it is {@link WEFT_PROTOCOL} both when written and when deleted, so that only our own is ever deleted by default.
 */
export function encodeRoute(op: 'replace' | 'delete', route: Route, indexOf: IndexOf): Uint8Array {
  const { family, network, length } = parseCidr(route.dst);
  const table = route.table ?? RT_TABLE_MAIN;
  const adding = op === 'replace';
  const w = adding ? new NlWriter(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE) : new NlWriter(RTM_DELROUTE, 0);
  // A delete matches any scope and type unless told one: RT_SCOPE_NOWHERE and RTN_UNSPEC are the kernel's wildcards.
  const scope = scopeNumber(route.scope ?? (adding ? defaultScope(route) : 'nowhere'));
  const type = adding || route.type !== undefined ? typeNumber(route) : 0;
  w.u8(familyNumber(family)).u8(length).u8(0).u8(0);
  w.u8(table < 256 ? table : RT_TABLE_COMPAT).u8(route.protocol ?? WEFT_PROTOCOL);
  w.u8(scope)
    .u8(type)
    .u32(route.onlink && adding ? RTNH_F_ONLINK : 0);
  if (length > 0) w.attr(RTA_DST, parseIp(network));
  w.attrU32(RTA_TABLE, table);
  if (route.metric) w.attrU32(RTA_PRIORITY, route.metric);
  if (route.src !== undefined) w.attr(RTA_PREFSRC, parseIp(route.src));
  if (route.mtu !== undefined && adding) w.nest(RTA_METRICS, () => w.attrU32(RTAX_MTU, route.mtu ?? 0));
  if (route.via !== undefined) writeVia(w, family, route.via);
  if (route.dev !== undefined) w.attrU32(RTA_OIF, indexOf(route.dev));
  if (route.nexthops?.length) w.attr(RTA_MULTIPATH, encodeNextHops(family, route.nexthops, indexOf));
  return w.finish();
}

/** RTA_VIA carries a next hop of the other family (RFC 8950 style: IPv4 by an IPv6 neighbour). */
function writeVia(w: NlWriter, family: 4 | 6, via: Ip): void {
  const bytes = parseIp(via);
  if (familyOf(via) === family) w.attr(RTA_GATEWAY, bytes);
  else w.attr(RTA_VIA, Uint8Array.of(familyNumber(familyOf(via)), 0, ...bytes));
}

function encodeNextHops(family: 4 | 6, hops: NextHop[], indexOf: IndexOf): Uint8Array {
  const parts = hops.map((hop) => {
    const weight = hop.weight ?? 1;
    if (!Number.isInteger(weight) || weight < 1 || weight > 256) {
      throw new WeftError('WEFT_BAD_CONFIG', `next hop ${hop.via ?? hop.dev}: weight ${weight} is not 1–256`);
    }
    // The writer makes a message; a next hop is the same form behind an 8-byte header, so only its attributes are taken.
    const w = new NlWriter(0, 0);
    if (hop.via !== undefined) writeVia(w, family, hop.via);
    const attributes = w.finish().subarray(16);
    const bytes = new Uint8Array(RTNEXTHOP + attributes.length);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, bytes.length, true);
    view.setUint8(2, hop.onlink ? RTNH_F_ONLINK : 0);
    view.setUint8(3, weight - 1);
    view.setUint32(4, hop.dev === undefined ? 0 : indexOf(hop.dev), true);
    bytes.set(attributes, RTNEXTHOP);
    return bytes;
  });
  return Buffer.concat(parts);
}

/** With NETLINK_GET_STRICT_CHK the kernel filters; without it, it sends all. */
export function encodeRouteDump(
  filter: { family?: 4 | 6; table?: number; protocol?: number } = {},
): Uint8Array {
  const table = filter.table ?? 0;
  const w = new NlWriter(RTM_GETROUTE, 0).u8(familyNumber(filter.family)).u8(0).u8(0).u8(0);
  w.u8(table < 256 ? table : RT_TABLE_COMPAT)
    .u8(filter.protocol ?? 0)
    .u8(0)
    .u8(0)
    .u32(0);
  if (filter.table !== undefined) w.attrU32(RTA_TABLE, filter.table);
  return w.finish();
}

export interface RouteQuery {
  src?: Ip;
  /** As if the packet had come in here. */
  iif?: string;
  mark?: number;
}

/** Ask which route the kernel would take; `fibMatch` for the table's entry instead of the result for the one address. */
export function encodeRouteGet(to: Ip, query: RouteQuery, indexOf: IndexOf, fibMatch = true): Uint8Array {
  const bits = familyOf(to) === 4 ? 32 : 128;
  const w = new NlWriter(RTM_GETROUTE, 0).u8(familyNumber(familyOf(to))).u8(bits);
  w.u8(query.src === undefined ? 0 : bits).u8(0);
  w.u8(0)
    .u8(0)
    .u8(0)
    .u8(0)
    .u32(fibMatch ? RTM_F_FIB_MATCH : 0);
  w.attr(RTA_DST, parseIp(to));
  if (query.src !== undefined) w.attr(RTA_SRC, parseIp(query.src));
  if (query.iif !== undefined) w.attrU32(RTA_IIF, indexOf(query.iif));
  if (query.mark !== undefined) w.attrU32(RTA_MARK, query.mark);
  return w.finish();
}

function address(bytes: Uint8Array | undefined, size: number): Ip | undefined {
  if (!bytes) return undefined;
  if (bytes.length !== size) throw malformed(`address of ${bytes.length} bytes in a route`);
  return formatIp(bytes);
}

function readVia(a: Attributes, size: number): Ip | undefined {
  const gateway = address(a.bytes(RTA_GATEWAY), size);
  if (gateway !== undefined) return gateway;
  const other = a.bytes(RTA_VIA);
  if (!other) return undefined;
  if (other.length !== 6 && other.length !== 18) throw malformed(`RTA_VIA of ${other.length} bytes`);
  return formatIp(other.subarray(2));
}

/** Undefined for other families than IPv4 and IPv6. `type` is absent for unicast, `scope` for global. @throws WEFT_NETLINK_MALFORMED */
export function decodeRoute(payload: Uint8Array, nameOf: NameOf): Route | undefined {
  const r = new NlReader(payload);
  const family = r.u8(0);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const size = family === AF_INET ? 4 : 16;
  const a = r.attributes(RTMSG);
  const length = r.u8(1);
  if (length > size * 8) throw malformed(`prefix length ${length} in a route`, payload);
  const route: Route = {
    kind: 'route',
    dst: `${address(a.bytes(RTA_DST), size) ?? formatIp(new Uint8Array(size))}/${length}`,
    table: a.u32(RTA_TABLE) ?? r.u8(4),
    protocol: r.u8(5),
  };
  const type = r.u8(7);
  if (type !== types.unicast) route.type = typeNames.get(type) ?? String(type);
  const scope = scopeName(r.u8(6));
  if (scope && scope !== 'global') route.scope = scope;
  const metric = a.u32(RTA_PRIORITY);
  if (metric) route.metric = metric;
  const src = address(a.bytes(RTA_PREFSRC), size);
  if (src !== undefined) route.src = src;
  const mtu = a.nested(RTA_METRICS)?.u32(RTAX_MTU);
  if (mtu !== undefined) route.mtu = mtu;
  const via = readVia(a, size);
  if (via !== undefined) route.via = via;
  const oif = a.u32(RTA_OIF);
  if (oif) route.dev = nameOf(oif);
  const flags = r.u32(8);
  if (flags & RTNH_F_ONLINK) route.onlink = true;
  const multipath = a.bytes(RTA_MULTIPATH);
  if (multipath) route.nexthops = decodeNextHops(multipath, size, nameOf);
  const list = flagList(flags);
  if (list.length) route.flags = list;
  return route;
}

function decodeNextHops(bytes: Uint8Array, size: number, nameOf: NameOf): NextHop[] {
  const hops: NextHop[] = [];
  let at = 0;
  while (at + RTNEXTHOP <= bytes.length) {
    const r = new NlReader(bytes.subarray(at));
    const length = r.u16(0);
    if (length < RTNEXTHOP || at + length > bytes.length)
      throw malformed(`next hop of length ${length}`, bytes);
    const hop: NextHop = { weight: r.u8(3) + 1 };
    const via = readVia(readAttributes(bytes.subarray(at + RTNEXTHOP, at + length)), size);
    if (via !== undefined) hop.via = via;
    const index = r.u32(4);
    if (index) hop.dev = nameOf(index);
    const flags = r.u8(2);
    if (flags & RTNH_F_ONLINK) hop.onlink = true;
    const list = flagList(flags);
    if (list.length) hop.flags = list;
    hops.push(hop);
    at += (length + 3) & ~3;
  }
  return hops;
}
