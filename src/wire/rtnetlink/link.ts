/** Links: RTM_NEWLINK, RTM_SETLINK, RTM_DELLINK (include/uapi/linux/if_link.h). */

import { WeftError } from '../../base/errors.ts';
import { familyOf, formatIp, formatMac, parseIp, parseMac } from '../../base/ip.ts';
import type { Link, VethPeer, VxlanOptions } from '../../base/net-objects.ts';
import { type Attributes, NLM_F_CREATE, NLM_F_EXCL, NlReader, NlWriter } from '../netlink.ts';
import {
  AF_INET6,
  AF_UNSPEC,
  type IndexOf,
  type NameOf,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  RTM_SETLINK,
} from './constants.ts';

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_TXQLEN = 13;
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
const IFLA_AF_SPEC = 26;
const IFLA_GROUP = 27;
const IFLA_NET_NS_FD = 28;
const IFLA_LINK_NETNSID = 37;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const VETH_INFO_PEER = 1;
const IFLA_INET6_ADDR_GEN_MODE = 8;

const IFLA_VXLAN_ID = 1;
const IFLA_VXLAN_LINK = 3;
const IFLA_VXLAN_LOCAL = 4;
const IFLA_VXLAN_TTL = 5;
const IFLA_VXLAN_LEARNING = 7;
const IFLA_VXLAN_PORT_RANGE = 10;
const IFLA_VXLAN_PORT = 15;
const IFLA_VXLAN_LOCAL6 = 17;
const IFLA_VXLAN_UDP_CSUM = 18;
const IFLA_VXLAN_UDP_ZERO_CSUM6_TX = 19;
const IFLA_VXLAN_UDP_ZERO_CSUM6_RX = 20;

const IFLA_BR_FORWARD_DELAY = 1;
const IFLA_BR_AGEING_TIME = 4;
const IFLA_BR_VLAN_FILTERING = 7;

const IFLA_MACVLAN_MODE = 1;
const macvlanModes = { private: 1, vepa: 2, bridge: 4, passthru: 8, source: 16 } as const;
type MacvlanMode = keyof typeof macvlanModes;

export const IFF_UP = 0x1;
export const IFF_LOWER_UP = 0x10000;
export const IFINFOMSG = 16;

const genModes = { eui64: 0, none: 1 } as const;

function header(type: number, flags: number, index: number, ifFlags = 0, change = 0): NlWriter {
  return new NlWriter(type, flags).u8(AF_UNSPEC).u8(0).u16(0).u32(index).u32(ifFlags).u32(change);
}

export interface LinkCreateContext {
  /** For `master` and the device under a VXLAN or macvlan. */
  indexOf: IndexOf;
  /** The ifindex to give it; 0 lets the kernel choose. */
  index?: number;
  /** Likewise for the veth's other end. */
  peerIndex?: number;
  /** Descriptor of the namespace that receives the veth's other end. */
  peerNetnsFd?: number;
}

/**
 * Create a link. `addrGenMode` is no part of it: the kernel reads IFLA_AF_SPEC only on a change (net/core/rtnetlink.c,
 * do_setlink), so it takes an {@link encodeLinkSet} after this; nor can a veth's peer be created up.
 */
export function encodeLinkCreate(link: Link, context: LinkCreateContext): Uint8Array {
  const up = link.up ? IFF_UP : 0;
  const w = header(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, context.index ?? 0, up, up);
  writeCommon(w, link, context.indexOf, link.name);
  const under = link.macvlan?.dev;
  if (under !== undefined) w.attrU32(IFLA_LINK, context.indexOf(under));
  w.nest(IFLA_LINKINFO, () => {
    w.attrString(IFLA_INFO_KIND, link.type ?? '');
    if (link.vxlan || link.bridge || link.peer || link.macvlan) {
      w.nest(IFLA_INFO_DATA, () => writeKind(w, link, context));
    }
  });
  return w.finish();
}

