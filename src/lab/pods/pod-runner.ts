/**
 * The pod runner of a lab, a small kubelet for all its nodes: a worker per pod that is bound to one of them, and nothing left of
 * pods that are no more.
 */
import { readdirSync } from 'node:fs';
import { objectKey } from '../../api/object-key.ts';
import type { Pod } from '../../api/types.ts';
import type { Kernel } from '../../kernel/types.ts';
import type { Change, ReadTable } from '../../state/table.ts';
import { shortUid } from '../paths.ts';
import { netnsOf } from '../processes.ts';
import { type PodDependencies, PodWorker } from './pod-worker.ts';

/** A row of the table of pods. */
export interface PodRow {
  key: string;
  pod: Pod;
}

export interface PodRunnerOptions extends PodDependencies {
  kernel: Pick<Kernel, 'netnsDelete'>;
  /** Whether this lab has a node of that name. */
  hasNode(name: string): boolean;
}

export class PodRunner {
  readonly #options: PodRunnerOptions;
  readonly #workers = new Map<string, PodWorker>();
  #subscription: Disposable | undefined;

  constructor(options: PodRunnerOptions) {
    this.#options = options;
  }

  /** `pods` must be synced: what is not in it is removed from this machine. */
  async start(pods: ReadTable<PodRow>): Promise<void> {
    const known = new Set([...pods.values()].map(({ pod }) => pod.metadata.uid!));
    await this.#removeOrphans(known);
    this.#subscription = pods.subscribe((changes) => this.#onChanges(changes), { initial: true });
  }

  get size(): number {
    return this.#workers.size;
  }

  /** Resolves when no worker is left whose pod is on this node. */
  async drained(node: string): Promise<void> {
    const those = [...this.#workers.values()].filter(({ pod }) => pod.spec.nodeName === node);
    await Promise.all(those.map((worker) => worker.done));
  }

  #onChanges(changes: Change<PodRow>[]): void {
    for (const change of changes) {
      const old = change.old?.pod;
      const now = change.new?.pod;
      if (old && old.metadata.uid !== now?.metadata.uid) this.#workers.get(old.metadata.uid!)?.gone();
      if (!now?.spec.nodeName || !this.#options.hasNode(now.spec.nodeName)) continue;
      const worker = this.#workers.get(now.metadata.uid!);
      if (worker) worker.update(now);
      else this.#add(new PodWorker(now, this.#options));
    }
  }

  #add(worker: PodWorker): void {
    this.#workers.set(worker.uid, worker);
    void worker.done
      .catch((error: Error) =>
        this.#options.log.error({ pod: objectKey(worker.pod), error }, 'a pod worker failed'),
      )
      .finally(() => {
        if (this.#workers.get(worker.uid) === worker) this.#workers.delete(worker.uid);
      });
  }

  /** What a pod left that was deleted while nobody looked after it. */
  async #removeOrphans(known: ReadonlySet<string>): Promise<void> {
    const { paths, sandboxes, kernel } = this.#options;
    const list = (folder: string): string[] => {
      try {
        return readdirSync(folder);
      } catch {
        return [];
      }
    };
    const uids = new Set(
      [...list(`${paths.state}/pods`), ...list(`${paths.run}/pods`)].filter((uid) => !known.has(uid)),
    );
    for (const uid of uids) {
      const record = sandboxes.read(uid);
      const { namespace = 'default', name = 'unknown' } = record?.pod ?? {};
      const pod: Pod = {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name, namespace, uid },
        spec: { containers: [], nodeName: record?.node ?? '' },
      };
      this.#add(new PodWorker(pod, this.#options, true));
    }
    const mine = new Set([...known, ...uids].map((uid) => `${paths.netnsPrefix}pod-${shortUid(uid)}`));
    for (const name of netnsOf(paths.lab)) {
      if (name.startsWith(`${paths.netnsPrefix}pod-`) && !mine.has(name))
        await kernel.netnsDelete(`/run/netns/${name}`);
    }
  }

  /** Stop looking after the pods; they run on. */
  async close(): Promise<void> {
    this.#subscription?.[Symbol.dispose]();
    await Promise.all([...this.#workers.values()].map((worker) => worker.close()));
  }
}
