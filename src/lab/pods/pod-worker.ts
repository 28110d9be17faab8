/**
 * One pod from its binding to its end. Level-triggered: whatever happens only wakes the loop, and each pass compares what the
 * API wants with what there is. Nothing but the loop acts, so no two actions on a pod ever meet.
 */
import { readdirSync, rmSync } from 'node:fs';
import type { Socket } from 'node:net';
import { type ApiClient, CONFIGMAPS, PODS } from '../../api/client.ts';
import { ApiError, isConflict, isNotFound } from '../../api/errors.ts';
import type { ConfigMap, Container, Pod } from '../../api/types.ts';
import { backoffDelay } from '../../base/backoff.ts';
import type { Clock } from '../../base/clock.ts';
import { messageOf } from '../../base/errors.ts';
import type { Ip } from '../../base/ip.ts';
import type { Logger } from '../../base/log.ts';
import type { EventRecorder, EventType } from '../../controllers/event-recorder.ts';
import type { LabPaths } from '../paths.ts';
import { CNI_TRY_AGAIN, CniError } from './cni.ts';
import { type ContainerFolders, ContainerRun } from './container.ts';
import { PodContainer } from './pod-container.ts';
import { podReference } from './pod-reference.ts';
import type { Sandbox, SandboxManager } from './sandbox.ts';
import { podStatus } from './status.ts';

export interface PodDependencies {
  paths: LabPaths;
  client: ApiClient;
  sandboxes: SandboxManager;
  events: EventRecorder;
  clock: Clock;
  log: Logger;
  /** A connection begun in the node's network namespace. */
  connect(node: string, ip: Ip, port: number): Promise<Socket>;
  nodeIPs(node: string): Ip[];
}

/** Tries that a node may refuse with "try again" before an Event tells of it: about four seconds. */
const QUIET_TRIES = 17;

export class PodWorker {
  readonly uid: string;
  readonly #deps: PodDependencies;
  #pod: Pod;
  /** The object is gone from the API: remove everything, and tell nobody. */
  #gone = false;
  readonly #hurry = new AbortController();
  #closed = false;
  #awake = true;
  #wakeUp: (() => void) | undefined;
  #sandbox: Sandbox | undefined;
  #released = false;
  #init: PodContainer[] = [];
  #containers: PodContainer[] = [];
  #failures = 0;
  #published: string | undefined;
  /** Resolves when nothing is left of the pod, or the worker was closed. */
  readonly done: Promise<void>;