/** Fields that create and change have in common; only those present are written. */
function writeCommon(w: NlWriter, link: Partial<Link>, indexOf: IndexOf, name: string | undefined): void {
  if (name !== undefined) w.attrString(IFLA_IFNAME, name);
  if (link.mac !== undefined) w.attr(IFLA_ADDRESS, parseMac(link.mac));
  if (link.mtu !== undefined) w.attrU32(IFLA_MTU, link.mtu);
  if (link.txqlen !== undefined) w.attrU32(IFLA_TXQLEN, link.txqlen);
  if (link.group !== undefined) w.attrU32(IFLA_GROUP, link.group);
  if (link.alias !== undefined) {
    const bytes = new TextEncoder().encode(link.alias);
    if (bytes.length > 255) {
      throw new WeftError('WEFT_BAD_CONFIG', `alias of ${link.name}: ${bytes.length} bytes, at most 255`);
    }
    w.attr(IFLA_IFALIAS, bytes);
  }
  if (link.master !== undefined) w.attrU32(IFLA_MASTER, link.master === '' ? 0 : indexOf(link.master));
}

function writeKind(w: NlWriter, link: Partial<Link>, context: LinkCreateContext): void {
  if (link.peer) writePeer(w, link.peer, context);
  if (link.vxlan) writeVxlan(w, link.vxlan, context.indexOf);
  if (link.bridge) {
    const { vlanFiltering, forwardDelay, ageingTime } = link.bridge;
    if (forwardDelay !== undefined) w.attrU32(IFLA_BR_FORWARD_DELAY, forwardDelay);
    if (ageingTime !== undefined) w.attrU32(IFLA_BR_AGEING_TIME, ageingTime);
    if (vlanFiltering !== undefined) w.attrU8(IFLA_BR_VLAN_FILTERING, vlanFiltering ? 1 : 0);
  }
  if (link.macvlan) w.attrU32(IFLA_MACVLAN_MODE, macvlanModes[link.macvlan.mode ?? 'bridge']);
}

/** The peer is a message within the message: its own header, then its attributes. */
function writePeer(w: NlWriter, peer: VethPeer, context: LinkCreateContext): void {
  w.nest(VETH_INFO_PEER, () => {
    w.u8(AF_UNSPEC)
      .u8(0)
      .u16(0)
      .u32(context.peerIndex ?? 0)
      .u32(0)
      .u32(0);
    w.attrString(IFLA_IFNAME, peer.name);
    if (peer.mac !== undefined) w.attr(IFLA_ADDRESS, parseMac(peer.mac));
    if (peer.mtu !== undefined) w.attrU32(IFLA_MTU, peer.mtu);
    if (context.peerNetnsFd !== undefined) w.attrU32(IFLA_NET_NS_FD, context.peerNetnsFd);
  });
}

function writeVxlan(w: NlWriter, vxlan: VxlanOptions, indexOf: IndexOf): void {
  w.attrU32(IFLA_VXLAN_ID, vxlan.id);
  w.attrU16be(IFLA_VXLAN_PORT, vxlan.port);
  if (vxlan.dev !== undefined) w.attrU32(IFLA_VXLAN_LINK, indexOf(vxlan.dev));
  if (vxlan.local !== undefined) {
    w.attr(familyOf(vxlan.local) === 4 ? IFLA_VXLAN_LOCAL : IFLA_VXLAN_LOCAL6, parseIp(vxlan.local));
  }
  if (vxlan.ttl !== undefined) w.attrU8(IFLA_VXLAN_TTL, vxlan.ttl);
  if (vxlan.learning !== undefined) w.attrU8(IFLA_VXLAN_LEARNING, vxlan.learning ? 1 : 0);
  if (vxlan.udpCsum !== undefined) w.attrU8(IFLA_VXLAN_UDP_CSUM, vxlan.udpCsum ? 1 : 0);
  if (vxlan.udp6ZeroCsumTx !== undefined) {
    w.attrU8(IFLA_VXLAN_UDP_ZERO_CSUM6_TX, vxlan.udp6ZeroCsumTx ? 1 : 0);
  }
  if (vxlan.udp6ZeroCsumRx !== undefined) {
    w.attrU8(IFLA_VXLAN_UDP_ZERO_CSUM6_RX, vxlan.udp6ZeroCsumRx ? 1 : 0);
  }
  if (vxlan.srcPortRange) {
    const [low, high] = vxlan.srcPortRange;
    w.attr(IFLA_VXLAN_PORT_RANGE, Uint8Array.of(low >> 8, low & 255, high >> 8, high & 255));
  }
}

