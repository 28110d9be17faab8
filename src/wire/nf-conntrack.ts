/** Connection tracking entries over nfnetlink (include/uapi/linux/netfilter/nfnetlink_conntrack.h). */
import { WeftError } from '../base/errors.ts';
import { familyOf, formatIp, type Ip, parseIp } from '../base/ip.ts';
import { type Attributes, malformed, NlReader, type NlWriter } from './netlink.ts';
import {
  NFGENMSG,
  NFNL_SUBSYS_CTNETLINK,
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFPROTO_UNSPEC,
  nfMessageType,
  nfWriter,
} from './nfnetlink.ts';

const ctType = (operation: number): number => nfMessageType(NFNL_SUBSYS_CTNETLINK, operation);
export const IPCTNL_MSG_CT_GET = ctType(1);
export const IPCTNL_MSG_CT_DELETE = ctType(2);

const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_STATUS = 3;
const CTA_TIMEOUT = 7;
const CTA_MARK = 8;
const CTA_ID = 12;
const CTA_ZONE = 18;
const CTA_FILTER = 25;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_REPLY_FLAGS = 2;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_TUPLE_ZONE = 3;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_SRC_PORT = 2;
const CTA_PROTO_DST_PORT = 3;
/** Id, type and code of ICMP; ICMPv6's three follow it. */
const CTA_PROTO_ICMP = [4, 5, 6] as const;
const CTA_PROTO_ICMPV6 = [7, 8, 9] as const;

/** Which fields of a tuple a filter compares (net/netfilter/nf_internals.h). */
const CTA_FILTER_F_CTA_IP_SRC = 1;
const CTA_FILTER_F_CTA_IP_DST = 2;

const IPPROTO_ICMPV6 = 58;

export interface Conntrack {
  family: 4 | 6;
  protocol: number;
  original: ConntrackTuple;
  reply: ConntrackTuple;
  mark?: number;
  /** IPS_* bits. */
  status?: number;
  /** Seconds left. */
  timeout?: number;
  /** The zone of both directions; absent: 0, or one per direction in the tuples. */
  zone?: number;
  /** The kernel's own number of this entry: tells it from a later one with the same tuple. */
  id?: number;
}

export interface ConntrackTuple {
  src: Ip;
  dst: Ip;
  protocol: number;
  sport?: number;
  dport?: number;
  icmp?: { id: number; type: number; code: number };
  /** Zone of this direction alone. */
  zone?: number;
}

/** Entries of one family, or of both. */
export function encodeConntrackDump(family?: 4 | 6): Uint8Array {
  const value = family === undefined ? NFPROTO_UNSPEC : family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6;
  return nfWriter(IPCTNL_MSG_CT_GET, 0, value).finish();
}

/**
 * Delete exactly this entry: its original tuple, its zone, and its id where it is known. (A deletion without a tuple would
 * empty the table: there always is one.)
 */
