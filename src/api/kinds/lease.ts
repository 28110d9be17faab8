/** coordination.k8s.io/v1 Lease. */
import { ageOf } from '../duration.ts';
import type { KindDeclaration } from '../kind-declaration.ts';
import { subdomainNameProblem } from '../names.ts';
import { LEASE_PROTO } from '../protobuf.ts';
import { leaseSchema } from '../schemas/others.ts';
import type { Lease } from '../types.ts';

export const leaseKind: KindDeclaration<Lease> = {
  group: 'coordination.k8s.io',
  version: 'v1',
  kind: 'Lease',
  plural: 'leases',
  singular: 'lease',
  shortNames: [],
  categories: [],
  namespaced: true,
  storage: 'leases',
  schema: leaseSchema,
  protobuf: LEASE_PROTO,
  statusSubresource: false,
  columns: [
    {
      name: 'Name',
      type: 'string',
      format: 'name',
      description: 'Name of the lease.',
      priority: 0,
      value: (l) => l.metadata.name,
    },
    {
      name: 'Holder',
      type: 'string',
      description: 'Who holds it.',
      priority: 0,
      value: (l) => l.spec?.holderIdentity ?? '',
    },
    {
      name: 'Age',
      type: 'string',
      description: 'Time since creation.',
      priority: 0,
      value: (l, now) => ageOf(l.metadata.creationTimestamp, now),
    },
  ],
  fieldLabels: {},
  nameProblem: subdomainNameProblem,
};