  constructor(pod: Pod, deps: PodDependencies, gone = false) {
    this.uid = pod.metadata.uid!;
    this.#pod = pod;
    this.#deps = deps;
    if (gone) this.gone();
    else {
      this.#init = (pod.spec.initContainers ?? []).map((spec) =>
        this.#container(spec, pod.status?.initContainerStatuses),
      );
      this.#containers = pod.spec.containers.map((spec) =>
        this.#container(spec, pod.status?.containerStatuses),
      );
    }
    this.done = this.#loop();
  }

  get pod(): Pod {
    return this.#pod;
  }

  update(pod: Pod): void {
    this.#pod = pod;
    if (pod.metadata.deletionTimestamp && pod.metadata.deletionGracePeriodSeconds === 0) this.#hurry.abort();
    this.wake();
  }

  gone(): void {
    this.#gone = true;
    this.#hurry.abort();
    this.wake();
  }

  wake(): void {
    this.#awake = true;
    this.#wakeUp?.();
  }

  /** Stop looking after the pod; it runs on. */
  async close(): Promise<void> {
    this.#closed = true;
    for (const container of [...this.#init, ...this.#containers]) container.stopProbes();
    this.wake();
    await this.done;
  }

  async #loop(): Promise<void> {
    // The constructor's caller comes first.
    await Promise.resolve();
    while (!this.#closed) {
      this.#awake = false;
      let again: number | undefined;
      try {
        if (this.#gone || this.#pod.metadata.deletionTimestamp) {
          await this.#terminate();
          return;
        }
        again = await this.#pass();
        this.#failures = 0;
      } catch (error) {
        this.#failures++;
        const notYet = error instanceof CniError && error.code === CNI_TRY_AGAIN;
        // "Try again" is what a node says that is just starting: soon, and without a word.
        again = notYet
          ? Math.min(1_000, 25 * this.#failures)
          : backoffDelay(this.#failures, { min: 100, max: 10_000 });
        this.#deps.log[notYet ? 'debug' : 'warn'](
          { pod: this.#name, error: messageOf(error) },
          'the pod is not as it should be; trying again',
        );
      }
      if (!this.#awake && !this.#closed) await this.#sleep(again);
    }
  }

  get #name(): string {
    return `${this.#pod.metadata.namespace}/${this.#pod.metadata.name}`;
  }

  #tell(type: EventType, reason: string, message: string): void {
    this.#deps.events.event(podReference(this.#pod), type, reason, message, this.#pod.spec.nodeName);
  }

  #sleep(ms: number | undefined): Promise<void> {
    return new Promise((resolve) => {
      const timer = ms === undefined ? undefined : setTimeout(() => this.#wakeUp?.(), Math.max(1, ms));
      this.#wakeUp = () => {
        clearTimeout(timer);
        this.#wakeUp = undefined;
        resolve();
      };
    });
  }

  /** Bring the pod one step nearer; returns in how many milliseconds to come again. */
  async #pass(): Promise<number | undefined> {
    const pod = this.#pod;
    const phase = pod.status?.phase;
    if (phase === 'Succeeded' || phase === 'Failed') {
      await this.#release();
      return undefined;
    }
    this.#sandbox ??= await this.#makeSandbox();
    const sandbox = this.#sandbox;
    const policy = pod.spec.restartPolicy ?? 'Always';
    // Environment and status refer to addresses that the API does not know yet.
    const context = {
      pod: { ...pod, status: podStatus(pod, this.#view(), this.#deps.clock.now()) },
      sandbox,
      configMap: await this.#configMaps(pod),
    };
    let again: number | undefined;
    const soonest = (ms: number | undefined): void => {
      if (ms !== undefined) again = Math.min(again ?? ms, ms);
    };
    const current = this.#init.find((container) => !container.succeeded);
    if (current) soonest(current.advance(context, policy === 'Always' ? 'OnFailure' : policy));
    else for (const container of this.#containers) soonest(container.advance(context, policy));
    for (const container of this.#containers) container.startProbes(sandbox.ips[0] ?? '127.0.0.1');
    await this.#publish();
    return again;
  }

  async #makeSandbox(): Promise<Sandbox> {
    const { sandboxes, nodeIPs } = this.#deps;
    const node = this.#pod.spec.nodeName!;
    try {
      return await sandboxes.ensure(this.#pod, nodeIPs(node));
    } catch (error) {
      const early = error instanceof CniError && error.code === CNI_TRY_AGAIN && this.#failures < QUIET_TRIES;
      if (!early) {
        this.#tell(
          'Warning',
          'FailedCreatePodSandBox',
          `Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox: ${messageOf(error)}`,
        );
        await this.#publish();
      }
      throw error;
    }
  }

  async #configMaps(pod: Pod): Promise<(name: string) => ConfigMap | undefined> {
    const names = new Set(
      [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].flatMap((container) =>
        (container.env ?? []).flatMap((variable) => variable.valueFrom?.configMapKeyRef?.name ?? []),
      ),
    );
    const maps = new Map<string, ConfigMap>();
    for (const name of names) {
      try {
        maps.set(
          name,
          await this.#deps.client.get(CONFIGMAPS, { name, namespace: pod.metadata.namespace ?? 'default' }),
        );
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
    }
    return (name) => maps.get(name);
  }

  #view() {
    return {
      init: this.#init.map((container) => container.view(true)),
      containers: this.#containers.map((container) => container.view(this.#init.length > 0)),
      sandboxReady: this.#sandbox !== undefined,
      ips: this.#sandbox?.ips ?? [],
      hostIPs: this.#deps.nodeIPs(this.#pod.spec.nodeName!),
    };
  }

  /** Write the status if it differs from what was last written. */
  async #publish(): Promise<void> {
    const pod = this.#pod;
    const status = podStatus(pod, this.#view(), this.#deps.clock.now());
    const text = JSON.stringify(status);
    if (text === this.#published) return;
    const { name, namespace = 'default' } = pod.metadata;
    try {
      const updated = await this.#deps.client.patch(
        PODS,
        { name, namespace },
        { metadata: { uid: this.uid }, status },
        { type: 'merge', subresource: 'status' },
      );
      this.#published = text;
      // What the watch will say in a moment; a pass before that must not work with the old status.
      if (updated.metadata.uid === this.uid && this.#pod === pod) this.#pod = updated;
      if (status.phase === 'Succeeded' || status.phase === 'Failed') this.wake();
    } catch (error) {
      // Deleted, or deleted and made again: the watch will say so.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }

  /** A pod that has ended gives its network back. */
  async #release(): Promise<void> {
    if (this.#released) return;
    await this.#stopContainers(0);
    await this.#removeSandbox();
    this.#released = true;
  }

  async #terminate(): Promise<void> {
    const pod = this.#pod;
    const grace = this.#gone
      ? 0
      : (pod.metadata.deletionGracePeriodSeconds ?? pod.spec.terminationGracePeriodSeconds ?? 30);
    for (const container of [...this.#init, ...this.#containers]) {
      container.stopProbes();
      if (container.running && !this.#gone) {
        this.#tell('Normal', 'Killing', `Stopping container ${container.spec.name}`);
      }
    }
    await this.#stopContainers(grace * 1000);
    for (let attempt = 1; !this.#closed; attempt++) {
      try {
        if (!this.#gone) await this.#publish();
        await this.#removeSandbox();
        if (!this.#gone) await this.#confirm();
        break;
      } catch (error) {
        this.#deps.log.warn({ pod: this.#name, error: messageOf(error) }, 'the pod cannot be removed yet');
        await this.#sleep(backoffDelay(attempt, { min: 100, max: 10_000 }));
      }
    }
    if (this.#closed) return;
    // Last: as long as these are there, whoever comes after a crash knows that something may be left.
    rmSync(this.#deps.paths.podRun(this.uid), { recursive: true, force: true });
    rmSync(this.#deps.paths.podState(this.uid), { recursive: true, force: true });
  }

  /** Every container that left a trace, whether the object names it or not. */
  async #stopContainers(graceMs: number): Promise<void> {
    let names: string[] = [];
    try {
      names = readdirSync(this.#deps.paths.podRun(this.uid));
    } catch {
      // None ever started.
    }
    const own = new Map(
      [...this.#init, ...this.#containers].map((container) => [container.spec.name, container]),
    );
    await Promise.all(
      names.map((name) => {
        const run =
          own.get(name)?.running ?? (own.has(name) ? undefined : ContainerRun.last(this.#folders(name)));
        return run?.stop(graceMs, this.#hurry.signal);
      }),
    );
  }

  async #removeSandbox(): Promise<void> {
    const record = this.#deps.sandboxes.read(this.uid);
    if (record) await this.#deps.sandboxes.remove(record);
    this.#sandbox = undefined;
  }

  async #confirm(): Promise<void> {
    const { name, namespace = 'default' } = this.#pod.metadata;
    try {
      await this.#deps.client.delete(PODS, { name, namespace }, { gracePeriodSeconds: 0, uid: this.uid });
    } catch (error) {
      if (!(error instanceof ApiError && (error.code === 404 || error.code === 409))) throw error;
    }
  }

  #folders(name: string): ContainerFolders {
    const { paths } = this.#deps;
    return { run: `${paths.podRun(this.uid)}/${name}`, logs: `${paths.podState(this.uid)}/${name}` };
  }

  #container(
    spec: Container,
    statuses: Array<{ name: string; ready: boolean; started?: boolean }> | undefined,
  ): PodContainer {
    const before = statuses?.find(({ name }) => name === spec.name);
    return new PodContainer({
      lab: this.#deps.paths.lab,
      uid: this.uid,
      spec,
      folders: this.#folders(spec.name),
      clock: this.#deps.clock,
      event: (type, reason, message) => this.#tell(type, reason, message),
      changed: () => this.wake(),
      connect: (ip, port) => this.#deps.connect(this.#pod.spec.nodeName!, ip, port),
      ...(before && { before: { ready: before.ready, started: before.started ?? true } }),
    });
  }
}
