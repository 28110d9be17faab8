/** Forwarding entries of bridges and VXLAN devices: neighbour messages of family AF_BRIDGE (drivers/net/vxlan, net/bridge/br_fdb.c). */
import { formatIp, formatMac, parseIp, parseMac } from '../../base/ip.ts';
import type { FdbEntry } from '../../base/net-objects.ts';
import { NLM_F_APPEND, NLM_F_CREATE, NLM_F_REPLACE, NlReader, NlWriter } from '../netlink.ts';
import {
  AF_BRIDGE,
  type IndexOf,
  type NameOf,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './constants.ts';
import {
  NDA_DST,
  NDA_LLADDR,
  NDA_MASTER,
  NDA_PORT,
  NDA_VLAN,
  NDA_VNI,
  NDMSG,
  NTF_EXT_LEARNED,
  NTF_MASTER,
  NTF_ROUTER,
  NTF_SELF,
  NTF_STICKY,
  readNdHeader,
  stateName,
  stateNumber,
  writeNdHeader,
} from './neighbour.ts';

type Flag = NonNullable<FdbEntry['flags']>[number];

const flagBits: ReadonlyArray<readonly [Flag, number]> = [
  ['self', NTF_SELF],
  ['master', NTF_MASTER],
  ['extern_learn', NTF_EXT_LEARNED],
  ['router', NTF_ROUTER],
  ['sticky', NTF_STICKY],
];

/**
 * `append` adds one more VTEP to a MAC (head-end replication of 00:00:00:00:00:00), `replace` puts it in place of the one
 * there. Without a state: permanent on the device itself; static (noarp) in a bridge, where permanent would mean "my own".
 */
export function encodeFdb(
  op: 'replace' | 'append' | 'delete',
  entry: FdbEntry,
  indexOf: IndexOf,
): Uint8Array {
  const flags: readonly Flag[] = entry.flags?.some((f) => f === 'self' || f === 'master')
    ? entry.flags
    : [...(entry.flags ?? []), 'self'];
  const w =
    op === 'delete'
      ? new NlWriter(RTM_DELNEIGH, 0)
      : new NlWriter(RTM_NEWNEIGH, NLM_F_CREATE | (op === 'append' ? NLM_F_APPEND : NLM_F_REPLACE));
  writeNdHeader(w, {
    family: AF_BRIDGE,
    index: indexOf(entry.dev),
    state: stateNumber(entry.state ?? (flags.includes('self') ? 'permanent' : 'noarp')),
    flags: flagBits.reduce((bits, [name, bit]) => (flags.includes(name) ? bits | bit : bits), 0),
  });
  w.attr(NDA_LLADDR, parseMac(entry.mac));
  if (entry.dst !== undefined) w.attr(NDA_DST, parseIp(entry.dst));
  if (entry.vlan !== undefined) w.attrU16(NDA_VLAN, entry.vlan);
  if (entry.port !== undefined) w.attrU16be(NDA_PORT, entry.port);
  if (entry.vni !== undefined) w.attrU32(NDA_VNI, entry.vni);
  return w.finish();
}

export function encodeFdbDump(): Uint8Array {
  const w = new NlWriter(RTM_GETNEIGH, 0);
  return writeNdHeader(w, { family: AF_BRIDGE, index: 0, state: 0, flags: 0 }).finish();
}

/** Undefined for other families. @throws WEFT_NETLINK_MALFORMED */
export function decodeFdb(payload: Uint8Array, nameOf: NameOf): FdbEntry | undefined {
  const r = new NlReader(payload);
  const h = readNdHeader(r);
  if (h.family !== AF_BRIDGE) return undefined;
  const a = r.attributes(NDMSG);
  const mac = a.bytes(NDA_LLADDR);
  if (mac?.length !== 6) return undefined;
  const entry: FdbEntry = { kind: 'fdb', dev: nameOf(h.index), mac: formatMac(mac), index: h.index };
  const dst = a.bytes(NDA_DST);
  if (dst?.length === 4 || dst?.length === 16) entry.dst = formatIp(dst);
  const port = a.u16be(NDA_PORT);
  if (port !== undefined) entry.port = port;
  const vni = a.u32(NDA_VNI);
  if (vni !== undefined) entry.vni = vni;
  const vlan = a.u16(NDA_VLAN);
  if (vlan !== undefined) entry.vlan = vlan;
  entry.state = stateName(h.state);
  // An entry that its bridge holds names the bridge (NDA_MASTER) and sets no flag.
  const bits = h.flags | (a.has(NDA_MASTER) && !(h.flags & NTF_SELF) ? NTF_MASTER : 0);
  entry.flags = flagBits.filter(([, bit]) => bits & bit).map(([name]) => name);
  return entry;
}
