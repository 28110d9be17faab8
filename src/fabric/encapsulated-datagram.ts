/** A UDP datagram between two pods, as a VTEP sends it: the payload of the outer UDP packet (RFC 7348 §5). */
import { type Ip, type Mac, parseIp, parseMac } from '../base/ip.ts';

export interface Encapsulated {
  vni: number;
  sourceMac: Mac;
  targetMac: Mac;
  /** IPv4. */
  source: Ip;
  target: Ip;
  /** Of the inner UDP header, both ends. */
  port: number;
  payload: string;
}

/** Hexadecimal. The inner UDP checksum is zero: none (RFC 768). */
export function encapsulatedDatagram(packet: Encapsulated): string {
  const payload = Buffer.from(packet.payload, 'latin1');
  const vxlan = Buffer.alloc(8);
  vxlan[0] = 0x08; // the VNI is valid
  vxlan.writeUIntBE(packet.vni, 4, 3);
  const ethernet = Buffer.concat([
    parseMac(packet.targetMac),
    parseMac(packet.sourceMac),
    Buffer.from([0x08, 0x00]),
  ]);
  const ip = Buffer.alloc(20);
  ip[0] = 0x45;
  ip.writeUInt16BE(20 + 8 + payload.length, 2);
  ip[8] = 64; // TTL
  ip[9] = 17; // UDP
  ip.set(parseIp(packet.source), 12);
  ip.set(parseIp(packet.target), 16);
  ip.writeUInt16BE(checksum(ip), 10);
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(packet.port, 0);
  udp.writeUInt16BE(packet.port, 2);
  udp.writeUInt16BE(8 + payload.length, 4);
  return Buffer.concat([vxlan, ethernet, ip, udp, payload]).toString('hex');
}

/** RFC 1071. */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}
