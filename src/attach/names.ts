/** Names and addresses that follow from an attachment's identity alone, so that a repeated ADD finds its own again. */
import { createHash } from 'node:crypto';
import { formatMac, type Mac } from '../base/ip.ts';

/** CNI's key of an attachment: no container ID holds a slash (CNI 1.1.0, "Parameters"). */
export function attachmentId(containerId: string, ifname: string): string {
  return `${containerId}/${ifname}`;
}

/** Host side of the veth: 15 bytes, the most that IFNAMSIZ leaves. */
export function hostIfnameOf(id: string): string {
  return `weft${sha256(id).toString('hex', 0, 6).slice(0, 11)}`;
}

/** The sandbox's MAC unless the runtime asks for one: locally administered, unicast (IEEE 802). */
export function macOf(id: string): Mac {
  const bytes = new Uint8Array(sha256(`mac ${id}`).subarray(0, 6));
  bytes[0] = (bytes[0]! & 0xfc) | 0x02;
  return formatMac(bytes);
}

/** IFLA_IFALIAS of the host side; at most 255 bytes, so an immoderate container ID is cut (the name stays unique). */
export function aliasOf(id: string): string {
  return `weft:${id}`.slice(0, 255);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
