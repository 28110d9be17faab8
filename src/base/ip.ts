/**
 * IP, CIDR and MAC values.
 *
 * Everywhere outside the codecs an address is its canonical text (RFC 5952 for IPv6, dotted quad for IPv4, lower-case
 * colon form for MACs), so that values compare with ===, key maps, print and cross threads as they are.
 */
import { WeftError } from './errors.ts';

export type Family = 4 | 6;

/** Canonical address text. */
export type Ip = string;
/** Canonical `address/length`; host bits are kept as given unless said otherwise. */
export type Cidr = string;
/** Canonical lower-case `aa:bb:cc:dd:ee:ff`. */
export type Mac = string;

const bad = (what: string, text: string): WeftError =>
  new WeftError('WEFT_BAD_ADDRESS', `${JSON.stringify(text)} is not ${what}`, { details: { value: text } });

/** The family of an address text or CIDR text, by its form alone. */
export function familyOf(text: string): Family {
  return text.includes(':') ? 6 : 4;
}

/** Text → 4 or 16 bytes in network order. Leading zeros in IPv4 octets are refused (ambiguous octal). @throws WEFT_BAD_ADDRESS */
export function parseIp(text: string): Uint8Array {
  return text.includes(':') ? parseIp6(text) : parseIp4(text);
}

function parseIp4(text: string): Uint8Array {
  const out = new Uint8Array(4);
  let octet = 0;
  let value = 0;
  let digits = 0;
  for (let i = 0; i <= text.length; i++) {
    const c = i === text.length ? 46 : text.charCodeAt(i);
    if (c === 46) {
      if (digits === 0 || octet > 3 || value > 255) throw bad('an IPv4 address', text);
      out[octet++] = value;
      value = 0;
      digits = 0;
    } else if (c >= 48 && c <= 57) {
      if (digits > 0 && value === 0) throw bad('an IPv4 address (leading zero)', text);
      value = value * 10 + c - 48;
      if (++digits > 3) throw bad('an IPv4 address', text);
    } else throw bad('an IPv4 address', text);
  }
  if (octet !== 4) throw bad('an IPv4 address', text);
  return out;
}

function parseIp6(text: string): Uint8Array {
  const out = new Uint8Array(16);
  const halves = text.split('::');
  if (halves.length > 2) throw bad('an IPv6 address', text);
  const groups = (part: string, endsText: boolean): number[] => {
    if (part === '') return [];
    const result: number[] = [];
    const pieces = part.split(':');
    pieces.forEach((piece, i) => {
      if (piece.includes('.')) {
        if (!endsText || i !== pieces.length - 1) throw bad('an IPv6 address', text);
        const v4 = parseIp4(piece);
        result.push((v4[0]! << 8) | v4[1]!, (v4[2]! << 8) | v4[3]!);
      } else {
        if (!/^[0-9a-fA-F]{1,4}$/.test(piece)) throw bad('an IPv6 address', text);
        result.push(Number.parseInt(piece, 16));
      }
    });
    return result;
  };
  const head = groups(halves[0]!, halves.length === 1);
  const tail = halves.length === 2 ? groups(halves[1]!, true) : [];
  const missing = 8 - head.length - tail.length;
  if (halves.length === 1 ? missing !== 0 : missing < 1) throw bad('an IPv6 address', text);
  const all = [...head, ...new Array<number>(missing).fill(0), ...tail];
  all.forEach((group, i) => {
    out[2 * i] = group >> 8;
    out[2 * i + 1] = group & 255;
  });
  return out;
}

/** 4 or 16 bytes → canonical text (RFC 5952 §4). @throws WEFT_BAD_ADDRESS on any other length */
export function formatIp(bytes: Uint8Array): Ip {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  if (bytes.length !== 16) throw bad('an address (4 or 16 bytes)', `${bytes.length} bytes`);
  const groups: number[] = [];
  for (let i = 0; i < 16; i += 2) groups.push((bytes[i]! << 8) | bytes[i + 1]!);
  // IPv4-mapped addresses print their low half as IPv4 (RFC 5952 §5).
  if (groups.slice(0, 5).every((g) => g === 0) && groups[5] === 0xffff) {
    return `::ffff:${formatIp(bytes.subarray(12))}`;
  }
  let start = -1;
  let length = 1; // a single zero group is not compressed (RFC 5952 §4.2.2)
  for (let i = 0; i < 8; i++) {
    let j = i;
    while (j < 8 && groups[j] === 0) j++;
    if (j - i > length) {
      start = i;
      length = j - i;
    }
    if (j > i) i = j;
  }
  const hex = (from: number, to: number): string =>
    groups
      .slice(from, to)
      .map((g) => g.toString(16))
      .join(':');
  return start < 0 ? hex(0, 8) : `${hex(0, start)}::${hex(start + length, 8)}`;
}

/** Any valid spelling → the canonical one. @throws WEFT_BAD_ADDRESS */
export function canonicalIp(text: string): Ip {
  return formatIp(parseIp(text));
}

export function isIp(text: string): boolean {
  try {
    parseIp(text);
    return true;
  } catch {
    return false;
  }
}

