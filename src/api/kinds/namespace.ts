/** core/v1 Namespace. */
import { ageOf } from '../duration.ts';
import type { KindDeclaration } from '../kind-declaration.ts';
import { labelNameProblem } from '../names.ts';
import { NAMESPACE_PROTO } from '../protobuf.ts';
import { namespaceSchema } from '../schemas/others.ts';
import type { Namespace } from '../types.ts';

/** Namespaces that are there from the first start. */
export const FIRST_NAMESPACES = ['default', 'kube-system', 'kube-public', 'kube-node-lease'];
/** Namespaces that cannot be deleted. */
export const UNDELETABLE_NAMESPACES: ReadonlySet<string> = new Set(['default', 'kube-system', 'kube-public']);

export const namespaceKind: KindDeclaration<Namespace> = {
  group: '',
  version: 'v1',
  kind: 'Namespace',
  plural: 'namespaces',
  singular: 'namespace',
  shortNames: ['ns'],
  categories: [],
  namespaced: false,
  storage: 'namespaces',
  schema: namespaceSchema,
  protobuf: NAMESPACE_PROTO,
  statusSubresource: true,
  columns: [
    {
      name: 'Name',
      type: 'string',
      format: 'name',
      description: 'Name of the namespace.',
      priority: 0,
      value: (n) => n.metadata.name,
    },
    {
      name: 'Status',
      type: 'string',
      description: 'Active or Terminating.',
      priority: 0,
      value: (n) => n.status?.phase ?? '',
    },
    {
      name: 'Age',
      type: 'string',
      description: 'Time since creation.',
      priority: 0,
      value: (n, now) => ageOf(n.metadata.creationTimestamp, now),
    },
  ],
  fieldLabels: { 'status.phase': (n) => n.status?.phase ?? '' },
  nameProblem: labelNameProblem,
  applyDefaults: (namespace) => {
    // Every namespace bears its name as a label, so that selectors of namespaces can name one.
    if (namespace.metadata.name)
      namespace.metadata.labels = {
        ...namespace.metadata.labels,
        'kubernetes.io/metadata.name': namespace.metadata.name,
      };
  },
  prepareCreate: (namespace) => {
    namespace.spec = { finalizers: ['kubernetes'] };
    namespace.status = { phase: 'Active' };
  },
};
