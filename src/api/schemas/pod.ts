/** core/v1 Pod. */
import {
  bool,
  int,
  int64,
  keyed,
  like,
  list,
  map,
  named,
  object,
  oneOf,
  open,
  quantity,
  type Schema,
  str,
  stringMap,
  strings,
  time,
} from '../schema.ts';
import {
  appArmorProfile,
  container,
  ephemeralContainer,
  resourceRequirements,
  seccompProfile,
  seLinuxOptions,
  windowsOptions,
} from './container.ts';
import { condition, kindSchema, labelSelector, objectReference } from './meta.ts';
import { localObjectReference, volumes } from './volumes.ts';

const core = (kind: string): string => `io.k8s.api.core.v1.${kind}`;

const nodeSelectorRequirement = named(core('NodeSelectorRequirement'), 'A condition on a node.', {
  'key!': str('Label key or field.'),
  'operator!': oneOf(['In', 'NotIn', 'Exists', 'DoesNotExist', 'Gt', 'Lt']),
  values: strings(),
});
const nodeSelectorTerm = named(core('NodeSelectorTerm'), 'Conditions that must all hold.', {
  matchExpressions: list(nodeSelectorRequirement, 'On labels.'),
  matchFields: list(nodeSelectorRequirement, 'On fields.'),
});
const nodeAffinity = named(core('NodeAffinity'), 'Which nodes the pod wants.', {
  requiredDuringSchedulingIgnoredDuringExecution: object('Must hold.', {
    'nodeSelectorTerms!': list(nodeSelectorTerm, 'One of these.'),
  }),
  preferredDuringSchedulingIgnoredDuringExecution: list(
    named(core('PreferredSchedulingTerm'), 'A weighted wish.', {
      'weight!': int('1 to 100.', { minimum: 1, maximum: 100 }),
      'preference!': nodeSelectorTerm,
    }),
    'Should hold.',
  ),
});
const podAffinityTerm = named(core('PodAffinityTerm'), 'Pods to be near to, or far from.', {
  labelSelector,
  matchLabelKeys: strings(),
  mismatchLabelKeys: strings(),
  namespaceSelector: labelSelector,
  namespaces: strings(),
  'topologyKey!': str('Node label whose value makes nodes near.'),
});
const podAffinity = (name: string): Schema =>
  named(core(name), 'Which pods the pod wants near or far.', {
    requiredDuringSchedulingIgnoredDuringExecution: list(podAffinityTerm, 'Must hold.'),
    preferredDuringSchedulingIgnoredDuringExecution: list(
      named(core('WeightedPodAffinityTerm'), 'A weighted wish.', {
        'weight!': int('1 to 100.', { minimum: 1, maximum: 100 }),
        'podAffinityTerm!': podAffinityTerm,
      }),
      'Should hold.',
    ),
  });

const toleration = named(core('Toleration'), 'A taint that the pod bears.', {
  key: str('Taint key; empty with Exists: all.'),
  operator: oneOf(['Exists', 'Equal', 'Lt', 'Gt']),
  value: str('Taint value.'),
  effect: oneOf(['NoSchedule', 'PreferNoSchedule', 'NoExecute'], 'Taint effect; empty: all.'),
  tolerationSeconds: int64('How long a NoExecute taint is borne.'),
});

const topologySpread = named(core('TopologySpreadConstraint'), 'How pods spread over nodes.', {
  labelSelector,
  matchLabelKeys: strings(),
  'maxSkew!': int('Greatest difference between domains.', { minimum: 1 }),
  minDomains: int(),
  nodeAffinityPolicy: oneOf(['Honor', 'Ignore']),
  nodeTaintsPolicy: oneOf(['Honor', 'Ignore']),
  'topologyKey!': str('Node label whose values are the domains.'),
  'whenUnsatisfiable!': oneOf(['DoNotSchedule', 'ScheduleAnyway']),
});

