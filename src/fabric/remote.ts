/** One remote node → what this node needs in its kernel to reach it. Pure; knows nothing of any third node. */
import { type NetObject, WEFT_PROTOCOL } from '../base/net-objects.ts';
import type { FabricNode, FabricProblem } from '../state/fabric-plan.ts';
import { autoPath } from './auto/path.ts';
import { swallowsUnderlay } from './claims.ts';
import {
  type ChoosePath,
  type FabricContext,
  podCidrs,
  speaks,
  type TunnelFamily,
  UNREACHABLE_METRIC,
} from './context.ts';
import { hostGatewayPath } from './host-gw/path.ts';
import { directRoutes } from './host-gw/routes.ts';
import { tunnelPath } from './vxlan/path.ts';
import { tunnelPeer, tunnelRoutes } from './vxlan/tunnel.ts';

const BACKENDS: Record<FabricContext['config']['fabric']['backend'], ChoosePath> = {
  auto: autoPath,
  vxlan: tunnelPath,
  'host-gw': hostGatewayPath,
};

export interface RemotePlan {
  /** The node less what cannot be used. */
  node: FabricNode;
  objects: NetObject[];
  problems: FabricProblem[];
  /** Tunnel devices this node needs for it. */
  tunnels: TunnelFamily[];
}

/** `remote` as {@link Claims.settle} left it. */
export function compileRemote(context: FabricContext, remote: FabricNode): RemotePlan {
  const objects: NetObject[] = [];
  const problems: FabricProblem[] = [];
  const tunnels = new Set<TunnelFamily>();
  const problem = (reason: FabricProblem['reason'], message: string): void => {
    if (!problems.some((p) => p.message === message)) problems.push({ node: remote.name, reason, message });
  };

  const sound = remote.podCIDRs.filter((cidr) => {
    const swallowed = swallowsUnderlay(cidr, [context.self, remote]);
    if (swallowed === undefined) return true;
    problem('InvalidNode', `pod CIDR ${cidr} of node ${remote.name} contains the node address ${swallowed}`);
    return false;
  });
  const node: FabricNode = { ...remote, podCIDRs: sound };

  for (const family of [4, 6] as const) {
    if (!speaks(context.self, family) || !speaks(node, family)) continue;
    const path = BACKENDS[context.config.fabric.backend](context, node, family);
    switch (path.kind) {
      case 'direct':
        objects.push(...directRoutes(context, node, path, family));
        break;
      case 'tunnel':
        tunnels.add(path.outer);
        objects.push(...tunnelRoutes(context, node, path.outer, family));
        break;
      case 'none':
        if (podCidrs(node, family).length === 0) break;
        problem(path.reason, path.message);
        // Said at once by ICMP, rather than sent to the default gateway.
        objects.push(...podCidrs(node, family).map(unreachable));
        break;
    }
  }
  for (const outer of tunnels) objects.push(...tunnelPeer(node, outer));
  return { node, objects, problems, tunnels: [...tunnels] };
}

/**
 * What answers for addresses of a pod CIDR that no more specific route leads to: without it they would follow the default
 * route away, and come back.
 */
export function unreachable(dst: string): NetObject {
  return { kind: 'route', dst, type: 'unreachable', metric: UNREACHABLE_METRIC, protocol: WEFT_PROTOCOL };
}
