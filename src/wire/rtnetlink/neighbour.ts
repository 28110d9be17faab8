/** Neighbours, ARP and ND: RTM_NEWNEIGH, RTM_DELNEIGH (include/uapi/linux/neighbour.h). */
import { familyOf, formatIp, formatMac, parseIp, parseMac } from '../../base/ip.ts';
import { type Neighbour, type NeighbourState, WEFT_PROTOCOL } from '../../base/net-objects.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, NlReader, NlWriter } from '../netlink.ts';
import {
  AF_INET,
  AF_INET6,
  familyNumber,
  type IndexOf,
  type NameOf,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './constants.ts';

export const NDA_DST = 1;
export const NDA_LLADDR = 2;
export const NDA_VLAN = 5;
export const NDA_PORT = 6;
export const NDA_VNI = 7;
export const NDA_MASTER = 9;
export const NDA_PROTOCOL = 12;
export const NDMSG = 12;

export const NTF_SELF = 0x02;
export const NTF_MASTER = 0x04;
const NTF_PROXY = 0x08;
export const NTF_EXT_LEARNED = 0x10;
export const NTF_STICKY = 0x40;
export const NTF_ROUTER = 0x80;

const states = {
  none: 0,
  incomplete: 0x01,
  reachable: 0x02,
  stale: 0x04,
  delay: 0x08,
  probe: 0x10,
  failed: 0x20,
  noarp: 0x40,
  permanent: 0x80,
} as const satisfies Record<NeighbourState, number>;

export function stateNumber(state: NeighbourState): number {
  return states[state];
}

/** A combination of bits is named by its strongest: an entry that is permanent and noarp is permanent. */
export function stateName(value: number): NeighbourState {
  const byWeight: NeighbourState[] = ['permanent', 'noarp', 'reachable', 'stale', 'delay', 'probe', 'failed'];
  for (const name of byWeight) if (value & states[name]) return name;
  return value & states.incomplete ? 'incomplete' : 'none';
}

export interface NdHeader {
  family: number;
  index: number;
  state: number;
  flags: number;
}

/** struct ndmsg, shared by neighbours and forwarding entries. */
export function writeNdHeader(w: NlWriter, h: NdHeader): NlWriter {
  return w.u8(h.family).u8(0).u16(0).u32(h.index).u16(h.state).u8(h.flags).u8(0);
}

export function readNdHeader(r: NlReader): NdHeader {
  return { family: r.u8(0), index: r.u32(4), state: r.u16(8), flags: r.u8(10) };
}

/** Permanent and of {@link WEFT_PROTOCOL} unless told otherwise. A proxy entry (NTF_PROXY) has no MAC and no state. */
export function encodeNeighbour(
  op: 'replace' | 'delete',
  neighbour: Neighbour,
  indexOf: IndexOf,
): Uint8Array {
  const w =
    op === 'replace'
      ? new NlWriter(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE)
      : new NlWriter(RTM_DELNEIGH, 0);
  writeNdHeader(w, {
    family: familyNumber(familyOf(neighbour.dst)),
    index: indexOf(neighbour.dev),
    state: neighbour.proxy ? 0 : stateNumber(neighbour.state ?? 'permanent'),
    flags: (neighbour.proxy ? NTF_PROXY : 0) | (neighbour.router ? NTF_ROUTER : 0),
  });
  w.attr(NDA_DST, parseIp(neighbour.dst));
  if (neighbour.mac !== undefined && op === 'replace') w.attr(NDA_LLADDR, parseMac(neighbour.mac));
  if (op === 'replace') w.attrU8(NDA_PROTOCOL, neighbour.protocol ?? WEFT_PROTOCOL);
  return w.finish();
}

/** Proxy entries are a list of their own, and a dump of their own. */
export function encodeNeighbourDump(family?: 4 | 6, proxy = false): Uint8Array {
  const w = new NlWriter(RTM_GETNEIGH, 0);
  const flags = proxy ? NTF_PROXY : 0;
  return writeNdHeader(w, { family: familyNumber(family), index: 0, state: 0, flags }).finish();
}

/** Undefined for other families than IPv4 and IPv6 (AF_BRIDGE: see fdb.ts). @throws WEFT_NETLINK_MALFORMED */
export function decodeNeighbour(payload: Uint8Array, nameOf: NameOf): Neighbour | undefined {
  const r = new NlReader(payload);
  const h = readNdHeader(r);
  if (h.family !== AF_INET && h.family !== AF_INET6) return undefined;
  const a = r.attributes(NDMSG);
  const dst = a.bytes(NDA_DST);
  if (dst?.length !== (h.family === AF_INET ? 4 : 16)) return undefined;
  const neighbour: Neighbour = {
    kind: 'neighbour',
    dev: nameOf(h.index),
    dst: formatIp(dst),
    index: h.index,
  };
  const mac = a.bytes(NDA_LLADDR);
  if (mac?.length === 6) neighbour.mac = formatMac(mac);
  if (h.flags & NTF_PROXY) neighbour.proxy = true;
  else neighbour.state = stateName(h.state);
  if (h.flags & NTF_ROUTER) neighbour.router = true;
  const protocol = a.u8(NDA_PROTOCOL);
  if (protocol) neighbour.protocol = protocol;
  return neighbour;
}