/** Address ↔ number, for arithmetic in pools. */
export function ipToBigInt(text: Ip): bigint {
  let value = 0n;
  for (const byte of parseIp(text)) value = (value << 8n) | BigInt(byte);
  return value;
}

/** @throws WEFT_BAD_ADDRESS when the value does not fit the family */
export function bigIntToIp(value: bigint, family: Family): Ip {
  const length = family === 4 ? 4 : 16;
  if (value < 0n || value >> BigInt(length * 8) !== 0n) throw bad(`an IPv${family} value`, String(value));
  const bytes = new Uint8Array(length);
  let rest = value;
  for (let i = length - 1; i >= 0; i--) {
    bytes[i] = Number(rest & 255n);
    rest >>= 8n;
  }
  return formatIp(bytes);
}

export interface ParsedCidr {
  family: Family;
  /** The address as given, host bits included. */
  ip: Ip;
  /** Prefix length, 0–32 or 0–128. */
  length: number;
  /** The first address: host bits cleared. */
  network: Ip;
}

/** `address/length` → parts; a bare address is a host prefix. @throws WEFT_BAD_ADDRESS */
export function parseCidr(text: string): ParsedCidr {
  const slash = text.indexOf('/');
  const bytes = parseIp(slash < 0 ? text : text.slice(0, slash));
  const bits = bytes.length * 8;
  const lengthText = slash < 0 ? String(bits) : text.slice(slash + 1);
  if (!/^(0|[1-9]\d{0,2})$/.test(lengthText)) throw bad('a CIDR', text);
  const length = Number(lengthText);
  if (length > bits) throw bad('a CIDR', text);
  const network = bytes.slice();
  for (let i = 0; i < network.length; i++) {
    const keep = Math.min(8, Math.max(0, length - i * 8));
    network[i] = network[i]! & (0xff00 >> keep) & 0xff;
  }
  return { family: bytes.length === 4 ? 4 : 6, ip: formatIp(bytes), length, network: formatIp(network) };
}

/** Any valid spelling → `network/length` with host bits cleared. @throws WEFT_BAD_ADDRESS */
export function canonicalCidr(text: string): Cidr {
  const { network, length } = parseCidr(text);
  return `${network}/${length}`;
}

/** Whether `cidr` contains the address or the whole of the other CIDR; false across families. */
export function cidrContains(cidr: Cidr, addressOrCidr: string): boolean {
  const outer = parseCidr(cidr);
  const inner = parseCidr(addressOrCidr);
  if (outer.family !== inner.family || inner.length < outer.length) return false;
  const shift = BigInt((outer.family === 4 ? 32 : 128) - outer.length);
  return ipToBigInt(outer.ip) >> shift === ipToBigInt(inner.ip) >> shift;
}

export function cidrOverlaps(a: Cidr, b: Cidr): boolean {
  return cidrContains(a, b) || cidrContains(b, a);
}

/** How many addresses a CIDR holds. */
export function cidrSize(cidr: Cidr): bigint {
  const { family, length } = parseCidr(cidr);
  return 1n << BigInt((family === 4 ? 32 : 128) - length);
}

/** The address at `offset` from the network address. @throws WEFT_BAD_ADDRESS when it lies outside */
export function cidrAt(cidr: Cidr, offset: bigint | number): Ip {
  const { family, network } = parseCidr(cidr);
  const n = BigInt(offset);
  if (n < 0n || n >= cidrSize(cidr)) throw bad(`an offset within ${cidr}`, String(offset));
  return bigIntToIp(ipToBigInt(network) + n, family);
}

/** /32 or /128 of an address. */
export function hostCidr(ip: Ip): Cidr {
  return `${ip}/${familyOf(ip) === 4 ? 32 : 128}`;
}

/** Order by family, then by value: for stable output. */
export function compareIp(a: Ip, b: Ip): number {
  const x = parseIp(a);
  const y = parseIp(b);
  if (x.length !== y.length) return x.length - y.length;
  for (let i = 0; i < x.length; i++) if (x[i] !== y[i]) return x[i]! - y[i]!;
  return 0;
}

/** @throws WEFT_BAD_ADDRESS */
export function parseMac(text: string): Uint8Array {
  if (!/^[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}$/.test(text)) throw bad('a MAC address', text);
  return Uint8Array.from(text.split(/[:-]/), (part) => Number.parseInt(part, 16));
}

export function formatMac(bytes: Uint8Array): Mac {
  return Array.from(bytes, (b) => b.toString(16).padStart(2, '0')).join(':');
}

/** The IPv6 link-local address the kernel derives from a MAC (RFC 4291 appendix A, modified EUI-64). */
export function linkLocalOf(mac: Mac): Ip {
  const m = parseMac(mac);
  const bytes = new Uint8Array(16);
  bytes.set([0xfe, 0x80]);
  bytes.set([m[0]! ^ 2, m[1]!, m[2]!, 0xff, 0xfe, m[3]!, m[4]!, m[5]!], 8);
  return formatIp(bytes);
}
