/**
 * The routed attachment: /32 and /128 over a veth, the way Calico made usual.
 *
 * The gateway is an address that nobody has (169.254.1.1, fe80::1): the sandbox's permanent neighbour entry sends what is
 * for it to the host side's fixed MAC, and the node routes it. So all pods of all nodes look alike inside, a pod can be
 * told nothing false by ARP or ND, and neither side ever waits for an answer.
 */
import { type Cidr, type Family, familyOf, type Ip, type Mac, parseCidr } from '../base/ip.ts';
import {
  type Address,
  type Neighbour,
  POD_LINK_GROUP,
  type Route,
  WEFT_PROTOCOL,
} from '../base/net-objects.ts';
import type { Attachment, AttachPlan, Sysctl } from '../state/attachment.ts';
import { aliasOf } from './names.ts';

/** MAC of every host side: locally administered, "Weft" in ASCII. */
export const HOST_MAC: Mac = '02:57:65:66:74:01';
/** RFC 3927 and RFC 4291 link-local: never routed, so it can be the same everywhere. */
export const GATEWAY: Readonly<Record<Family, Ip>> = { 4: '169.254.1.1', 6: 'fe80::1' };
export const DEFAULT_ROUTE: Readonly<Record<Family, Cidr>> = { 4: '0.0.0.0/0', 6: '::/0' };

export function planAttachment(attachment: Attachment): AttachPlan {
  const { hostIfname: host, ifname: dev, mac, mtu } = attachment;
  const ips = attachment.ips.map((cidr) => parseCidr(cidr).ip);
  const families = ([4, 6] as const).filter((family) => ips.some((ip) => familyOf(ip) === family));
  const destinations =
    attachment.routes?.filter((cidr) => families.includes(familyOf(cidr))) ??
    families.map((family) => DEFAULT_ROUTE[family]);

  return {
    attachment,
    link: {
      kind: 'link',
      name: host,
      type: 'veth',
      mac: HOST_MAC,
      mtu,
      up: true,
      group: POD_LINK_GROUP,
      alias: aliasOf(attachment.id),
      addrGenMode: 'none',
      peer: { name: dev, netns: attachment.netns, mac, mtu, addrGenMode: 'none' },
    },
    host: {
      sysctls: families.flatMap((family) => hostSysctls(family, host)),
      neighbours: ips.map((dst): Neighbour => ({ kind: 'neighbour', dev: host, dst, mac, ...permanent })),
      routes: attachment.ips.map(
        (dst): Route => ({
          kind: 'route',
          dst,
          dev: host,
          protocol: WEFT_PROTOCOL,
          ...(familyOf(dst) === 4 && { scope: 'link' as const }),
        }),
      ),
    },
    pod: {
      sysctls: families.flatMap((family) => podSysctls(family, dev)),
      addresses: attachment.ips.map(
        (address): Address => ({
          kind: 'address',
          dev,
          address,
          ...(familyOf(address) === 6 && { noDad: true }),
        }),
      ),
      neighbours: families.map(
        (family): Neighbour => ({
          kind: 'neighbour',
          dev,
          dst: GATEWAY[family],
          mac: HOST_MAC,
          ...permanent,
        }),
      ),
      routes: destinations.map(
        (dst): Route => ({
          kind: 'route',
          dst,
          via: GATEWAY[familyOf(dst)],
          dev,
          onlink: true,
          protocol: WEFT_PROTOCOL,
        }),
      ),
    },
  };
}

const permanent = { state: 'permanent', protocol: WEFT_PROTOCOL } as const;

/**
 * The node forwards for this device whatever the defaults are that it was born with; it answers ARP for nobody
 * (proxy_arp) and learns no route or address from a pod (accept_ra).
 */
function hostSysctls(family: Family, dev: string): Sysctl[] {
  return family === 4
    ? [
        { path: `net/ipv4/conf/${dev}/forwarding`, value: '1' },
        { path: `net/ipv4/conf/${dev}/proxy_arp`, value: '0' },
      ]
    : [
        { path: `net/ipv6/conf/${dev}/disable_ipv6`, value: '0' },
        { path: `net/ipv6/conf/${dev}/accept_ra`, value: '0' },
        { path: `net/ipv6/conf/${dev}/forwarding`, value: '1' },
      ];
}

/** Runtimes switch IPv6 off in new sandboxes as often as not, and the kernel's own default is to believe advertisements. */
function podSysctls(family: Family, dev: string): Sysctl[] {
  return family === 4
    ? []
    : [
        { path: `net/ipv6/conf/${dev}/disable_ipv6`, value: '0' },
        { path: `net/ipv6/conf/${dev}/accept_ra`, value: '0' },
      ];
}
