/**
 * nftables over nfnetlink: elements of sets and maps, and what the kernel tells of changes
 * (include/uapi/linux/netfilter/nf_tables.h). Structure (tables, chains, rules, sets) goes by libnftables; elements go by
 * these messages, whose cost does not depend on the ruleset.
 */
import { WeftError } from '../base/errors.ts';
import {
  type Attributes,
  eachAttribute,
  malformed,
  NLM_F_CREATE,
  NLMSG_HEADER,
  type NlMessage,
  NlReader,
  type NlWriter,
  readAttributes,
} from './netlink.ts';
import {
  NFGENMSG,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_ARP,
  NFPROTO_BRIDGE,
  NFPROTO_INET,
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFPROTO_NETDEV,
  NFPROTO_UNSPEC,
  nfMessageType,
  nfWriter,
} from './nfnetlink.ts';

const nftType = (operation: number): number => nfMessageType(NFNL_SUBSYS_NFTABLES, operation);
const NFT_MSG_GETTABLE = nftType(1);
export const NFT_MSG_NEWSETELEM = nftType(12);
export const NFT_MSG_GETSETELEM = nftType(13);
export const NFT_MSG_DELSETELEM = nftType(14);
export const NFT_MSG_NEWGEN = nftType(15);
const NFT_MSG_TRACE = nftType(17);

const NFTA_TABLE_NAME = 1;
const NFTA_TABLE_FLAGS = 2;
const NFTA_TABLE_HANDLE = 4;
/** By bit. */
const TABLE_FLAGS = ['dormant', 'owner', 'persist'];
const NFTA_SET_ELEM_LIST_TABLE = 1;
const NFTA_SET_ELEM_LIST_SET = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
const NFTA_LIST_ELEM = 1;
const NFTA_SET_ELEM_KEY = 1;
const NFTA_SET_ELEM_DATA = 2;
const NFTA_SET_ELEM_FLAGS = 3;
const NFTA_SET_ELEM_TIMEOUT = 4;
const NFTA_SET_ELEM_EXPIRATION = 5;
const NFTA_SET_ELEM_KEY_END = 10;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const NFTA_VERDICT_CODE = 1;
const NFTA_VERDICT_CHAIN = 2;
const NFTA_GEN_ID = 1;
const NFTA_GEN_PROC_PID = 2;
const NFTA_GEN_PROC_NAME = 3;
/** NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE, NFTA_SET_TABLE …: the table is attribute 1 of every message. */
const NFTA_ANY_TABLE = 1;

const NFT_SET_ELEM_INTERVAL_END = 1;
const NFT_SET_ELEM_CATCHALL = 2;

/** The list of elements is one attribute, whose length has 16 bits; the largest element is below 1 KiB. */
const ELEMENTS_LIMIT = 64_000;

export type NftFamily = 'ip' | 'ip6' | 'inet' | 'arp' | 'bridge' | 'netdev';

/** One element of a set, or of a map with its data. Bytes are in nftables' register layout: each concatenated field padded to 4 bytes. */
export interface NftElement {
  /** Empty for the catch-all element. */
  key: Uint8Array;
  /** End of an interval (NFTA_SET_ELEM_KEY_END), for concatenated ranges. */
  keyEnd?: Uint8Array;
  /** Flags: interval end for plain interval sets. */
  intervalEnd?: boolean;
  /** The element `*`, which is met when no other is. */
  catchall?: boolean;
  data?: Uint8Array | NftVerdict;
  /** Milliseconds. */
  timeout?: number;
  /** Observed only: milliseconds left. */
  expires?: number;
}

export interface NftVerdict {
  code: 'accept' | 'drop' | 'continue' | 'return' | 'jump' | 'goto';
  chain?: string;
}

export interface NftElementChange {
  family: NftFamily;
  table: string;
  set: string;
  /** `flush` empties the set. */
  action: 'add' | 'delete' | 'flush';
  elements?: NftElement[];
}

const families: Record<NftFamily, number> = {
  inet: NFPROTO_INET,
  ip: NFPROTO_IPV4,
  arp: NFPROTO_ARP,
  netdev: NFPROTO_NETDEV,
  bridge: NFPROTO_BRIDGE,
  ip6: NFPROTO_IPV6,
};
const familyNames = new Map(Object.entries(families).map(([name, value]) => [value, name as NftFamily]));

/** The netfilter verdicts and nftables' own, which are negative (enum nft_verdicts). */
const verdicts: Record<NftVerdict['code'], number> = {
  drop: 0,
  accept: 1,
  continue: -1,
  jump: -3,
  goto: -4,
  return: -5,
};
const verdictNames = new Map(
  Object.entries(verdicts).map(([name, value]) => [value >>> 0, name as NftVerdict['code']]),
);

