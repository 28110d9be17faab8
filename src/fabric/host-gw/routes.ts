/** What a direct path is in the kernel: one route per pod CIDR. */
import type { Family } from '../../base/ip.ts';
import { type NetObject, WEFT_PROTOCOL } from '../../base/net-objects.ts';
import type { FabricNode } from '../../state/fabric-plan.ts';
import { FABRIC_METRIC, type FabricContext, nodeIp, podCidrs } from '../context.ts';

/** Not onlink: that the kernel must find the gateway on the device by itself keeps a wrong prefix from becoming a black hole. */
export function directRoutes(
  context: FabricContext,
  remote: FabricNode,
  path: { via: string; dev: string },
  family: Family,
): NetObject[] {
  const src = nodeIp(context.self, family);
  return podCidrs(remote, family).map((dst) => ({
    kind: 'route',
    dst,
    via: path.via,
    dev: path.dev,
    metric: FABRIC_METRIC,
    protocol: WEFT_PROTOCOL,
    ...(src !== undefined && { src }),
  }));
}
