/**
 * Deletes Pods that nobody is left to delete: those bound to a Node that no longer exists, and those that end without
 * ever having had one. A Node must have been gone for a while, and be gone by a fresh look, before that is believed.
 *
 * Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection
 */
import { type ApiClient, NODES, PODS } from '../api/client.ts';
import { isConflict, isNotFound } from '../api/errors.ts';
import { splitKey } from '../api/object-key.ts';
import type { Clock } from '../base/clock.ts';
import type { Logger } from '../base/log.ts';
import type { SourcedTable } from '../state/table-source.ts';
import type { NodeRow, PodRow } from './rows.ts';
import { syncedOrClosed } from './synced.ts';
import { WorkQueue } from './work-queue.ts';

export interface PodGcOptions {
  nodes: SourcedTable<NodeRow>;
  pods: SourcedTable<PodRow>;
  client: ApiClient;
  clock: Clock;
  logger: Logger;
  /** Milliseconds that a Node must have been gone; default 40 000. */
  quarantineMs?: number;
}

const TICK_MS = 5000;

export class PodGcController {
  readonly #options: PodGcOptions;
  readonly #byNode;
  /** Name of a Node that is not there → since when that is known. */
  readonly #missing = new Map<string, number>();
  readonly #queue: WorkQueue;
  readonly #closing = new AbortController();
  readonly #loop: Promise<void>;

  constructor(options: PodGcOptions) {
    this.#options = options;
    // Pods without a Node matter only once they end.
    this.#byNode = options.pods.table.index((pod) =>
      pod.node !== '' || pod.terminating ? pod.node : undefined,
    );
    this.#queue = new WorkQueue({
      handle: (key) => this.#collect(key),
      clock: options.clock,
      logger: options.logger,
    });
    this.#loop = this.#run();
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await this.#loop;
    await this.#queue.close();
  }

  async #run(): Promise<void> {
    const { clock, nodes, pods } = this.#options;
    const { signal } = this.#closing;
    await syncedOrClosed([nodes, pods], signal);
    while (!signal.aborted) {
      if (nodes.connected && pods.connected) await this.#look(clock.now());
      await clock.sleep(TICK_MS, signal).catch(() => {});
    }
  }

  async #look(now: number): Promise<void> {
    const { client, logger, nodes, quarantineMs = 40_000 } = this.#options;
    for (const name of this.#missing.keys()) {
      if (nodes.table.has(name) || this.#byNode.count(name) === 0) this.#missing.delete(name);
    }
    for (const name of this.#byNode.values()) {
      if (name === '') this.#queuePods(name);
      else if (!nodes.table.has(name)) {
        const since = this.#missing.get(name);
        if (since === undefined) this.#missing.set(name, now);
        else if (now - since >= quarantineMs) {
          const gone = await client.get(NODES, { name }).then(() => false, isNotFound);
          if (gone) {
            logger.info(
              { node: name, pods: this.#byNode.count(name) },
              'deleting the pods of a Node that is gone',
            );
            this.#queuePods(name);
          }
        }
      }
    }
  }

  #queuePods(node: string): void {
    for (const pod of this.#byNode.get(node)) this.#queue.add(pod.key);
  }

  async #collect(key: string): Promise<void> {
    const { client, nodes, pods } = this.#options;
    const row = pods.table.get(key);
    if (!row || (row.node === '' ? !row.terminating : nodes.table.has(row.node))) return;
    const { name, namespace = 'default' } = splitKey(key);
    try {
      const pod = await client.get(PODS, { name, namespace });
      if ((pod.spec.nodeName ?? '') !== row.node || !pod.metadata.uid) return;
      await client.delete(PODS, { name, namespace }, { gracePeriodSeconds: 0, uid: pod.metadata.uid });
    } catch (error) {
      // Gone, or another of the same name: both are as it should be.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }
}