export interface LinkSetContext {
  indexOf: IndexOf;
  /** New name. */
  rename?: string;
  /** Descriptor of the namespace to move it to. */
  netnsFd?: number;
}

/** Change the fields that are present; `master: ''` takes it out of its bridge. The link is found by `index`. */
export function encodeLinkSet(index: number, link: Partial<Link>, context: LinkSetContext): Uint8Array {
  const change = link.up === undefined ? 0 : IFF_UP;
  // The options of a kind change by NEWLINK without CREATE; SETLINK leaves IFLA_INFO_DATA alone.
  const kind = link.type !== undefined && (link.vxlan || link.bridge || link.macvlan);
  const w = header(kind ? RTM_NEWLINK : RTM_SETLINK, 0, index, link.up ? IFF_UP : 0, change);
  writeCommon(w, link, context.indexOf, context.rename);
  if (link.addrGenMode !== undefined) {
    const mode = genModes[link.addrGenMode];
    w.nest(IFLA_AF_SPEC, () => w.nest(AF_INET6, () => w.attrU8(IFLA_INET6_ADDR_GEN_MODE, mode)));
  }
  if (context.netnsFd !== undefined) w.attrU32(IFLA_NET_NS_FD, context.netnsFd);
  if (kind) {
    w.nest(IFLA_LINKINFO, () => {
      w.attrString(IFLA_INFO_KIND, link.type ?? '');
      w.nest(IFLA_INFO_DATA, () => writeKind(w, link, context));
    });
  }
  return w.finish();
}

export function encodeLinkDelete(link: { name: string } | { index: number }): Uint8Array {
  if ('index' in link) return header(RTM_DELLINK, 0, link.index).finish();
  return header(RTM_DELLINK, 0, 0).attrString(IFLA_IFNAME, link.name).finish();
}

/** All links of the group: one wait for the kernel's grace periods, not one for each. */
export function encodeLinkDeleteGroup(group: number): Uint8Array {
  return header(RTM_DELLINK, 0, 0).attrU32(IFLA_GROUP, group).finish();
}

export function encodeLinkGet(link: { name: string } | { index: number }): Uint8Array {
  if ('index' in link) return header(RTM_GETLINK, 0, link.index).finish();
  return header(RTM_GETLINK, 0, 0).attrString(IFLA_IFNAME, link.name).finish();
}

export function encodeLinkDump(): Uint8Array {
  return header(RTM_GETLINK, 0, 0).finish();
}

/** The number and name of a link, without the rest: what name tables are made of. */
export function decodeLinkName(payload: Uint8Array): { index: number; name: string } | undefined {
  const r = new NlReader(payload);
  if (r.u8(0) !== AF_UNSPEC) return undefined;
  const name = r.attributes(IFINFOMSG).string(IFLA_IFNAME);
  return name === undefined ? undefined : { index: r.u32(4), name };
}

