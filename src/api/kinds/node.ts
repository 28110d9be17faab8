/** core/v1 Node. */
import { parseCidr } from '../../base/ip.ts';
import { type FieldProblem, forbidden, invalid } from '../decode.ts';
import { ageOf } from '../duration.ts';
import type { KindDeclaration } from '../kind-declaration.ts';
import { subdomainNameProblem } from '../names.ts';
import { nodeSchema } from '../schemas/node.ts';
import type { Node } from '../types.ts';

const ROLE = 'node-role.kubernetes.io/';

function statusOf(node: Node): string {
  const ready = node.status?.conditions?.find((c) => c.type === 'Ready');
  const words = [ready ? (ready.status === 'True' ? 'Ready' : 'NotReady') : 'Unknown'];
  if (node.spec?.unschedulable) words.push('SchedulingDisabled');
  return words.join(',');
}

function rolesOf(node: Node): string {
  const roles = Object.entries(node.metadata.labels ?? {}).flatMap(([key, value]) => {
    if (key.startsWith(ROLE)) return key.length > ROLE.length ? [key.slice(ROLE.length)] : [];
    return key === 'kubernetes.io/role' && value ? [value] : [];
  });
  return [...new Set(roles)].sort().join(',') || '<none>';
}

const address = (type: string) => (node: Node) =>
  node.status?.addresses?.find((a) => a.type === type)?.address || '<none>';
const info = (field: string) => (node: Node) => node.status?.nodeInfo?.[field] || '<unknown>';

function validate(node: Node): FieldProblem[] {
  const problems: FieldProblem[] = [];
  const cidrs = node.spec?.podCIDRs ?? [];
  for (const [i, cidr] of cidrs.entries())
    try {
      parseCidr(cidr);
    } catch {
      problems.push(
        invalid(
          `spec.podCIDRs[${i}]`,
          cidr,
          'must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
        ),
      );
    }
  if (node.spec?.podCIDR && cidrs[0] !== node.spec.podCIDR)
    problems.push(invalid('spec.podCIDRs', cidrs, 'must contain podCIDR as its first entry'));
  if (cidrs.length > 2)
    problems.push(invalid('spec.podCIDRs', cidrs, 'may specify no more than one CIDR for each IP family'));
  return problems;
}

function validateUpdate(next: Node, old: Node): FieldProblem[] {
  const before = old.spec?.podCIDRs ?? [];
  const after = next.spec?.podCIDRs ?? [];
  if (before.length > 0 && before.join() !== after.join())
    return [forbidden('spec.podCIDRs', 'node updates may not change podCIDR except from "" to valid')];
  return [];
}

export const nodeKind: KindDeclaration<Node> = {
  group: '',
  version: 'v1',
  kind: 'Node',
  plural: 'nodes',
  singular: 'node',
  shortNames: ['no'],
  categories: [],
  namespaced: false,
  storage: 'minions',
  schema: nodeSchema,
  statusSubresource: true,
  keepsStatusOnCreate: true,
  columns: [
    {
      name: 'Name',
      type: 'string',
      format: 'name',
      description: 'Name of the node.',
      priority: 0,
      value: (n) => n.metadata.name,
    },
    { name: 'Status', type: 'string', description: 'Whether it is ready.', priority: 0, value: statusOf },
    { name: 'Roles', type: 'string', description: 'Its roles, from labels.', priority: 0, value: rolesOf },
    {
      name: 'Age',
      type: 'string',
      description: 'Time since creation.',
      priority: 0,
      value: (n, now) => ageOf(n.metadata.creationTimestamp, now),
    },
    {
      name: 'Version',
      type: 'string',
      description: 'Version of its agent.',
      priority: 0,
      value: (n) => n.status?.nodeInfo?.kubeletVersion ?? '',
    },
    {
      name: 'Internal-IP',
      type: 'string',
      description: 'Address inside the cluster.',
      priority: 1,
      value: address('InternalIP'),
    },
    {
      name: 'External-IP',
      type: 'string',
      description: 'Address outside.',
      priority: 1,
      value: address('ExternalIP'),
    },
    {
      name: 'OS-Image',
      type: 'string',
      description: 'Operating system.',
      priority: 1,
      value: info('osImage'),
    },
    {
      name: 'Kernel-Version',
      type: 'string',
      description: 'Kernel.',
      priority: 1,
      value: info('kernelVersion'),
    },
    {
      name: 'Container-Runtime',
      type: 'string',
      description: 'Container runtime.',
      priority: 1,
      value: info('containerRuntimeVersion'),
    },
  ],
  fieldLabels: { 'spec.unschedulable': (n) => String(n.spec?.unschedulable ?? false) },
  nameProblem: subdomainNameProblem,
  applyDefaults: (node) => {
    if (!node.spec) node.spec = {};
    if (node.spec.podCIDR && !node.spec.podCIDRs?.length) node.spec.podCIDRs = [node.spec.podCIDR];
    if (!node.spec.podCIDR && node.spec.podCIDRs?.[0]) node.spec.podCIDR = node.spec.podCIDRs[0];
    if (node.status?.capacity && !node.status.allocatable)
      node.status.allocatable = { ...node.status.capacity };
  },
  validate,
  validateUpdate,
};
