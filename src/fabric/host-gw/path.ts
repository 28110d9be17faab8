/** host-gw: plain routes by the remote node's address, between nodes of one subnet. Nothing is encapsulated. */
import { cidrContains, type Family } from '../../base/ip.ts';
import type { FabricNode } from '../../state/fabric-plan.ts';
import { type FabricContext, nodeIp, type Path } from '../context.ts';

export function hostGatewayPath(context: FabricContext, remote: FabricNode, family: Family): Path {
  const direct = directPath(context, remote, family);
  if (direct) return direct;
  const ip = nodeIp(remote, family);
  const subnets = context.underlays
    .flatMap((u) => u.onLink)
    .filter((c) => c.includes(':') === (family === 6));
  return {
    kind: 'none',
    reason: ip === undefined ? 'NodeWithoutAddress' : 'NodeNotOnSharedSubnet',
    message:
      ip === undefined
        ? `node ${remote.name} has no IPv${family} address, which host-gw needs to route its IPv${family} pods; use fabric.backend auto or vxlan`
        : `node ${remote.name} (${ip}) shares no subnet with ${context.self.name} (${subnets.join(', ') || `no IPv${family} subnet`}), which host-gw needs; use fabric.backend auto or vxlan`,
  };
}

/** The direct path, if the remote node's address of that family lies on one of our subnets. */
export function directPath(
  context: FabricContext,
  remote: FabricNode,
  family: Family,
): Extract<Path, { kind: 'direct' }> | undefined {
  const via = nodeIp(remote, family);
  if (via === undefined || nodeIp(context.self, family) === undefined) return undefined;
  for (const { dev, onLink } of context.underlays) {
    if (onLink.some((cidr) => cidrContains(cidr, via))) return { kind: 'direct', via, dev };
  }
  return undefined;
}
