/** The fabric in one step: the same compiler, fed once. */
import type { FabricNode, FabricPlan, Underlay } from '../state/fabric-plan.ts';
import { FabricCompiler } from './compiler.ts';
import type { FabricConfig } from './context.ts';

/** Everything this node needs in its kernel to reach `nodes` (which may include itself). Pure: no I/O, no clock. */
export function compileFabric(
  self: FabricNode,
  nodes: Iterable<FabricNode>,
  underlays: readonly Underlay[],
  config: FabricConfig,
): FabricPlan {
  const compiler = new FabricCompiler({ self, underlays, config });
  for (const node of nodes) compiler.upsert(node);
  return compiler.plan();
}