function familyValue(family: NftFamily): number {
  const value = families[family];
  if (value === undefined) {
    throw new WeftError('WEFT_BAD_CONFIG', `nft family ${JSON.stringify(family)} is unknown`);
  }
  return value;
}

// --- changes ---

/** One message of a change, and which of its elements it carries. */
export interface ElementMessage {
  bytes: Uint8Array;
  /** Index of its first element in the change. */
  first: number;
}

/** A change as messages within a batch: as many as its elements need. @throws WEFT_BAD_CONFIG for values that nftables has no form for */
export function encodeElementChange(change: NftElementChange): ElementMessage[] {
  const begin = (): NlWriter => {
    const type = change.action === 'add' ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM;
    const flags = change.action === 'add' ? NLM_F_CREATE : 0;
    return nfWriter(type, flags, familyValue(change.family))
      .attrString(NFTA_SET_ELEM_LIST_TABLE, change.table)
      .attrString(NFTA_SET_ELEM_LIST_SET, change.set);
  };
  // A deletion without a list empties the set: an empty list must never become one.
  if (change.action === 'flush') return [{ bytes: begin().finish(), first: 0 }];
  const elements = change.elements ?? [];
  const messages: ElementMessage[] = [];
  for (let i = 0; i < elements.length; ) {
    const first = i;
    const w = begin();
    const start = w.length;
    w.nest(NFTA_SET_ELEM_LIST_ELEMENTS, () => {
      do writeElement(w, elements[i++]!);
      while (i < elements.length && w.length - start < ELEMENTS_LIMIT);
    });
    messages.push({ bytes: w.finish(), first });
  }
  return messages;
}

function writeElement(w: NlWriter, element: NftElement): void {
  const { key, keyEnd, data, timeout } = element;
  if (
    !element.catchall &&
    (key.length === 0 || key.length > 64 || (keyEnd && keyEnd.length !== key.length))
  ) {
    throw new WeftError('WEFT_BAD_CONFIG', `an nft element key has 1 to 64 bytes, not ${key.length}`);
  }
  w.nest(NFTA_LIST_ELEM, () => {
    const flags =
      (element.intervalEnd ? NFT_SET_ELEM_INTERVAL_END : 0) | (element.catchall ? NFT_SET_ELEM_CATCHALL : 0);
    if (flags) w.attrU32be(NFTA_SET_ELEM_FLAGS, flags);
    if (!element.catchall) w.nest(NFTA_SET_ELEM_KEY, () => w.attr(NFTA_DATA_VALUE, key));
    if (keyEnd) w.nest(NFTA_SET_ELEM_KEY_END, () => w.attr(NFTA_DATA_VALUE, keyEnd));
    if (timeout !== undefined) w.attrU64be(NFTA_SET_ELEM_TIMEOUT, BigInt(timeout));
    if (data instanceof Uint8Array) w.nest(NFTA_SET_ELEM_DATA, () => w.attr(NFTA_DATA_VALUE, data));
    else if (data) w.nest(NFTA_SET_ELEM_DATA, () => writeVerdict(w, data));
  });
}

function writeVerdict(w: NlWriter, verdict: NftVerdict): void {
  const code = verdicts[verdict.code];
  if (code === undefined || (verdict.code === 'jump' || verdict.code === 'goto') !== !!verdict.chain) {
    throw new WeftError('WEFT_BAD_CONFIG', `no nft verdict: ${JSON.stringify(verdict)}`);
  }
  w.nest(NFTA_DATA_VERDICT, () => {
    w.attrU32be(NFTA_VERDICT_CODE, code >>> 0);
    if (verdict.chain) w.attrString(NFTA_VERDICT_CHAIN, verdict.chain);
  });
}

/** Which element of a message an extack offset points at, counted from the message's first; undefined for none of them. */
export function elementAt(message: Uint8Array, offset: number): number | undefined {
  let at = NLMSG_HEADER + NFGENMSG;
  for (const { type, value } of eachAttribute(message.subarray(at))) {
    const end = at + 4 + value.length;
    if (type === NFTA_SET_ELEM_LIST_ELEMENTS && offset >= at + 4 && offset < end) {
      let index = 0;
      let from = at + 4;
      for (const element of eachAttribute(value)) {
        from += (4 + element.value.length + 3) & ~3;
        if (offset < from) return index;
        index++;
      }
    }
    at = (end + 3) & ~3;
  }
  return undefined;
}

// --- reading ---

export function encodeElementDump(family: NftFamily, table: string, set: string): Uint8Array {
  return nfWriter(NFT_MSG_GETSETELEM, 0, familyValue(family))
    .attrString(NFTA_SET_ELEM_LIST_TABLE, table)
    .attrString(NFTA_SET_ELEM_LIST_SET, set)
    .finish();
}

