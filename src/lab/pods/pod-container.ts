/** One container of a pod over all its runs: starting, probing, restarting with back-off, and how it stands. */
import type { ConfigMap, Container, Pod } from '../../api/types.ts';
import type { Clock } from '../../base/clock.ts';
import { isWeftError, messageOf } from '../../base/errors.ts';
import {
  type ContainerFolders,
  type ContainerRun,
  lastNumber,
  pruneRuns,
  ContainerRun as Runs,
} from './container.ts';
import { ContainerConfigError, commandLine, containerEnvironment } from './environment.ts';
import { type Image, resolveImage } from './images.ts';
import { type ProbeTarget, probeOnce, runProbe } from './probe.ts';
import type { Sandbox } from './sandbox.ts';
import { type ContainerView, restartDelay, shouldRestart } from './status.ts';

const IMAGE_RETRY_MS = 10_000;
const CONFIG_RETRY_MS = 5_000;
/** A run of this length clears what was counted against the container. */
const GOOD_RUN_MS = 600_000;

export interface PodContainerOptions {
  lab: string;
  uid: string;
  spec: Container;
  folders: ContainerFolders;
  clock: Clock;
  event(type: 'Normal' | 'Warning', reason: string, message: string): void;
  /** Something about the container changed. */
  changed(): void;
  connect: ProbeTarget['connect'];
  /** Its standing as the API last knew it, for a container found running. */
  before?: { ready: boolean; started: boolean };
}

export interface StartContext {
  pod: Pod;
  sandbox: Sandbox;
  configMap(name: string): ConfigMap | undefined;
}

export class PodContainer {
  readonly spec: Container;
  readonly #options: PodContainerOptions;
  #run: ContainerRun | undefined;
  #last: ContainerView['last'];
  #waiting: { reason: string; message?: string } | undefined;
  #retryAt = 0;
  #image: Image | undefined;
  #started = false;
  #ready = false;
  #probes: AbortController | undefined;

