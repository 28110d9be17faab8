/** core/v1 Node. */
import {
  bool,
  int,
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
  setOf,
  str,
  strings,
  time,
} from '../schema.ts';
import { condition, kindSchema } from './meta.ts';

const core = (kind: string): string => `io.k8s.api.core.v1.${kind}`;

const taint = named(core('Taint'), 'Keeps pods off a node that do not tolerate it.', {
  'key!': str('Key.'),
  value: str('Value.'),
  'effect!': oneOf(['NoSchedule', 'PreferNoSchedule', 'NoExecute']),
  timeAdded: time(),
});

const nodeSpec = named(core('NodeSpec'), 'What the node is to be.', {
  podCIDR: str('Addresses of the pods of this node, first family.'),
  podCIDRs: setOf(str(), 'Addresses of the pods of this node, at most one range per family.'),
  providerID: str('Identity at the provider of the machine.'),
  unschedulable: bool('Whether no new pods come here.'),
  taints: list(taint, 'Keep pods off.'),
  configSource: open('Not used any more.'),
  externalID: str('Not used any more.'),
});

const systemInfo = named(core('NodeSystemInfo'), 'What the node runs.', {
  architecture: str(),
  bootID: str(),
  containerRuntimeVersion: str(),
  kernelVersion: str(),
  kubeProxyVersion: str(),
  kubeletVersion: str(),
  machineID: str(),
  operatingSystem: str(),
  osImage: str(),
  systemUUID: str(),
  swap: open(),
  runningInUserNamespace: bool(),
});

const nodeStatus = named(core('NodeStatus'), 'How the node is doing.', {
  addresses: keyed(
    named(core('NodeAddress'), 'An address of the node.', {
      'type!': str('Hostname, InternalIP, ExternalIP, InternalDNS or ExternalDNS.'),
      'address!': str('The address.'),
    }),
    ['type'],
    'Addresses of the node.',
    // Two InternalIPs of a dual-stack node share a type: server-side apply replaces the list.
    { listType: 'atomic' },
  ),
  allocatable: map(quantity(), 'What pods can have.'),
  capacity: map(quantity(), 'What there is.'),
  conditions: keyed(
    condition(core('NodeCondition'), 'One aspect of the node.', {
      lastHeartbeatTime: time('When it was last checked.'),
    }),
    ['type'],
    'Aspects of the node.',
  ),
  config: open(),
  daemonEndpoints: object('Ports of the agent.', { kubeletEndpoint: object('', { 'Port!': int() }) }),
  declaredFeatures: strings(),
  features: open(),
  images: list(
    named(core('ContainerImage'), 'An image on the node.', {
      names: strings(),
      sizeBytes: like(int(), { format: 'int64' }),
    }),
  ),
  nodeInfo: systemInfo,
  phase: str('Not used any more.'),
  runtimeHandlers: list(open()),
  volumesAttached: list(open()),
  volumesInUse: strings(),
});

export const nodeSchema: Schema = kindSchema(core('Node'), 'A machine of the cluster.', {
  spec: nodeSpec,
  status: nodeStatus,
});
