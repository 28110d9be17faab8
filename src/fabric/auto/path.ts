/** auto: direct where two nodes share a subnet, the tunnel between subnets. */
import type { Family } from '../../base/ip.ts';
import type { FabricNode } from '../../state/fabric-plan.ts';
import type { FabricContext, Path } from '../context.ts';
import { directPath } from '../host-gw/path.ts';
import { tunnelPath } from '../vxlan/path.ts';

export function autoPath(context: FabricContext, remote: FabricNode, family: Family): Path {
  return directPath(context, remote, family) ?? tunnelPath(context, remote, family);
}
