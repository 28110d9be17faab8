/**
 * The status of a pod from what its containers do, as kubelet computes it. Pure.
 *
 * Source: https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/, k8s.io/kubernetes pkg/kubelet getPhase
 */
import type { Condition, Container, ContainerState, ContainerStatus, Pod } from '../../api/types.ts';
import type { Ip } from '../../base/ip.ts';
import type { ContainerExit } from './container.ts';

/** One container as the runner sees it. */
export interface ContainerView {
  spec: Container;
  restartCount: number;
  state:
    | { kind: 'waiting'; reason: string; message?: string }
    | { kind: 'running'; startedAt: number }
    | ({ kind: 'terminated'; startedAt: number } & ContainerExit);
  /** The end of the run before. */
  last?: { startedAt: number } & ContainerExit;
  containerId?: string;
  imageId: string;
  /** Passed its startup probe, or has none. */
  started: boolean;
  /** Passes its readiness probe, or has none. Only counts while it runs. */
  ready: boolean;
}

export interface PodView {
  init: ContainerView[];
  containers: ContainerView[];
  sandboxReady: boolean;
  ips: Ip[];
  hostIPs: Ip[];
}

type Status = NonNullable<Pod['status']>;
type Phase = NonNullable<Status['phase']>;

/** `now`: milliseconds since the epoch. Conditions that did not change keep their time; those of others stay. */
export function podStatus(pod: Pod, view: PodView, now: number): Status {
  const before = pod.status;
  const phase = podPhase(pod, view);
  const conditions = mergeConditions(before?.conditions ?? [], podConditions(view, phase), now);
  const status: Status = {
    phase,
    conditions,
    startTime: before?.startTime ?? seconds(now),
    hostIP: view.hostIPs[0] ?? '',
    hostIPs: view.hostIPs.map((ip) => ({ ip })),
    containerStatuses: view.containers.map(containerStatus),
    qosClass: before?.qosClass ?? 'BestEffort',
  };
  if (view.init.length > 0) status.initContainerStatuses = view.init.map(initContainerStatus);
  const ips = view.ips.length > 0 ? view.ips : (before?.podIPs ?? []).map(({ ip }) => ip);
  if (ips.length > 0) {
    status.podIP = ips[0]!;
    status.podIPs = ips.map((ip) => ({ ip }));
  }
  return status;
}

export function podPhase(pod: Pod, { init, containers }: PodView): Phase {
  const policy = pod.spec.restartPolicy ?? 'Always';
  for (const { state } of init) {
    if (state.kind === 'terminated' && state.exitCode === 0) continue;
    return state.kind === 'terminated' && policy === 'Never' ? 'Failed' : 'Pending';
  }
  let running = 0;
  let stopped = 0;
  let succeeded = 0;
  for (const { state, last } of containers) {
    if (state.kind === 'running') running++;
    else if (state.kind === 'terminated' || last) {
      stopped++;
      if ((state.kind === 'terminated' ? state.exitCode : last!.exitCode) === 0) succeeded++;
    } else return 'Pending';
  }
  if (running > 0 || policy === 'Always') return 'Running';
  if (stopped === succeeded) return 'Succeeded';
  return policy === 'Never' ? 'Failed' : 'Running';
}

type Fresh = Pick<Condition, 'type' | 'status' | 'reason' | 'message'>;

function podConditions({ init, containers, sandboxReady }: PodView, phase: Phase): Fresh[] {
  const condition = (type: string, wrong?: { reason: string; message?: string }): Fresh => ({
    type,
    status: wrong ? 'False' : 'True',
    ...wrong,
  });
  const names = (views: ContainerView[]): string => views.map(({ spec }) => spec.name).join(' ');
  const unfinished = init.filter(({ state }) => state.kind !== 'terminated' || state.exitCode !== 0);
  const unready = containers.filter((container) => !isReady(container));
  const over =
    phase === 'Succeeded'
      ? { reason: 'PodCompleted' }
      : phase === 'Failed'
        ? { reason: 'PodFailed' }
        : undefined;
  const notReady =
    over ??
    (unready.length > 0 || unfinished.length > 0
      ? {
          reason: 'ContainersNotReady',
          message: `containers with unready status: [${names(unready.length > 0 ? unready : containers)}]`,
        }
      : undefined);
  return [
    condition('PodReadyToStartContainers', sandboxReady ? undefined : { reason: 'SandboxNotReady' }),
    condition(
      'Initialized',
      unfinished.length > 0
        ? {
            reason: 'ContainersNotInitialized',
            message: `containers with incomplete status: [${names(unfinished)}]`,
          }
        : undefined,
    ),
    condition('Ready', notReady),
    condition('ContainersReady', notReady),
    condition('PodScheduled'),
  ];
}

function mergeConditions(before: Condition[], fresh: Fresh[], now: number): Condition[] {
  const merged = fresh.map((condition): Condition => {
    const same = before.find(({ type, status }) => type === condition.type && status === condition.status);
    return { ...condition, lastTransitionTime: same?.lastTransitionTime ?? seconds(now) };
  });
  return [...merged, ...before.filter(({ type }) => !fresh.some((condition) => condition.type === type))];
}

export function isReady({ state, started, ready }: ContainerView): boolean {
  return state.kind === 'running' && started && ready;
}

function containerStatus(view: ContainerView): ContainerStatus {
  const { spec, restartCount, containerId, imageId, last } = view;
  return {
    name: spec.name,
    image: spec.image ?? '',
    imageID: imageId,
    ...(containerId && { containerID: containerId }),
    ready: isReady(view),
    started: view.state.kind === 'running' && view.started,
    restartCount,
    state: containerState(view),
    lastState: last ? terminated(last, containerId) : {},
  };
}

/** An init container is ready once it has succeeded. */
function initContainerStatus(view: ContainerView): ContainerStatus {
  const { state } = view;
  return { ...containerStatus(view), ready: state.kind === 'terminated' && state.exitCode === 0 };
}

function containerState({ state, containerId }: ContainerView): ContainerState {
  switch (state.kind) {
    case 'waiting':
      return {
        waiting: { reason: state.reason, ...(state.message !== undefined && { message: state.message }) },
      };
    case 'running':
      return { running: { startedAt: seconds(state.startedAt) } };
    case 'terminated':
      return terminated(state, containerId);
  }
}

function terminated(
  end: { startedAt: number } & ContainerExit,
  containerId: string | undefined,
): ContainerState {
  return {
    terminated: {
      exitCode: end.exitCode,
      reason: end.reason,
      ...(end.message !== undefined && { message: end.message }),
      startedAt: seconds(end.startedAt),
      finishedAt: seconds(end.finishedAt),
      ...(containerId && { containerID: containerId }),
    },
  };
}

/** metav1.Time has whole seconds. */
export function seconds(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z');
}

const BACKOFF_MS = 10_000;
const MAX_BACKOFF_MS = 300_000;

/**
 * How long after its end a container that has been restarted `restarts` times is started again: at once after the first end, then
 * 10 s, doubled up to five minutes.
 */
export function restartDelay(restarts: number): number {
  return restarts === 0 ? 0 : Math.min(MAX_BACKOFF_MS, BACKOFF_MS * 2 ** Math.min(restarts - 1, 10));
}

export function shouldRestart(policy: Pod['spec']['restartPolicy'], exitCode: number): boolean {
  return policy === 'Never' ? false : policy === 'OnFailure' ? exitCode !== 0 : true;
}