const podSecurityContext = named(core('PodSecurityContext'), 'What all containers of the pod may do.', {
  appArmorProfile,
  fsGroup: int64(),
  fsGroupChangePolicy: oneOf(['OnRootMismatch', 'Always']),
  runAsGroup: int64('Group id.', { minimum: 0 }),
  runAsNonRoot: bool('Refuse to run as root.'),
  runAsUser: int64('User id.', { minimum: 0 }),
  seLinuxChangePolicy: str(),
  seLinuxOptions,
  seccompProfile,
  supplementalGroups: list(int64()),
  supplementalGroupsPolicy: oneOf(['Merge', 'Strict']),
  sysctls: list(named(core('Sysctl'), 'A kernel parameter.', { 'name!': str(), 'value!': str() })),
  windowsOptions,
});

const hostAlias = named(core('HostAlias'), 'Names for an address in /etc/hosts.', {
  'ip!': str('Address.'),
  hostnames: strings('Names.'),
});

export const podSpec: Schema = named(core('PodSpec'), 'What the pod is to be.', {
  'containers!': keyed(
    container,
    ['name'],
    'Containers of the pod; at least one. Cannot be added or removed.',
  ),
  initContainers: keyed(
    container,
    ['name'],
    'Containers that run to their end, in order, before the others.',
  ),
  ephemeralContainers: keyed(ephemeralContainer, ['name'], 'Containers added to look into the pod.'),
  volumes,
  nodeName: str('Node that the pod runs on. Cannot be changed once set.'),
  nodeSelector: like(stringMap('Labels that the node must have.'), {}),
  affinity: named(core('Affinity'), 'Where the pod wants to be.', {
    nodeAffinity,
    podAffinity: podAffinity('PodAffinity'),
    podAntiAffinity: podAffinity('PodAntiAffinity'),
  }),
  tolerations: list(toleration, 'Taints that the pod bears.'),
  topologySpreadConstraints: keyed(
    topologySpread,
    ['topologyKey', 'whenUnsatisfiable'],
    'How pods spread over nodes.',
  ),
  schedulerName: str('Who finds the node.', { default: 'default-scheduler' }),
  schedulingGates: keyed(
    named(core('PodSchedulingGate'), 'Holds scheduling back.', { 'name!': str() }),
    ['name'],
    'The pod is not scheduled while there are any.',
  ),
  schedulingGroup: open('The group that is scheduled together.'),
  workloadRef: open('The workload that the pod is part of.'),
  priority: int('Set from priorityClassName.'),
  priorityClassName: str('How important the pod is.'),
  preemptionPolicy: oneOf(['PreemptLowerPriority', 'Never']),
  restartPolicy: oneOf(['Always', 'OnFailure', 'Never'], 'Always, OnFailure or Never.', {
    default: 'Always',
  }),
  activeDeadlineSeconds: int64('Seconds the pod may run.', { minimum: 1 }),
  terminationGracePeriodSeconds: int64('Seconds between the polite and the forced end.', {
    minimum: 0,
    default: 30,
  }),
  hostNetwork: bool("Use the node's network."),
  hostPID: bool("Use the node's processes."),
  hostIPC: bool("Use the node's IPC."),
  hostUsers: bool("Use the node's users."),
  hostname: str('Host name; default: the name of the pod.'),
  hostnameOverride: str('Host name as given.'),
  subdomain: str('Makes the name hostname.subdomain.namespace.svc.'),
  setHostnameAsFQDN: bool('Whether the host name is the full name.'),
  hostAliases: keyed(hostAlias, ['ip'], 'Lines for /etc/hosts.'),
  dnsPolicy: oneOf(
    ['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'],
    'How names are resolved.',
    {
      default: 'ClusterFirst',
    },
  ),
  dnsConfig: named(core('PodDNSConfig'), 'Additions to the resolver configuration.', {
    nameservers: strings('Addresses of name servers.'),
    searches: strings('Search domains.'),
    options: list(
      named(core('PodDNSConfigOption'), 'An option of the resolver.', { name: str(), value: str() }),
      'Options.',
    ),
  }),
  securityContext: like(podSecurityContext, { default: {} }),
  shareProcessNamespace: bool('Whether containers see one another’s processes.'),
  serviceAccountName: str('Account that the pod runs as.'),
  serviceAccount: str('Old name of serviceAccountName.'),
  automountServiceAccountToken: bool('Whether a token is mounted.'),
  imagePullSecrets: keyed(localObjectReference, ['name'], 'Secrets for pulling images.'),
  enableServiceLinks: bool('Whether services appear as variables.', { default: true }),
  readinessGates: list(
    named(core('PodReadinessGate'), 'A further condition of readiness.', { 'conditionType!': str() }),
    'Conditions that must be True for the pod to be ready.',
  ),
  runtimeClassName: str('Runtime to use.'),
  overhead: map(quantity(), 'What the runtime itself uses.'),
  os: object('Operating system.', { 'name!': str() }),
  resourceClaims: keyed(
    named(core('PodResourceClaim'), 'A claim of the pod.', {
      'name!': str(),
      resourceClaimName: str(),
      resourceClaimTemplateName: str(),
    }),
    ['name'],
    'Claims.',
    { retainKeys: true },
  ),
  resources: like(resourceRequirements, { description: 'Amounts for the whole pod.' }),
});

