/**
 * What the tunnel is in the kernel.
 *
 * The device learns nothing and floods nothing: who is where comes from the node list alone. Per remote node there is one
 * FDB entry (its MAC → its node address), one permanent neighbour per family (next hop → its MAC) and the routes.
 *
 * Next hops. IPv4: the remote VTEP address (the network address of its pod CIDR), onlink. IPv6: the link-local address of
 * its MAC, because the kernel refuses an onlink gateway that another route covers with another device
 * (ip6_route_check_nh_onlink), which is exactly what a node that moves from a direct path to the tunnel looks like.
 *
 * Checksums. The outer UDP checksum over IPv4 is zero (RFC 7348 §5), over IPv6 it is computed (RFC 8200 §8.1). Transmit
 * offload stays on: the stalls that made others turn it off came from kernels before 5.7 that rewrote a zero checksum when
 * the outer packet was masqueraded (fixed by ea64d8d6c675), and Weft never translates the outer packet.
 */
import { createHash } from 'node:crypto';
import { type Family, formatMac, hostCidr, type Ip, linkLocalOf, type Mac } from '../../base/ip.ts';
import { type NetObject, type Route, WEFT_PROTOCOL } from '../../base/net-objects.ts';
import type { Sysctl } from '../../state/attachment.ts';
import type { FabricNode, Underlay } from '../../state/fabric-plan.ts';
import {
  FABRIC_METRIC,
  type FabricContext,
  nodeIp,
  nodeSource,
  podCidrs,
  type TunnelFamily,
  underlayOf,
  vtepAddress,
} from '../context.ts';

/** One device per family of outer header; the second one exists only in clusters whose nodes have no IPv4 in common. */
export const VXLAN_DEVICE: Readonly<Record<TunnelFamily, string>> = { 4: 'weft-vxlan', 6: 'weft-vxlan6' };

/** IFLA_IFALIAS of every device of the fabric: the mark by which it is found again. */
export const FABRIC_ALIAS = 'weft:fabric';

/** Ethernet 14 + VXLAN 8 + UDP 8 + IPv4 20 or IPv6 40 bytes (RFC 7348 §5). */
export const VXLAN_OVERHEAD: Readonly<Record<TunnelFamily, number>> = { 4: 50, 6: 70 };

/** The routing table of what pods send to addresses of nodes behind the tunnel, and the priority of the rule that leads there. */
export const POD_TO_NODE_TABLE = 87;
export const POD_TO_NODE_PRIORITY = 87;

/**
 * The MAC of a node's VTEP: 46 bits of a hash of its name, unicast and locally administered, so that a node which
 * restarts, or is installed anew under its name, keeps it.
 */
export function vtepMac(nodeName: string): Mac {
  const bytes = createHash('sha256').update(`weft-vtep/${nodeName}`).digest().subarray(0, 6);
  bytes[0] = (bytes[0]! & 0xfc) | 0x02;
  return formatMac(bytes);
}

/** Bytes of a pod's packet that fit through the tunnel; undefined without an underlay of that family. */
export function tunnelMtu(context: FabricContext, outer: TunnelFamily): number | undefined {
  const underlay: Underlay | undefined = underlayOf(context, outer);
  return underlay && underlay.mtu - VXLAN_OVERHEAD[outer];
}