/** Undefined for messages that are about something else (AF_BRIDGE port state). @throws WEFT_NETLINK_MALFORMED */
export function decodeLink(payload: Uint8Array, nameOf: NameOf): Link | undefined {
  const r = new NlReader(payload);
  if (r.u8(0) !== AF_UNSPEC) return undefined;
  const a = r.attributes(IFINFOMSG);
  const index = r.u32(4);
  const flags = r.u32(8);
  const link: Link = { kind: 'link', name: a.string(IFLA_IFNAME) ?? nameOf(index), index };
  link.up = (flags & IFF_UP) !== 0;
  link.carrier = (flags & IFF_LOWER_UP) !== 0;
  const mac = a.bytes(IFLA_ADDRESS);
  if (mac?.length === 6) link.mac = formatMac(mac);
  const mtu = a.u32(IFLA_MTU);
  if (mtu !== undefined) link.mtu = mtu;
  const alias = a.string(IFLA_IFALIAS);
  if (alias) link.alias = alias;
  const group = a.u32(IFLA_GROUP);
  if (group !== undefined) link.group = group;
  const txqlen = a.u32(IFLA_TXQLEN);
  if (txqlen !== undefined) link.txqlen = txqlen;
  const master = a.u32(IFLA_MASTER);
  if (master) link.master = nameOf(master);
  const linkIndex = a.u32(IFLA_LINK);
  if (linkIndex) link.linkIndex = linkIndex;
  const netnsid = a.i32(IFLA_LINK_NETNSID);
  if (netnsid !== undefined && netnsid >= 0) link.linkNetnsid = netnsid;
  const genMode = a.nested(IFLA_AF_SPEC)?.nested(AF_INET6)?.u8(IFLA_INET6_ADDR_GEN_MODE);
  if (genMode === genModes.eui64) link.addrGenMode = 'eui64';
  if (genMode === genModes.none) link.addrGenMode = 'none';
  const info = a.nested(IFLA_LINKINFO);
  const type = info?.string(IFLA_INFO_KIND);
  if (type) link.type = type;
  const data = info && type ? info.bytes(IFLA_INFO_DATA) && info.nested(IFLA_INFO_DATA) : undefined;
  if (data) readKind(link, data, nameOf);
  return link;
}

function readKind(link: Link, data: Attributes, nameOf: NameOf): void {
  if (link.type === 'vxlan') link.vxlan = readVxlan(data, nameOf);
  if (link.type === 'bridge') {
    link.bridge = {};
    const filtering = data.u8(IFLA_BR_VLAN_FILTERING);
    const delay = data.u32(IFLA_BR_FORWARD_DELAY);
    const ageing = data.u32(IFLA_BR_AGEING_TIME);
    if (filtering !== undefined) link.bridge.vlanFiltering = filtering !== 0;
    if (delay !== undefined) link.bridge.forwardDelay = delay;
    if (ageing !== undefined) link.bridge.ageingTime = ageing;
  }
  if (link.type === 'macvlan') {
    const value = data.u32(IFLA_MACVLAN_MODE);
    const mode = (Object.keys(macvlanModes) as MacvlanMode[]).find((name) => macvlanModes[name] === value);
    if (link.linkIndex && link.linkNetnsid === undefined) {
      link.macvlan = { dev: nameOf(link.linkIndex), ...(mode && { mode }) };
    }
  }
}

function readVxlan(a: Attributes, nameOf: NameOf): VxlanOptions {
  const vxlan: VxlanOptions = { id: a.u32(IFLA_VXLAN_ID) ?? 0, port: a.u16be(IFLA_VXLAN_PORT) ?? 0 };
  const local = a.bytes(IFLA_VXLAN_LOCAL) ?? a.bytes(IFLA_VXLAN_LOCAL6);
  if (local?.length === 4 || local?.length === 16) vxlan.local = formatIp(local);
  const dev = a.u32(IFLA_VXLAN_LINK);
  if (dev) vxlan.dev = nameOf(dev);
  const flag = (type: number): boolean | undefined => {
    const value = a.u8(type);
    return value === undefined ? undefined : value !== 0;
  };
  const learning = flag(IFLA_VXLAN_LEARNING);
  if (learning !== undefined) vxlan.learning = learning;
  const udpCsum = flag(IFLA_VXLAN_UDP_CSUM);
  if (udpCsum !== undefined) vxlan.udpCsum = udpCsum;
  const tx = flag(IFLA_VXLAN_UDP_ZERO_CSUM6_TX);
  if (tx !== undefined) vxlan.udp6ZeroCsumTx = tx;
  const rx = flag(IFLA_VXLAN_UDP_ZERO_CSUM6_RX);
  if (rx !== undefined) vxlan.udp6ZeroCsumRx = rx;
  const ttl = a.u8(IFLA_VXLAN_TTL);
  if (ttl !== undefined) vxlan.ttl = ttl;
  const range = a.bytes(IFLA_VXLAN_PORT_RANGE);
  if (range?.length === 4) {
    const r = new NlReader(range);
    if (r.u16be(0) || r.u16be(2)) vxlan.srcPortRange = [r.u16be(0), r.u16be(2)];
  }
  return vxlan;
}
