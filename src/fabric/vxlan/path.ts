/** vxlan: every other node through the tunnel, wherever it is. */
import type { Family } from '../../base/ip.ts';
import type { FabricNode } from '../../state/fabric-plan.ts';
import { type FabricContext, nodeIp, type Path, type TunnelFamily } from '../context.ts';

/** Pods of either family travel over whichever underlay the two nodes have in common. */
export function tunnelPath(context: FabricContext, remote: FabricNode, _family: Family): Path {
  const outer = tunnelFamily(context.self, remote);
  if (outer === undefined) {
    const has = (node: FabricNode): string => node.nodeIPs.join(', ') || 'none';
    return {
      kind: 'none',
      reason: remote.nodeIPs.length === 0 ? 'NodeWithoutAddress' : 'NoCommonUnderlayFamily',
      message: `node ${remote.name} (addresses: ${has(remote)}) and ${context.self.name} (${has(context.self)}) have no address family in common`,
    };
  }
  if (remote.vtepMac === undefined) {
    return {
      kind: 'none',
      reason: 'NodeWithoutVtep',
      message: `node ${remote.name} has not announced its VTEP (annotation weft.dev/vtep-mac); is its agent running?`,
    };
  }
  return { kind: 'tunnel', outer };
}

/**
 * IPv4 where both have it (20 bytes less per packet), else IPv6. A pair decides for itself, and both ends decide alike:
 * a node of one family that joins changes nothing between the others.
 */
export function tunnelFamily(a: FabricNode, b: FabricNode): TunnelFamily | undefined {
  for (const family of [4, 6] as const) {
    if (nodeIp(a, family) !== undefined && nodeIp(b, family) !== undefined) return family;
  }
  return undefined;
}