  constructor(options: PodContainerOptions) {
    this.#options = options;
    this.spec = options.spec;
    this.#run = Runs.last(options.folders);
    if (!this.#run) return;
    this.#started = options.before?.started ?? !this.spec.startupProbe;
    this.#ready = options.before?.ready ?? !this.spec.readinessProbe;
    this.#watch(this.#run);
  }

  get running(): ContainerRun | undefined {
    return this.#run && !this.#run.exit ? this.#run : undefined;
  }

  get succeeded(): boolean {
    return this.#run?.exit?.exitCode === 0;
  }

  /** Whether it has ended and stays so. */
  isOver(policy: Pod['spec']['restartPolicy']): boolean {
    return this.#run?.exit !== undefined && !shouldRestart(policy, this.#run.exit.exitCode);
  }

  /** Start it if it is time; returns in how many milliseconds to ask again, undefined for when something changes. */
  advance(context: StartContext, policy: Pod['spec']['restartPolicy']): number | undefined {
    const { clock, event, folders } = this.#options;
    if (this.running || this.isOver(policy)) return undefined;
    const now = clock.now();
    if (this.#retryAt > now) return this.#retryAt - now;
    const exit = this.#run?.exit;
    if (exit && this.#run) {
      const { number, startedAt } = this.#run;
      const delay = exit.finishedAt - startedAt > GOOD_RUN_MS ? 0 : restartDelay(number);
      const left = exit.finishedAt + delay - now;
      if (left > 0) {
        const message = `back-off ${Math.round(delay / 1000)}s restarting failed container=${this.spec.name} pod=${context.pod.metadata.name}_${context.pod.metadata.namespace}(${this.#options.uid})`;
        if (this.#waiting?.reason !== 'CrashLoopBackOff') {
          event(
            'Warning',
            'BackOff',
            `Back-off restarting failed container ${this.spec.name} in pod ${context.pod.metadata.name}_${context.pod.metadata.namespace}(${this.#options.uid})`,
          );
        }
        this.#waiting = { reason: 'CrashLoopBackOff', message };
        return left;
      }
    }
    try {
      this.#start(context, lastNumber(folders) + 1);
      return undefined;
    } catch (error) {
      return this.#cannotStart(error, now);
    }
  }

  #start({ pod, sandbox, configMap }: StartContext, number: number): void {
    const { lab, uid, folders, event } = this.#options;
    const { spec } = this;
    const image = resolveImage(spec.image, spec.command);
    const variables = containerEnvironment(pod, spec, configMap);
    const command = commandLine(spec, image, variables);
    if (this.#image?.id !== image.id) {
      event('Normal', 'Pulled', `Container image "${spec.image}" already present on machine`);
    }
    this.#image = image;
    if (this.#run?.exit) this.#last = { startedAt: this.#run.startedAt, ...this.#run.exit };
    const run = Runs.start(folders, {
      lab,
      role: `pod/${uid}/${spec.name}`,
      number,
      command,
      cwd: spec.workingDir || '/',
      env: {
        PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
        HOME: '/root',
        HOSTNAME: sandbox.record.hostNetwork ? sandbox.record.node : sandbox.record.pod.hostname,
        ...(image.entrypoint.includes(process.execPath) &&
          process.env.NODE_COMPILE_CACHE && { NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE }),
        ...variables,
      },
      namespaces: sandbox.namespaces,
    });
    pruneRuns(folders, number);
    event('Normal', 'Created', `Created container: ${spec.name}`);
    event('Normal', 'Started', `Started container ${spec.name}`);
    this.#waiting = undefined;
    this.#run = run;
    this.#started = !spec.startupProbe;
    this.#ready = !spec.readinessProbe;
    this.#watch(run);
    this.startProbes(sandbox.ips[0] ?? '127.0.0.1');
  }

  #watch(run: ContainerRun): void {
    void run.exited.then((exit) => {
      this.#probes?.abort();
      this.#probes = undefined;
      if (exit.reason === 'StartError') this.#options.event('Warning', 'Failed', `Error: ${exit.message}`);
      this.#options.changed();
    });
  }

  #cannotStart(error: unknown, now: number): number {
    const { event } = this.#options;
    const message = messageOf(error);
    if (isWeftError(error, 'WEFT_IMAGE_UNKNOWN')) {
      if (this.#waiting?.reason === 'ErrImagePull' || this.#waiting?.reason === 'ImagePullBackOff') {
        event('Normal', 'BackOff', `Back-off pulling image "${this.spec.image}"`);
        this.#waiting = {
          reason: 'ImagePullBackOff',
          message: `Back-off pulling image "${this.spec.image}": ${message}`,
        };
      } else {
        event('Warning', 'Failed', `Failed to pull image "${this.spec.image}": ${message}`);
        event('Warning', 'Failed', 'Error: ErrImagePull');
        this.#waiting = { reason: 'ErrImagePull', message };
      }
      this.#retryAt = now + IMAGE_RETRY_MS;
      return IMAGE_RETRY_MS;
    }
    const reason =
      error instanceof ContainerConfigError ? 'CreateContainerConfigError' : 'CreateContainerError';
    event('Warning', 'Failed', `Error: ${message}`);
    this.#waiting = { reason, message };
    this.#retryAt = now + CONFIG_RETRY_MS;
    return CONFIG_RETRY_MS;
  }

  /** Begin the probes of the current run; does nothing when they run already. */
  startProbes(ip: string): void {
    if (!this.running || this.#probes) return;
    const { clock, changed, event, connect } = this.#options;
    const { startupProbe, readinessProbe, livenessProbe } = this.spec;
    if (!startupProbe && !readinessProbe && !livenessProbe) return;
    const abort = new AbortController();
    this.#probes = abort;
    const target: ProbeTarget = { ip, container: this.spec, connect, enter: () => this.enter() };
    const unhealthy = (kind: string) => (message: string) =>
      event('Warning', 'Unhealthy', `${kind} probe failed: ${message}`);
    const kill = (kind: string) => {
      event('Normal', 'Killing', `Container ${this.spec.name} failed ${kind} probe, will be restarted`);
      void this.running?.stop(30_000);
    };
    const others = (): void => {
      if (readinessProbe) {
        void runProbe(readinessProbe, () => probeOnce(readinessProbe, target), clock, abort.signal, {
          verdict: (ok) => {
            this.#ready = ok;
            changed();
          },
          failure: unhealthy('Readiness'),
        });
      }
      if (livenessProbe) {
        void runProbe(livenessProbe, () => probeOnce(livenessProbe, target), clock, abort.signal, {
          verdict: (ok) => {
            if (!ok) kill('liveness');
          },
          failure: unhealthy('Liveness'),
        });
      }
    };
    if (!startupProbe || this.#started) {
      others();
      return;
    }
    const startup = new AbortController();
    void runProbe(
      startupProbe,
      () => probeOnce(startupProbe, target),
      clock,
      AbortSignal.any([abort.signal, startup.signal]),
      {
        verdict: (ok) => {
          startup.abort();
          if (!ok) return kill('startup');
          this.#started = true;
          changed();
          others();
        },
        failure: unhealthy('Startup'),
      },
    );
  }

  stopProbes(): void {
    this.#probes?.abort();
  }

  /** The command prefix that enters the running container. */
  enter(): string[] | undefined {
    const pid = this.running?.initPid;
    return pid === undefined ? undefined : containerEnterArgs(pid);
  }

  view(initializing: boolean): ContainerView {
    const run = this.#run;
    const exit = run?.exit;
    const end = run && exit ? { startedAt: run.startedAt, ...exit } : undefined;
    const state: ContainerView['state'] = this.#waiting
      ? { kind: 'waiting', ...this.#waiting }
      : end
        ? { kind: 'terminated', ...end }
        : run
          ? { kind: 'running', startedAt: run.startedAt }
          : { kind: 'waiting', reason: initializing ? 'PodInitializing' : 'ContainerCreating' };
    const last = this.#waiting ? (end ?? this.#last) : this.#last;
    return {
      spec: this.spec,
      restartCount: run?.number ?? 0,
      state,
      ...(last && { last }),
      ...(run && { containerId: run.containerId }),
      imageId: this.#image?.id ?? (run ? 'weft.dev/builtin' : ''),
      started: this.#started,
      ready: this.#ready,
    };
  }
}

/** Into all namespaces of a container, by its PID 1. */
export function containerEnterArgs(pid: number): string[] {
  return ['nsenter', `--target=${pid}`, '--mount', '--uts', '--ipc', '--net', '--pid', '--'];
}
