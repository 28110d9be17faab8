import { type ApiClient, LEASES, NODES, PODS } from '../api/client.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { TableSource } from '../state/table-source.ts';
import { EventRecorder } from './event-recorder.ts';
import { type NodeCidrConfig, NodeCidrController } from './node-cidrs.ts';
import { NODE_LEASE_NAMESPACE, NodeLifecycleController } from './node-lifecycle.ts';
import { PodGcController } from './pod-gc.ts';
import { podRows, toLeaseRow, toNodeRow } from './rows.ts';

export interface ControllersOptions {
  client: ApiClient;
  /** Tables of API objects: `apiTables({ client, … })` of src/informers. */
  tables: TableSource;
  config: NodeCidrConfig;
  clock: Clock;
  logger: Logger;
}

export interface Controllers {
  /** Resolves when all tables are filled; rejects with WEFT_CLOSED if closed before. */
  readonly synced: Promise<void>;
  close(): Promise<void>;
}

/**
 * What a kube-controller-manager does for Nodes and their Pods. One instance per cluster.
 * @throws WEFT_BAD_CONFIG, WEFT_BAD_ADDRESS
 */
export async function startControllers(options: ControllersOptions): Promise<Controllers> {
  const { client, clock, config, tables } = options;
  const logger = (controller: string): Logger => options.logger.child({ controller });
  const events = new EventRecorder({
    client,
    component: 'weft-controllers',
    clock,
    logger: logger('events'),
  });
  const nodes = tables.open({ resource: NODES, map: toNodeRow });
  const leases = tables.open({ resource: LEASES, namespace: NODE_LEASE_NAMESPACE, map: toLeaseRow });
  const pods = tables.open({ resource: PODS, map: podRows() });
  const sources = [nodes, leases, pods];
  const closeAll = async (parts: Array<{ close(): Promise<void> }>): Promise<void> => {
    await Promise.all(parts.map((part) => part.close()));
  };
  try {
    const controllers = [
      new NodeCidrController({ config, nodes, client, events, clock, logger: logger('node-cidrs') }),
      new NodeLifecycleController({ nodes, leases, client, events, clock, logger: logger('node-lifecycle') }),
      new PodGcController({ nodes, pods, client, clock, logger: logger('pod-gc') }),
    ];
    const synced = Promise.all(sources.map((source) => source.synced)).then(() => {});
    synced.catch(() => {});
    return {
      synced,
      async close() {
        await closeAll(controllers);
        await closeAll(sources);
        await events.close();
      },
    };
  } catch (error) {
    await closeAll(sources);
    throw error;
  }
}
