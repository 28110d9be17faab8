/** Addresses: RTM_NEWADDR, RTM_DELADDR (include/uapi/linux/if_addr.h). */
import { cidrContains, formatIp, parseCidr, parseIp } from '../../base/ip.ts';
import type { Address } from '../../base/net-objects.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, NlReader, NlWriter } from '../netlink.ts';
import {
  AF_INET,
  AF_INET6,
  familyNumber,
  type IndexOf,
  type NameOf,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
  scopeName,
  scopeNumber,
} from './constants.ts';

const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_FLAGS = 8;
export const IFADDRMSG = 8;

const IFA_F_NODAD = 0x2;
const IFA_F_NOPREFIXROUTE = 0x200;
/** By bit, in the words of ip(8). Bit 0 is `secondary` for IPv4, `temporary` for IPv6. */
const flagNames: ReadonlyArray<readonly [number, string]> = [
  [IFA_F_NODAD, 'nodad'],
  [0x4, 'optimistic'],
  [0x8, 'dadfailed'],
  [0x10, 'home'],
  [0x20, 'deprecated'],
  [0x40, 'tentative'],
  [0x80, 'permanent'],
  [0x100, 'mngtmpaddr'],
  [IFA_F_NOPREFIXROUTE, 'noprefixroute'],
  [0x400, 'autojoin'],
  [0x800, 'stable-privacy'],
];

/** `replace` creates it or changes its flags. Loopback addresses are of scope host unless told otherwise, as with ip(8). */
export function encodeAddress(op: 'replace' | 'delete', address: Address, indexOf: IndexOf): Uint8Array {
  const { family, ip, length } = parseCidr(address.address);
  const own = parseIp(ip);
  const scope = address.scope ?? (family === 4 && cidrContains('127.0.0.0/8', ip) ? 'host' : 'global');
  const flags = (address.noDad ? IFA_F_NODAD : 0) | (address.noPrefixRoute ? IFA_F_NOPREFIXROUTE : 0);
  const w =
    op === 'replace' ? new NlWriter(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE) : new NlWriter(RTM_DELADDR, 0);
  w.u8(familyNumber(family)).u8(length).u8(0).u8(scopeNumber(scope)).u32(indexOf(address.dev));
  w.attr(IFA_LOCAL, own);
  w.attr(IFA_ADDRESS, address.peer === undefined ? own : parseIp(address.peer));
  if (flags && op === 'replace') w.attrU32(IFA_FLAGS, flags);
  return w.finish();
}

export function encodeAddressDump(family?: 4 | 6): Uint8Array {
  return new NlWriter(RTM_GETADDR, 0).u8(familyNumber(family)).u8(0).u8(0).u8(0).u32(0).finish();
}

/** Undefined for other families than IPv4 and IPv6. @throws WEFT_NETLINK_MALFORMED */
export function decodeAddress(payload: Uint8Array, nameOf: NameOf): Address | undefined {
  const r = new NlReader(payload);
  const family = r.u8(0);
  if (family !== AF_INET && family !== AF_INET6) return undefined;
  const size = family === AF_INET ? 4 : 16;
  const a = r.attributes(IFADDRMSG);
  const far = a.bytes(IFA_ADDRESS);
  const own = a.bytes(IFA_LOCAL) ?? far;
  if (own?.length !== size) return undefined;
  const index = r.u32(4);
  const address: Address = {
    kind: 'address',
    dev: nameOf(index),
    address: `${formatIp(own)}/${r.u8(1)}`,
    index,
  };
  if (far?.length === size && formatIp(far) !== formatIp(own)) address.peer = formatIp(far);
  const scope = scopeName(r.u8(3));
  if (scope && scope !== 'nowhere') address.scope = scope;
  const flags = a.u32(IFA_FLAGS) ?? r.u8(2);
  if (flags & IFA_F_NODAD) address.noDad = true;
  if (flags & IFA_F_NOPREFIXROUTE) address.noPrefixRoute = true;
  address.flags = flagNames.filter(([bit]) => flags & bit).map(([, name]) => name);
  if (flags & 1) address.flags.unshift(family === AF_INET ? 'secondary' : 'temporary');
  return address;
}