/** The device of this node with its addresses and settings. `mtu` in bytes. */
export function tunnelDevice(
  context: FabricContext,
  outer: TunnelFamily,
  mtu: number,
): { objects: NetObject[]; sysctls: Sysctl[] } {
  const { self, config } = context;
  const dev = VXLAN_DEVICE[outer];
  const local = nodeIp(self, outer);
  if (local === undefined) return { objects: [], sysctls: [] };
  const objects: NetObject[] = [
    {
      kind: 'link',
      name: dev,
      type: 'vxlan',
      mac: vtepMac(self.name),
      mtu,
      up: true,
      alias: FABRIC_ALIAS,
      addrGenMode: 'none',
      vxlan: {
        id: config.fabric.vxlanVni,
        port: config.fabric.vxlanPort,
        local,
        learning: false,
        ...(outer === 4 && { udpCsum: false }),
      },
    },
  ];
  // Loose: while two nodes hear of a change at different moments, packets may come by the other path.
  const sysctls: Sysctl[] = [{ path: `net/ipv4/conf/${dev}/rp_filter`, value: '2' }];
  const v4 = vtepAddress(self, 4);
  if (v4 !== undefined) {
    // Scope link beside a node address: the kernel never falls back to it as a source (net/ipv4/devinet.c,
    // inet_select_addr), and it is no address that users are shown. Without one it must serve.
    const scope = nodeIp(self, 4) === undefined ? 'global' : 'link';
    objects.push({ kind: 'address', dev, address: hostCidr(v4), scope });
  }
  const v6 = vtepAddress(self, 6);
  if (v6 !== undefined) {
    // Not beside a node address: IPv6 chooses sources by longest match (RFC 6724 §5, rule 8) and has no scope that would keep this
    // one out, so servers on the node would answer their own pods from it instead of from the address that was asked.
    if (nodeIp(self, 6) === undefined)
      objects.push({ kind: 'address', dev, address: hostCidr(v6), noDad: true });
    sysctls.push(
      { path: `net/ipv6/conf/${dev}/disable_ipv6`, value: '0' },
      { path: `net/ipv6/conf/${dev}/accept_ra`, value: '0' },
    );
  }
  return { objects, sysctls };
}

/** The rules that lead this node's pods to addresses of nodes behind the tunnel. */
export function podToNodeRules(self: FabricNode): NetObject[] {
  return self.podCIDRs.map((cidr) => ({
    kind: 'rule',
    family: cidr.includes(':') ? 6 : 4,
    priority: POD_TO_NODE_PRIORITY,
    src: cidr,
    table: POD_TO_NODE_TABLE,
    action: 'lookup',
    protocol: WEFT_PROTOCOL,
  }));
}

/** The remote VTEP on our device: its forwarding entry. */
export function tunnelPeer(remote: FabricNode, outer: TunnelFamily): NetObject[] {
  const dst = nodeIp(remote, outer);
  if (dst === undefined || remote.vtepMac === undefined) return [];
  return [
    {
      kind: 'fdb',
      dev: VXLAN_DEVICE[outer],
      mac: remote.vtepMac,
      dst,
      state: 'permanent',
      flags: ['self'],
    },
  ];
}

/**
 * Pods of one family behind a remote VTEP, and with them the node's own address of that family as pods here reach it.
 *
 * The latter is what keeps pod↔node traffic symmetric and free of NAT between subnets: `from <own pods>` looks first in a
 * table that holds those node addresses, so neither a pod's packet to a node nor a pod's answer to one appears on the
 * underlay with a pod's address, which routers and clouds drop. Packets of the node itself (the encapsulated ones among
 * them) do not come from a pod CIDR and take the underlay.
 */
export function tunnelRoutes(
  context: FabricContext,
  remote: FabricNode,
  outer: TunnelFamily,
  family: Family,
): NetObject[] {
  const dev = VXLAN_DEVICE[outer];
  const mac = remote.vtepMac;
  const via = mac === undefined ? undefined : nextHop(remote, family, mac);
  if (mac === undefined || via === undefined) return [];
  const src = nodeSource(context.self, family);
  const gateway: Pick<Route, 'via' | 'dev' | 'onlink'> = { via, dev, ...(family === 4 && { onlink: true }) };
  const objects: NetObject[] = [
    { kind: 'neighbour', dev, dst: via, mac, state: 'permanent', protocol: WEFT_PROTOCOL },
  ];
  for (const dst of podCidrs(remote, family)) {
    objects.push({
      kind: 'route',
      dst,
      ...gateway,
      metric: FABRIC_METRIC,
      protocol: WEFT_PROTOCOL,
      ...(src !== undefined && { src }),
    });
  }
  const ip = nodeIp(remote, family);
  if (ip !== undefined && podCidrs(context.self, family).length > 0) {
    objects.push({
      kind: 'route',
      dst: hostCidr(ip),
      table: POD_TO_NODE_TABLE,
      ...gateway,
      metric: FABRIC_METRIC,
      protocol: WEFT_PROTOCOL,
    });
  }
  return objects;
}

function nextHop(remote: FabricNode, family: Family, mac: Mac): Ip | undefined {
  return family === 6 ? linkLocalOf(mac) : (vtepAddress(remote, 4) ?? nodeIp(remote, 4));
}