/** The elements in one message of a dump or a notification. @throws WEFT_NETLINK_MALFORMED */
export function decodeElements(payload: Uint8Array): NftElement[] {
  const list = new NlReader(payload).attributes(NFGENMSG).bytes(NFTA_SET_ELEM_LIST_ELEMENTS);
  if (!list) return [];
  const elements: NftElement[] = [];
  for (const { value } of eachAttribute(list)) elements.push(decodeElement(readAttributes(value), payload));
  return elements;
}

function decodeElement(a: Attributes, payload: Uint8Array): NftElement {
  const flags = a.u32be(NFTA_SET_ELEM_FLAGS) ?? 0;
  const key = a.nested(NFTA_SET_ELEM_KEY)?.bytes(NFTA_DATA_VALUE);
  if (!key && !(flags & NFT_SET_ELEM_CATCHALL)) throw malformed('a set element without a key', payload);
  const element: NftElement = { key: key?.slice() ?? new Uint8Array() };
  const keyEnd = a.nested(NFTA_SET_ELEM_KEY_END)?.bytes(NFTA_DATA_VALUE);
  if (keyEnd) element.keyEnd = keyEnd.slice();
  if (flags & NFT_SET_ELEM_INTERVAL_END) element.intervalEnd = true;
  if (flags & NFT_SET_ELEM_CATCHALL) element.catchall = true;
  const data = a.nested(NFTA_SET_ELEM_DATA);
  const value = data?.bytes(NFTA_DATA_VALUE);
  const verdict = data?.nested(NFTA_DATA_VERDICT);
  if (value) element.data = value.slice();
  else if (verdict) element.data = decodeVerdict(verdict, payload);
  const timeout = a.u64be(NFTA_SET_ELEM_TIMEOUT);
  if (timeout !== undefined) element.timeout = Number(timeout);
  const expires = a.u64be(NFTA_SET_ELEM_EXPIRATION);
  if (expires !== undefined) element.expires = Number(expires);
  return element;
}

function decodeVerdict(a: Attributes, payload: Uint8Array): NftVerdict {
  const value = a.u32be(NFTA_VERDICT_CODE);
  const code = value === undefined ? undefined : verdictNames.get(value);
  if (!code) throw malformed(`verdict ${value}`, payload);
  const chain = a.string(NFTA_VERDICT_CHAIN);
  return { code, ...(chain !== undefined && { chain }) };
}

export interface NftTable {
  family: NftFamily | string;
  name: string;
  handle: number;
  /** `dormant`, `owner`, `persist`; a bit that has no name here by its number. */
  flags: string[];
}

export function encodeTableDump(): Uint8Array {
  return nfWriter(NFT_MSG_GETTABLE, 0, NFPROTO_UNSPEC).finish();
}

/** @throws WEFT_NETLINK_MALFORMED */
export function decodeTable(payload: Uint8Array): NftTable {
  const r = new NlReader(payload);
  const a = r.attributes(NFGENMSG);
  const name = a.string(NFTA_TABLE_NAME);
  if (name === undefined) throw malformed('a table without a name', payload);
  const family = r.u8(0);
  const bits = a.u32be(NFTA_TABLE_FLAGS) ?? 0;
  const flags: string[] = [];
  for (let bit = 0; bit < 32; bit++) if ((bits >>> bit) & 1) flags.push(TABLE_FLAGS[bit] ?? String(bit));
  return {
    family: familyNames.get(family) ?? String(family),
    name,
    handle: Number(a.u64be(NFTA_TABLE_HANDLE) ?? 0n),
    flags,
  };
}

/** NFT_MSG_NEWGEN: a transaction was committed. */
export interface NftGeneration {
  id: number;
  /** Thread id of who committed it, in the initial pid namespace. */
  pid: number;
  /** That thread's name. */
  name?: string;
}

/** @throws WEFT_NETLINK_MALFORMED */
export function decodeGeneration(payload: Uint8Array): NftGeneration {
  const a = new NlReader(payload).attributes(NFGENMSG);
  const id = a.u32be(NFTA_GEN_ID);
  if (id === undefined) throw malformed('a generation without an id', payload);
  const name = a.string(NFTA_GEN_PROC_NAME);
  return { id, pid: a.u32be(NFTA_GEN_PROC_PID) ?? 0, ...(name && { name }) };
}

/** `inet weft`: the table that a notification of a change is about; undefined for messages that change nothing. */
export function decodeTouchedTable({ type, payload }: NlMessage): string | undefined {
  if (type >> 8 !== NFNL_SUBSYS_NFTABLES || type === NFT_MSG_NEWGEN || type === NFT_MSG_TRACE)
    return undefined;
  const r = new NlReader(payload);
  const table = r.attributes(NFGENMSG).string(NFTA_ANY_TABLE);
  if (table === undefined) return undefined;
  const family = r.u8(0);
  return `${familyNames.get(family) ?? family} ${table}`;
}
