/** core/v1 Pod: defaults, rules and columns. */
import { isDeepStrictEqual } from 'node:util';
import { type FieldProblem, forbidden, invalid } from '../decode.ts';
import type { KindDeclaration } from '../kind-declaration.ts';
import { subdomainNameProblem } from '../names.ts';
import { podSchema } from '../schemas/pod.ts';
import type { Container, Pod } from '../types.ts';
import { podColumns } from './pod-table.ts';
import { type FullContainer, type FullPodSpec, validatePodSpec } from './pod-validation.ts';

const full = (pod: Pod): FullPodSpec => pod.spec as FullPodSpec;
const allContainers = (spec: FullPodSpec): FullContainer[] => [
  ...(spec.initContainers ?? []),
  ...(spec.containers ?? []),
];

function applyDefaults(pod: Pod): void {
  const spec = full(pod);
  if (!spec) return;
  if (spec.serviceAccount && !spec.serviceAccountName) spec.serviceAccountName = spec.serviceAccount;
  for (const c of allContainers(spec)) {
    if (!c.imagePullPolicy)
      c.imagePullPolicy = /(:latest|^[^:]*)$/.test(lastPart(c.image)) ? 'Always' : 'IfNotPresent';
    for (const [name, amount] of Object.entries(c.resources?.limits ?? {})) {
      c.resources ??= {};
      c.resources.requests ??= {};
      c.resources.requests[name] ??= amount;
    }
    if (spec.hostNetwork) for (const p of c.ports ?? []) p.hostPort ||= p.containerPort;
  }
  for (const volume of spec.volumes ?? []) if (Object.keys(volume).length === 1) volume.emptyDir = {};
  // Kubernetes' admission adds these at updates too: a client that applies its own list has not seen them.
  spec.tolerations ??= [];
  for (const key of ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'])
    if (!spec.tolerations.some((t) => (!t.key || t.key === key) && (!t.effect || t.effect === 'NoExecute')))
      spec.tolerations.push({ key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 });
}

/** The image's name and tag without the registry, whose port also has a colon. */
function lastPart(image: string | undefined): string {
  const name = image?.slice(image.lastIndexOf('/') + 1) ?? '';
  return name.includes('@') ? `${name}:digest` : name;
}

/** What Kubernetes' default admission adds. */
function prepareCreate(pod: Pod): void {
  const spec = full(pod);
  spec.serviceAccountName ||= 'default';
  spec.serviceAccount = spec.serviceAccountName;
  spec.priority ??= 0;
  spec.preemptionPolicy ??= 'PreemptLowerPriority';
  pod.status = { phase: 'Pending', qosClass: qosClass(spec) };
}

/** https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/ */
function qosClass(spec: FullPodSpec): string {
  const containers = allContainers(spec);
  const amounts = containers.flatMap((c) => [
    ...Object.keys(c.resources?.limits ?? {}),
    ...Object.keys(c.resources?.requests ?? {}),
  ]);
  if (!amounts.some((name) => name === 'cpu' || name === 'memory')) return 'BestEffort';
  const guaranteed = containers.every((c) =>
    ['cpu', 'memory'].every((name) => {
      const limit = c.resources?.limits?.[name];
      return limit !== undefined && limit === (c.resources?.requests?.[name] ?? limit);
    }),
  );
  return guaranteed ? 'Guaranteed' : 'Burstable';
}

const MUTABLE =
  'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)';

function validateUpdate(next: Pod, old: Pod): FieldProblem[] {
  const problems: FieldProblem[] = [];
  if (next.spec.nodeName !== old.spec.nodeName)
    problems.push(
      old.spec.nodeName
        ? invalid('spec.nodeName', next.spec.nodeName ?? '', 'field is immutable')
        : forbidden('spec.nodeName', 'a pod is tied to a node by its binding subresource'),
    );
  const [a, b] = [full(next), full(old)];
  const kept = (b.tolerations ?? []).every((t) => (a.tolerations ?? []).some((u) => sameToleration(t, u)));
  if (!kept)
    problems.push(
      forbidden('spec.tolerations', 'existing toleration can not be modified except its tolerationSeconds'),
    );
  if (!isDeepStrictEqual(immutablePart(a), immutablePart(b))) problems.push(forbidden('spec', MUTABLE));
  return problems;
}

function sameToleration(a: object, b: object): boolean {
  return isDeepStrictEqual({ ...a, tolerationSeconds: 0 }, { ...b, tolerationSeconds: 0 });
}

function immutablePart(spec: FullPodSpec): unknown {
  const withoutImages = (containers?: Container[]) => containers?.map((c) => ({ ...c, image: '' }));
  return {
    ...spec,
    containers: withoutImages(spec.containers),
    initContainers: withoutImages(spec.initContainers),
    tolerations: [],
    nodeName: '',
    activeDeadlineSeconds: 0,
  };
}

const ended = (pod: Pod): boolean => pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed';

export const podKind: KindDeclaration<Pod> = {
  group: '',
  version: 'v1',
  kind: 'Pod',
  plural: 'pods',
  singular: 'pod',
  shortNames: ['po'],
  categories: ['all'],
  namespaced: true,
  storage: 'pods',
  schema: podSchema,
  statusSubresource: true,
  columns: podColumns,
  fieldLabels: {
    'spec.nodeName': (pod) => pod.spec.nodeName ?? '',
    'spec.restartPolicy': (pod) => pod.spec.restartPolicy ?? '',
    'spec.schedulerName': (pod) => full(pod).schedulerName ?? '',
    'spec.serviceAccountName': (pod) => pod.spec.serviceAccountName ?? '',
    'spec.hostNetwork': (pod) => String(pod.spec.hostNetwork ?? false),
    'status.phase': (pod) => pod.status?.phase ?? '',
    'status.podIP': (pod) => pod.status?.podIP ?? '',
    'status.podIPs': (pod) => pod.status?.podIPs?.map((p) => p.ip).join(',') ?? '',
    'status.nominatedNodeName': (pod) =>
      (pod.status as { nominatedNodeName?: string })?.nominatedNodeName ?? '',
  },
  nameProblem: subdomainNameProblem,
  applyDefaults,
  prepareCreate,
  validate: (pod) => validatePodSpec(full(pod)),
  validateUpdate,
  gracePeriodSeconds: (pod, requested) => {
    // Nobody runs it (any more): there is nothing to wait for.
    if (!pod.spec.nodeName || ended(pod)) return 0;
    return Math.max(0, requested ?? pod.spec.terminationGracePeriodSeconds ?? 30);
  },
};