export function encodeConntrackDelete(entry: Conntrack): Uint8Array {
  const w = nfWriter(IPCTNL_MSG_CT_DELETE, 0, entry.family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
  w.nest(CTA_TUPLE_ORIG, () => writeTuple(w, entry.family, entry.original));
  if (entry.zone !== undefined) w.attrU16be(CTA_ZONE, entry.zone);
  if (entry.id !== undefined) w.attrU32be(CTA_ID, entry.id);
  return w.finish();
}

/**
 * Delete every entry that has the address in one place, found by the kernel itself (0.2 ms where a dump takes 12). There are
 * four places, and one message for each. Linux 6.11 and later; earlier ones refuse it with EINVAL, and delete nothing.
 */
export function encodeConntrackPurge(address: Ip): Uint8Array[] {
  const four = familyOf(address) === 4;
  const bytes = parseIp(address);
  return [CTA_TUPLE_ORIG, CTA_TUPLE_REPLY].flatMap((tuple) =>
    [CTA_FILTER_F_CTA_IP_SRC, CTA_FILTER_F_CTA_IP_DST].map((field) => {
      const [src, dst] = four ? [CTA_IP_V4_SRC, CTA_IP_V4_DST] : [CTA_IP_V6_SRC, CTA_IP_V6_DST];
      const w = nfWriter(IPCTNL_MSG_CT_DELETE, 0, four ? NFPROTO_IPV4 : NFPROTO_IPV6);
      w.nest(tuple, () =>
        w.nest(CTA_TUPLE_IP, () => w.attr(field === CTA_FILTER_F_CTA_IP_SRC ? src : dst, bytes)),
      );
      w.nest(CTA_FILTER, () => {
        w.attrU32(CTA_FILTER_ORIG_FLAGS, tuple === CTA_TUPLE_ORIG ? field : 0);
        w.attrU32(CTA_FILTER_REPLY_FLAGS, tuple === CTA_TUPLE_REPLY ? field : 0);
      });
      return w.finish();
    }),
  );
}

function writeTuple(w: NlWriter, family: 4 | 6, tuple: ConntrackTuple): void {
  if (familyOf(tuple.src) !== family || familyOf(tuple.dst) !== family) {
    throw new WeftError('WEFT_BAD_CONFIG', `conntrack tuple ${tuple.src} → ${tuple.dst} is not IPv${family}`);
  }
  w.nest(CTA_TUPLE_IP, () => {
    w.attr(family === 4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, parseIp(tuple.src));
    w.attr(family === 4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, parseIp(tuple.dst));
  });
  w.nest(CTA_TUPLE_PROTO, () => {
    w.attrU8(CTA_PROTO_NUM, tuple.protocol);
    if (tuple.sport !== undefined) w.attrU16be(CTA_PROTO_SRC_PORT, tuple.sport);
    if (tuple.dport !== undefined) w.attrU16be(CTA_PROTO_DST_PORT, tuple.dport);
    if (tuple.icmp) {
      const [id, type, code] = tuple.protocol === IPPROTO_ICMPV6 ? CTA_PROTO_ICMPV6 : CTA_PROTO_ICMP;
      w.attrU16be(id, tuple.icmp.id).attrU8(type, tuple.icmp.type).attrU8(code, tuple.icmp.code);
    }
  });
  if (tuple.zone !== undefined) w.attrU16be(CTA_TUPLE_ZONE, tuple.zone);
}

/** Undefined for families other than IP. @throws WEFT_NETLINK_MALFORMED */
export function decodeConntrack(payload: Uint8Array): Conntrack | undefined {
  const r = new NlReader(payload);
  const value = r.u8(0);
  if (value !== NFPROTO_IPV4 && value !== NFPROTO_IPV6) return undefined;
  const family = value === NFPROTO_IPV4 ? 4 : 6;
  const a = r.attributes(NFGENMSG);
  const original = a.nested(CTA_TUPLE_ORIG);
  const reply = a.nested(CTA_TUPLE_REPLY);
  if (!original || !reply) throw malformed('a conntrack entry without its two tuples', payload);
  const first = readTuple(original, family, payload);
  const entry: Conntrack = {
    family,
    protocol: first.protocol,
    original: first,
    reply: readTuple(reply, family, payload),
  };
  const mark = a.u32be(CTA_MARK);
  if (mark) entry.mark = mark;
  const status = a.u32be(CTA_STATUS);
  if (status !== undefined) entry.status = status;
  const timeout = a.u32be(CTA_TIMEOUT);
  if (timeout !== undefined) entry.timeout = timeout;
  const zone = a.u16be(CTA_ZONE);
  if (zone !== undefined) entry.zone = zone;
  const id = a.u32be(CTA_ID);
  if (id !== undefined) entry.id = id;
  return entry;
}

function readTuple(a: Attributes, family: 4 | 6, payload: Uint8Array): ConntrackTuple {
  const ip = a.nested(CTA_TUPLE_IP);
  const proto = a.nested(CTA_TUPLE_PROTO);
  const src = ip?.bytes(family === 4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC);
  const dst = ip?.bytes(family === 4 ? CTA_IP_V4_DST : CTA_IP_V6_DST);
  const protocol = proto?.u8(CTA_PROTO_NUM);
  const length = family === 4 ? 4 : 16;
  if (src?.length !== length || dst?.length !== length || protocol === undefined || !proto) {
    throw malformed('a conntrack tuple without addresses or protocol', payload);
  }
  const tuple: ConntrackTuple = { src: formatIp(src), dst: formatIp(dst), protocol };
  const sport = proto.u16be(CTA_PROTO_SRC_PORT);
  if (sport !== undefined) tuple.sport = sport;
  const dport = proto.u16be(CTA_PROTO_DST_PORT);
  if (dport !== undefined) tuple.dport = dport;
  const [id, type, code] = protocol === IPPROTO_ICMPV6 ? CTA_PROTO_ICMPV6 : CTA_PROTO_ICMP;
  const icmpId = proto.u16be(id);
  const icmpType = proto.u8(type);
  const icmpCode = proto.u8(code);
  if (icmpId !== undefined && icmpType !== undefined && icmpCode !== undefined) {
    tuple.icmp = { id: icmpId, type: icmpType, code: icmpCode };
  }
  const zone = a.u16be(CTA_TUPLE_ZONE);
  if (zone !== undefined) tuple.zone = zone;
  return tuple;
}
