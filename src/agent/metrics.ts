/** The node's Prometheus metrics, all in one place so that their names read as one list. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

export interface FilterCount {
  counter: string;
  packets: number;
}

export type Metrics = ReturnType<typeof createMetrics>;

export function createMetrics(node: string) {
  const registry = new Registry();
  registry.setDefaultLabels({ node });
  collectDefaultMetrics({ register: registry, prefix: 'weft_' });
  const registers = [registry];
  let counters: () => Promise<FilterCount[]> = async () => [];
  new Gauge({
    name: 'weft_filter_packets',
    help: 'Packets counted by the rules of the node filter since the table was made, by counter.',
    labelNames: ['counter'] as const,
    registers,
    async collect() {
      for (const { counter, packets } of await counters()) this.set({ counter }, packets);
    },
  });
  return {
    registry,
    /** Where the kernel's own counters are read from when somebody asks for metrics. */
    followCounters(read: () => Promise<FilterCount[]>): void {
      counters = read;
    },
    attachments: new Gauge({
      name: 'weft_attachments',
      help: 'Interfaces attached on this node.',
      registers,
    }),
    nodes: new Gauge({
      name: 'weft_fabric_nodes',
      help: 'Nodes known to the fabric, this one included.',
      registers,
    }),
    fabricProblems: new Gauge({
      name: 'weft_fabric_problems',
      help: 'Nodes that cannot be reached as configured.',
      registers,
    }),
    cniSeconds: new Histogram({
      name: 'weft_cni_seconds',
      help: 'Time from a CNI request to its answer, in seconds.',
      labelNames: ['command', 'code'] as const,
      buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5],
      registers,
    }),
    syncSeconds: new Histogram({
      name: 'weft_sync_seconds',
      help: 'Time to bring the kernel to the desired state, in seconds.',
      labelNames: ['part', 'result'] as const,
      buckets: [0.0005, 0.001, 0.005, 0.01, 0.05, 0.25, 1, 5],
      registers,
    }),
    operations: new Counter({
      name: 'weft_kernel_operations_total',
      help: 'Changes made to the kernel, by part.',
      labelNames: ['part'] as const,
      registers,
    }),
    drift: new Counter({
      name: 'weft_drift_total',
      help: 'Objects of Weft that someone else had changed and that were repaired.',
      labelNames: ['kind'] as const,
      registers,
    }),
    synced: new Gauge({
      name: 'weft_informer_synced',
      help: '1 when the view of the API is complete, by kind.',
      labelNames: ['kind'] as const,
      registers,
    }),
  };
}
