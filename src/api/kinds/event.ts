/** core/v1 Event. */
import { type FieldProblem, invalid } from '../decode.ts';
import { ageOf } from '../duration.ts';
import type { KindDeclaration } from '../kind-declaration.ts';
import { subdomainNameProblem } from '../names.ts';
import { eventSchema } from '../schemas/others.ts';
import type { Event } from '../types.ts';

interface Series {
  count?: number;
  lastObservedTime?: string;
}
const seriesOf = (event: Event): Series | undefined => (event as { series?: Series }).series;

const firstSeen = (event: Event): string | null | undefined => event.firstTimestamp ?? event.eventTime;
const lastSeen = (event: Event): string | null | undefined =>
  seriesOf(event)?.lastObservedTime ?? event.lastTimestamp ?? firstSeen(event);

function objectOf(event: Event): string {
  const { kind = '', name = '' } = event.involvedObject ?? {};
  return kind ? `${kind.toLowerCase()}/${name}` : name;
}

function sourceOf(event: Event): string {
  const { component, host } = event.source ?? {};
  const from = [component, host].filter(Boolean).join(', ');
  return from || [event.reportingComponent, event.reportingInstance].filter(Boolean).join(', ');
}

function validate(event: Event): FieldProblem[] {
  const involved = event.involvedObject?.namespace;
  const own = event.metadata.namespace;
  // Events about cluster-wide objects live in `default`.
  if (involved ? involved !== own : own !== 'default' && own !== 'kube-system')
    return [invalid('involvedObject.namespace', involved ?? '', 'does not match event.namespace')];
  return [];
}

const involved = (field: keyof Event['involvedObject']) => (event: Event) =>
  event.involvedObject?.[field] ?? '';

export const eventKind: KindDeclaration<Event> = {
  group: '',
  version: 'v1',
  kind: 'Event',
  plural: 'events',
  singular: 'event',
  shortNames: ['ev'],
  categories: [],
  namespaced: true,
  storage: 'events',
  schema: eventSchema,
  statusSubresource: false,
  ttlSeconds: 3600,
  columns: [
    {
      name: 'Last Seen',
      type: 'string',
      description: 'Time since it was last seen.',
      priority: 0,
      value: (e, now) => ageOf(lastSeen(e), now),
    },
    {
      name: 'Type',
      type: 'string',
      description: 'Normal or Warning.',
      priority: 0,
      value: (e) => e.type ?? '',
    },
    {
      name: 'Reason',
      type: 'string',
      description: 'One CamelCase word.',
      priority: 0,
      value: (e) => e.reason ?? '',
    },
    {
      name: 'Object',
      type: 'string',
      description: 'The object it happened to.',
      priority: 0,
      value: objectOf,
    },
    {
      name: 'Subobject',
      type: 'string',
      description: 'The part of the object.',
      priority: 1,
      value: (e) => e.involvedObject?.fieldPath ?? '',
    },
    { name: 'Source', type: 'string', description: 'Who saw it.', priority: 1, value: sourceOf },
    {
      name: 'Message',
      type: 'string',
      description: 'For people.',
      priority: 0,
      value: (e) => (e.message ?? '').trim(),
    },
    {
      name: 'First Seen',
      type: 'string',
      description: 'Time since it was first seen.',
      priority: 1,
      value: (e, now) => ageOf(firstSeen(e), now),
    },
    {
      name: 'Count',
      type: 'string',
      description: 'How often it was seen.',
      priority: 1,
      value: (e) => seriesOf(e)?.count ?? e.count ?? 1,
    },
    {
      name: 'Name',
      type: 'string',
      format: 'name',
      description: 'Name of the event.',
      priority: 1,
      value: (e) => e.metadata.name,
    },
  ],
  fieldLabels: {
    'involvedObject.kind': involved('kind'),
    'involvedObject.namespace': involved('namespace'),
    'involvedObject.name': involved('name'),
    'involvedObject.uid': involved('uid'),
    'involvedObject.apiVersion': involved('apiVersion'),
    'involvedObject.resourceVersion': involved('resourceVersion'),
    'involvedObject.fieldPath': involved('fieldPath'),
    reason: (e) => e.reason ?? '',
    reportingComponent: (e) => e.reportingComponent ?? '',
    source: (e) => e.source?.component || e.reportingComponent || '',
    type: (e) => e.type ?? '',
  },
  nameProblem: subdomainNameProblem,
  validate,
};
