/** Columns of `kubectl get pods`. Source: kubernetes/pkg/printers/internalversion, printPod. */
import { ageOf, humanDuration } from '../duration.ts';
import type { Column } from '../kind-declaration.ts';
import type { ContainerStatus, Pod } from '../types.ts';

interface Summary {
  ready: number;
  total: number;
  status: string;
  restarts: number;
  lastRestart: number;
}

function summarize(pod: Pod): Summary {
  const status = pod.status ?? {};
  const containers = pod.spec?.containers ?? [];
  const main = tally(status.containerStatuses ?? []);
  const summary: Summary = {
    ...main,
    total: containers.length,
    status: status.reason || status.phase || 'Unknown',
  };
  const init = initProblem(pod);
  if (init) {
    const t = tally(status.initContainerStatuses ?? []);
    summary.status = init;
    summary.restarts = t.restarts;
    summary.lastRestart = t.lastRestart;
  } else summary.status = mainProblem(status.containerStatuses ?? [], summary.status, pod);
  if (pod.metadata.deletionTimestamp)
    summary.status = status.reason === 'NodeLost' ? 'Unknown' : 'Terminating';
  return summary;
}

function tally(statuses: ContainerStatus[]): { ready: number; restarts: number; lastRestart: number } {
  let [ready, restarts, lastRestart] = [0, 0, 0];
  for (const c of statuses) {
    restarts += c.restartCount ?? 0;
    const finished = Date.parse(c.lastState?.terminated?.finishedAt ?? '');
    if (finished > lastRestart) lastRestart = finished;
    if (c.ready && c.state?.running) ready++;
  }
  return { ready, restarts, lastRestart };
}

/** The first init container that has not ended well. */
function initProblem(pod: Pod): string | undefined {
  const count = pod.spec?.initContainers?.length ?? 0;
  for (const [i, c] of (pod.status?.initContainerStatuses ?? []).entries()) {
    const { terminated, waiting } = c.state ?? {};
    if (terminated?.exitCode === 0) continue;
    if (terminated) return `Init:${terminated.reason || ended(terminated)}`;
    if (waiting?.reason && waiting.reason !== 'PodInitializing') return `Init:${waiting.reason}`;
    return `Init:${i}/${count}`;
  }
  return undefined;
}

function mainProblem(statuses: ContainerStatus[], initial: string, pod: Pod): string {
  let status = initial;
  let running = false;
  for (const c of statuses.toReversed()) {
    const { waiting, terminated } = c.state ?? {};
    if (waiting?.reason) status = waiting.reason;
    else if (terminated) status = terminated.reason || ended(terminated);
    else if (c.ready && c.state?.running) running = true;
  }
  if (status === 'Completed' && running) {
    const ready = pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True');
    return ready ? 'Running' : 'NotReady';
  }
  return status;
}

const ended = (t: { exitCode: number; signal?: number }): string =>
  t.signal ? `Signal:${t.signal}` : `ExitCode:${t.exitCode}`;

function readinessGates(pod: Pod): string {
  const gates = (pod.spec as { readinessGates?: Array<{ conditionType: string }> } | undefined)
    ?.readinessGates;
  if (!gates?.length) return '<none>';
  const met = gates.filter((gate) =>
    pod.status?.conditions?.some((c) => c.type === gate.conditionType && c.status === 'True'),
  );
  return `${met.length}/${gates.length}`;
}

export const podColumns: Column<Pod>[] = [
  {
    name: 'Name',
    type: 'string',
    format: 'name',
    description: 'Name of the pod.',
    priority: 0,
    value: (pod) => pod.metadata.name,
  },
  {
    name: 'Ready',
    type: 'string',
    description: 'Containers that are ready, of all.',
    priority: 0,
    value: (pod) => {
      const { ready, total } = summarize(pod);
      return `${ready}/${total}`;
    },
  },
  {
    name: 'Status',
    type: 'string',
    description: 'One word for the state of the pod.',
    priority: 0,
    value: (pod) => summarize(pod).status,
  },
  {
    name: 'Restarts',
    type: 'string',
    description: 'How often containers were restarted.',
    priority: 0,
    value: (pod, now) => {
      const { restarts, lastRestart } = summarize(pod);
      return restarts > 0 && lastRestart > 0
        ? `${restarts} (${humanDuration(now - lastRestart)} ago)`
        : String(restarts);
    },
  },
  {
    name: 'Age',
    type: 'string',
    description: 'Time since creation.',
    priority: 0,
    value: (pod, now) => ageOf(pod.metadata.creationTimestamp, now),
  },
  {
    name: 'IP',
    type: 'string',
    description: 'Address of the pod.',
    priority: 1,
    value: (pod) => pod.status?.podIPs?.[0]?.ip || pod.status?.podIP || '<none>',
  },
  {
    name: 'Node',
    type: 'string',
    description: 'Node that the pod runs on.',
    priority: 1,
    value: (pod) => pod.spec?.nodeName || '<none>',
  },
  {
    name: 'Nominated Node',
    type: 'string',
    description: 'Node that is being freed for the pod.',
    priority: 1,
    value: (pod) => (pod.status as { nominatedNodeName?: string } | undefined)?.nominatedNodeName || '<none>',
  },
  {
    name: 'Readiness Gates',
    type: 'string',
    description: 'Readiness gates that are met, of all.',
    priority: 1,
    value: readinessGates,
  },
];