const stateTerminated = named(core('ContainerStateTerminated'), 'It has ended.', {
  containerID: str(),
  'exitCode!': int(),
  finishedAt: time(),
  message: str(),
  reason: str(),
  signal: int(),
  startedAt: time(),
});
const containerState = named(core('ContainerState'), 'One of waiting, running and terminated.', {
  waiting: object('Not running yet.', { message: str(), reason: str() }),
  running: object('Running.', { startedAt: time() }),
  terminated: stateTerminated,
});

const containerStatus = named(core('ContainerStatus'), 'How a container is doing.', {
  'name!': str(),
  image: str(),
  imageID: str(),
  containerID: str(),
  'ready!': bool(),
  started: bool(),
  'restartCount!': int(),
  state: containerState,
  lastState: containerState,
  allocatedResources: map(quantity()),
  allocatedResourcesStatus: list(open()),
  resources: resourceRequirements,
  stopSignal: str(),
  user: open(),
  volumeMounts: list(open()),
});
const statuses = list(containerStatus);
const ipEntry = (name: string): Schema => named(core(name), 'An address.', { 'ip!': str('Address.') });

export const podStatus: Schema = named(core('PodStatus'), 'How the pod is doing.', {
  phase: oneOf(['Pending', 'Running', 'Succeeded', 'Failed', 'Unknown'], 'One word for it all.'),
  conditions: keyed(
    condition(core('PodCondition'), 'One aspect of the pod.', {
      lastProbeTime: time('When it was last probed.'),
      observedGeneration: int64('The generation that it speaks of.'),
    }),
    ['type'],
    'Aspects of the pod.',
  ),
  message: str(),
  reason: str(),
  nominatedNodeName: str(),
  observedGeneration: int64(),
  hostIP: str('Address of the node.'),
  hostIPs: keyed(ipEntry('HostIP'), ['ip'], 'Addresses of the node.', { listType: 'atomic' }),
  podIP: str('Address of the pod.'),
  podIPs: keyed(ipEntry('PodIP'), ['ip'], 'Addresses of the pod, at most one per family.'),
  startTime: time(),
  initContainerStatuses: statuses,
  containerStatuses: statuses,
  ephemeralContainerStatuses: statuses,
  qosClass: str(),
  resize: str(),
  resources: open(),
  allocatedResources: map(quantity()),
  extendedResourceClaimStatus: open(),
  resourceClaimStatuses: keyed(open(), ['name'], '', { retainKeys: true }),
});

export const podSchema: Schema = kindSchema(core('Pod'), 'A group of containers that share a network.', {
  spec: podSpec,
  status: podStatus,
});

export const bindingSchema: Schema = kindSchema(core('Binding'), 'Ties a pod to a node.', {
  'target!': objectReference,
});
