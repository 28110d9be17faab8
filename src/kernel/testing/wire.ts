/** Ethernet frames made by hand and seen on the wire: what no ordinary socket would send, and proof of what arrives. */
import { formatIp, type Ip, type Mac, parseIp, parseMac } from '../../base/ip.ts';
import type { NsPath } from '../../base/net-objects.ts';
import * as ffi from '../ffi.ts';
import { withNetns } from '../netns.ts';
import { ipJson } from './scratch.ts';

const AF_PACKET = 17;
const ETH_P_ALL = 3;
const ETH_P_IP = 0x0800;
const ETH_P_ARP = 0x0806;
const ETH_P_IPV6 = 0x86dd;
const UDP = 17;
const ICMPV6 = 58;

/** A packet socket on one device of a namespace: sends frames as they are, and sees all that go in and out there. */
export class Wire implements Disposable {
  readonly mac: Mac;
  readonly #fd: number;
  readonly #buffer = new Uint8Array(65536);

  constructor(ns: NsPath, dev: string) {
    const [link] = ipJson(ns, 'link', 'show', dev);
    this.mac = String(link?.address);
    const address = new Uint8Array(20);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_PACKET, true);
    view.setUint16(2, ETH_P_ALL);
    view.setInt32(4, Number(link?.ifindex), true);
    this.#fd = withNetns(ns, () => {
      const type = ffi.SOCK_RAW | ffi.SOCK_CLOEXEC;
      const fd = ffi.check(ffi.libc.socket(AF_PACKET, type, ETH_P_ALL << 8), 'socket(AF_PACKET)');
      ffi.check(ffi.libc.bind(fd, address, address.length), `bind(AF_PACKET, ${dev})`);
      return fd;
    });
  }

  send(frame: Uint8Array): void {
    ffi.check(ffi.libc.sendto(this.#fd, frame, frame.length, 0, null, 0), 'sendto(AF_PACKET)');
  }

  /** What has been seen since the last call. */
  seen(): Uint8Array[] {
    const frames: Uint8Array[] = [];
    for (;;) {
      const n = ffi.libc.recvfrom(this.#fd, this.#buffer, this.#buffer.length, ffi.MSG_DONTWAIT, null, null);
      if (n < 0) return frames;
      frames.push(this.#buffer.slice(0, n));
    }
  }

  [Symbol.dispose](): void {
    ffi.libc.close(this.#fd);
  }
}

function checksum(...parts: Uint8Array[]): number {
  let sum = 0;
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) sum += (part[i]! << 8) | (part[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function ethernet(dst: Mac, src: Mac, type: number, payload: Uint8Array): Uint8Array {
  const frame = new Uint8Array(14 + payload.length);
  frame.set(parseMac(dst));
  frame.set(parseMac(src), 6);
  new DataView(frame.buffer).setUint16(12, type);
  frame.set(payload, 14);
  return frame;
}

/** An IP packet of a protocol whose checksum is at `checksumAt` of its header. */
function packet(src: Ip, dst: Ip, protocol: number, body: Uint8Array, checksumAt: number): Uint8Array {
  const s = parseIp(src);
  const d = parseIp(dst);
  const header = new Uint8Array(s.length === 4 ? 20 : 40);
  const view = new DataView(header.buffer);
  if (s.length === 4) {
    header.set([0x45, 0]);
    view.setUint16(2, 20 + body.length);
    header.set([0, 0, 0, 0, 64, protocol], 4);
    header.set(s, 12);
    header.set(d, 16);
    view.setUint16(10, checksum(header));
  } else {
    header.set([0x60]);
    view.setUint16(4, body.length);
    header.set([protocol, 255], 6);
    header.set(s, 8);
    header.set(d, 24);
  }
  const sum = checksum(s, d, Uint8Array.of(0, protocol, body.length >> 8, body.length & 255), body);
  new DataView(body.buffer).setUint16(checksumAt, sum || 0xffff);
  const all = new Uint8Array(header.length + body.length);
  all.set(header);
  all.set(body, header.length);
  return all;
}

export interface UdpPacket {
  src: Ip;
  dst: Ip;
  sport?: number;
  dport: number;
  data: string;
}

export function udpFrame(
  to: Mac,
  from: Mac,
  { src, dst, sport = 40000, dport, data }: UdpPacket,
): Uint8Array {
  const text = new TextEncoder().encode(data);
  const body = new Uint8Array(8 + text.length);
  const view = new DataView(body.buffer);
  view.setUint16(0, sport);
  view.setUint16(2, dport);
  view.setUint16(4, body.length);
  body.set(text, 8);
  const type = src.includes(':') ? ETH_P_IPV6 : ETH_P_IP;
  return ethernet(to, from, type, packet(src, dst, UDP, body, 6));
}

/** The UDP packet in a frame, if that is what it is. */
export function readUdp(frame: Uint8Array): (UdpPacket & { sport: number }) | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  if (frame.length < 14) return undefined;
  const type = view.getUint16(12);
  const four = type === ETH_P_IP && frame[23] === UDP;
  const six = type === ETH_P_IPV6 && frame[20] === UDP;
  if (!four && !six) return undefined;
  const at = four ? 14 + (frame[14]! & 15) * 4 : 54;
  return {
    src: formatIp(four ? frame.slice(26, 30) : frame.slice(22, 38)),
    dst: formatIp(four ? frame.slice(30, 34) : frame.slice(38, 54)),
    sport: view.getUint16(at),
    dport: view.getUint16(at + 2),
    data: new TextDecoder().decode(frame.subarray(at + 8, at + view.getUint16(at + 4))),
  };
}

/** ARP (RFC 826). */
export function arpFrame(
  to: Mac,
  from: Mac,
  arp: { op: 'request' | 'reply'; senderIp: Ip; senderMac: Mac; targetIp: Ip },
): Uint8Array {
  const body = new Uint8Array(28);
  body.set([0, 1, 8, 0, 6, 4, 0, arp.op === 'request' ? 1 : 2]);
  body.set(parseMac(arp.senderMac), 8);
  body.set(parseIp(arp.senderIp), 14);
  body.set(parseIp(arp.targetIp), 24);
  return ethernet(to, from, ETH_P_ARP, body);
}

/** A neighbour advertisement with override (RFC 4861 §4.4): "`target` is at `mac`". */
export function advertisementFrame(
  to: Mac,
  from: Mac,
  na: { src: Ip; dst: Ip; target: Ip; mac: Mac },
): Uint8Array {
  const body = new Uint8Array(32);
  body.set([136, 0, 0, 0, 0x20]);
  body.set(parseIp(na.target), 8);
  body.set([2, 1], 24);
  body.set(parseMac(na.mac), 26);
  return ethernet(to, from, ETH_P_IPV6, packet(na.src, na.dst, ICMPV6, body, 2));
}

/** A neighbour solicitation (RFC 4861 §4.3): "who is `target`? I am `src`, at `mac`". */
export function solicitationFrame(
  to: Mac,
  from: Mac,
  ns: { src: Ip; dst: Ip; target: Ip; mac: Mac },
): Uint8Array {
  const body = new Uint8Array(32);
  body.set([135]);
  body.set(parseIp(ns.target), 8);
  body.set([1, 1], 24);
  body.set(parseMac(ns.mac), 26);
  return ethernet(to, from, ETH_P_IPV6, packet(ns.src, ns.dst, ICMPV6, body, 2));
}
