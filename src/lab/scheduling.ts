/** The scheduler's loop: binds pods that have no node, one after another, each seeing where those before it went. */
import { type ApiClient, PODS } from '../api/client.ts';
import { ApiError } from '../api/errors.ts';
import type { Condition, Node, Pod } from '../api/types.ts';
import { messageOf } from '../base/errors.ts';
import type { Logger } from '../base/log.ts';
import type { EventRecorder } from '../controllers/event-recorder.ts';
import type { ReadTable } from '../state/table.ts';
import { podReference } from './pods/pod-reference.ts';
import type { PodRow } from './pods/pod-runner.ts';
import { chooseNode } from './scheduler.ts';

export interface NodeRow {
  key: string;
  node: Node;
}

const RETRY_MS = 1_000;

export class Scheduling {
  readonly #pods: ReadTable<PodRow>;
  readonly #nodes: ReadTable<NodeRow>;
  readonly #client: ApiClient;
  readonly #events: EventRecorder;
  readonly #log: Logger;
  /** Bound by us, but the table does not know yet: key → pod as it will be. */
  readonly #assumed = new Map<string, Pod>();
  readonly #subscriptions: Disposable[];
  #closed = false;
  #dirty = false;
  #running: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: {
    pods: ReadTable<PodRow>;
    nodes: ReadTable<NodeRow>;
    client: ApiClient;
    events: EventRecorder;
    logger: Logger;
  }) {
    this.#pods = options.pods;
    this.#nodes = options.nodes;
    this.#client = options.client;
    this.#events = options.events;
    this.#log = options.logger;
    const look = (): void => this.#look();
    this.#subscriptions = [
      this.#pods.subscribe(look, { initial: true }),
      this.#nodes.subscribe(look, { initial: true }),
    ];
  }

  #look(): void {
    this.#dirty = true;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
      if (this.#dirty && !this.#closed) this.#look();
    });
  }

  async #run(): Promise<void> {
    while (this.#dirty && !this.#closed) {
      this.#dirty = false;
      for (const [key, assumed] of this.#assumed) {
        const now = this.#pods.get(key)?.pod;
        if (!now || now.spec.nodeName || now.metadata.uid !== assumed.metadata.uid) this.#assumed.delete(key);
      }
      const waiting = [...this.#pods.values()].filter(
        ({ key, pod }) =>
          !pod.spec.nodeName &&
          !pod.metadata.deletionTimestamp &&
          !pod.status?.phase?.match(/Succeeded|Failed/) &&
          !this.#assumed.has(key),
      );
      for (const row of waiting) {
        if (this.#closed) return;
        await this.#schedule(row).catch((error) => {
          if (error instanceof ApiError && (error.code === 404 || error.code === 409)) return; // it changed meanwhile
          this.#log.warn({ pod: row.key, error: messageOf(error) }, 'cannot bind the pod; trying again');
          clearTimeout(this.#retry);
          this.#retry = setTimeout(() => this.#look(), RETRY_MS);
          this.#retry.unref();
        });
      }
    }
  }

  async #schedule({ key, pod }: PodRow): Promise<void> {
    const all = [...this.#pods.values()].map((row) => this.#assumed.get(row.key) ?? row.pod);
    const choice = chooseNode(
      pod,
      [...this.#nodes.values()].map(({ node }) => node),
      all,
    );
    const { name, namespace = 'default', uid } = pod.metadata;
    if ('reason' in choice) {
      const before = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled');
      if (before?.status === 'False' && before.message === choice.reason) return;
      this.#events.event(podReference(pod), 'Warning', 'FailedScheduling', choice.reason);
      const condition: Condition = {
        type: 'PodScheduled',
        status: 'False',
        reason: 'Unschedulable',
        message: choice.reason,
        lastTransitionTime: new Date().toISOString().replace(/\.\d+Z$/, 'Z'),
      };
      const others = (pod.status?.conditions ?? []).filter(({ type }) => type !== 'PodScheduled');
      await this.#client.patch(
        PODS,
        { name, namespace },
        { metadata: { uid }, status: { phase: 'Pending', conditions: [...others, condition] } },
        { type: 'merge', subresource: 'status' },
      );
      return;
    }
    await this.#client.patch(
      PODS,
      { name, namespace },
      {
        apiVersion: 'v1',
        kind: 'Binding',
        metadata: { name, namespace, uid },
        target: { apiVersion: 'v1', kind: 'Node', name: choice.node },
      },
      { subresource: 'binding' },
    );
    this.#assumed.set(key, { ...pod, spec: { ...pod.spec, nodeName: choice.node } });
    this.#events.event(
      podReference(pod),
      'Normal',
      'Scheduled',
      `Successfully assigned ${namespace}/${name} to ${choice.node}`,
    );
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    for (const subscription of this.#subscriptions) subscription[Symbol.dispose]();
    await this.#running;
  }
}
