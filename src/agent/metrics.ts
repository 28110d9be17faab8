/** The node's Prometheus metrics, all in one place so that their names read as one list. */
import { MetricRegistry } from '../base/metrics.ts';

export type Metrics = ReturnType<typeof createMetrics>;

export function createMetrics(node: string) {
  const registry = new MetricRegistry({ node });
  const cpu = registry.counter({
    name: 'process_cpu_seconds_total',
    help: 'CPU time of the agent, in seconds.',
  });
  const memory = registry.gauge({
    name: 'process_resident_memory_bytes',
    help: 'Resident memory of the agent.',
  });
  /** Of the main thread; the kernel's thread has a heap of its own. */
  const heap = registry.gauge({ name: 'nodejs_heap_bytes', help: 'Memory of the JavaScript heap, by kind.' });
  const start = registry.gauge({
    name: 'process_start_time_seconds',
    help: 'When the agent was started (Unix time).',
  });
  start.set(Date.now() / 1000 - process.uptime());
  let counted = 0;
  registry.onCollect(() => {
    const { user, system } = process.cpuUsage();
    const seconds = (user + system) / 1e6;
    cpu.inc({}, seconds - counted);
    counted = seconds;
    const { rss, heapTotal, heapUsed, external } = process.memoryUsage();
    memory.set(rss);
    for (const [kind, bytes] of Object.entries({ heapTotal, heapUsed, external })) heap.set(bytes, { kind });
  });
  const filterPackets = registry.gauge({
    name: 'weft_filter_packets',
    help: 'Packets counted by the rules of the node filter since its table was made, by counter.',
  });
  return {
    registry,
    /** Where the kernel's own counters are read from when somebody asks for metrics. */
    followCounters(read: () => Promise<Array<{ counter: string; packets: number }>>): void {
      registry.onCollect(async () => {
        for (const { counter, packets } of await read()) filterPackets.set(packets, { counter });
      });
    },
    attachments: registry.gauge({ name: 'weft_attachments', help: 'Interfaces attached on this node.' }),
    broken: registry.gauge({
      name: 'weft_attachments_broken',
      help: 'Attachments that differ from their plan and could not be put right twice in a row.',
    }),
    nodes: registry.gauge({
      name: 'weft_fabric_nodes',
      help: 'Nodes known to the fabric, this one included.',
    }),
    fabricProblems: registry.gauge({
      name: 'weft_fabric_problems',
      help: 'Nodes that cannot be reached as configured.',
    }),
    /** By command and CNI code. */
    cniSeconds: registry.histogram({
      name: 'weft_cni_seconds',
      help: 'Time from a CNI request to its answer, in seconds.',
      buckets: [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5],
    }),
    /** By part and result. */
    syncSeconds: registry.histogram({
      name: 'weft_sync_seconds',
      help: 'Time to bring the kernel to the desired state, in seconds.',
      buckets: [0.0005, 0.001, 0.005, 0.01, 0.05, 0.25, 1, 5],
    }),
    /** By part. */
    operations: registry.counter({
      name: 'weft_kernel_operations_total',
      help: 'Changes made to the kernel, by part.',
    }),
    /** By kind of object. */
    drift: registry.counter({
      name: 'weft_drift_total',
      help: 'Objects of Weft that someone else had changed and that were put right.',
    }),
    /** By kind of object. */
    synced: registry.gauge({
      name: 'weft_informer_synced',
      help: '1 when the view of the API is complete, by kind.',
    }),
  };
}
