/** Namespace, ConfigMap, Event (core/v1) and Lease (coordination.k8s.io/v1). */
import {
  bool,
  bytes,
  int,
  keyed,
  list,
  map,
  microTime,
  named,
  object,
  oneOf,
  type Schema,
  str,
  stringMap,
  time,
} from '../schema.ts';
import { condition, kindSchema, objectReference } from './meta.ts';

const core = (kind: string): string => `io.k8s.api.core.v1.${kind}`;

export const namespaceSchema: Schema = kindSchema(core('Namespace'), 'A scope for names.', {
  spec: named(core('NamespaceSpec'), 'What the namespace is to be.', {
    finalizers: list(str(), 'Must be empty before the namespace goes.'),
  }),
  status: named(core('NamespaceStatus'), 'How the namespace is doing.', {
    phase: oneOf(['Active', 'Terminating'], 'Active or Terminating.'),
    conditions: keyed(condition(core('NamespaceCondition'), 'One aspect of the namespace.'), ['type']),
  }),
});

export const configMapSchema: Schema = kindSchema(core('ConfigMap'), 'Configuration for pods.', {
  data: stringMap('Texts by key.'),
  binaryData: map(bytes(), 'Bytes by key, as base64.'),
  immutable: bool('Whether the data can never be changed again.'),
});

export const eventSchema: Schema = kindSchema(core('Event'), 'Something that happened to an object.', {
  'involvedObject!': objectReference,
  reason: str('One CamelCase word.'),
  message: str('For people.'),
  type: str('Normal or Warning.'),
  source: named(core('EventSource'), 'Who saw it.', { component: str(), host: str() }),
  firstTimestamp: time('When it was first seen.'),
  lastTimestamp: time('When it was last seen.'),
  count: int('How often it was seen.'),
  eventTime: microTime('When it happened.'),
  series: object('A run of events.', { count: int(), lastObservedTime: microTime() }),
  action: str('What was done or failed.'),
  related: objectReference,
  reportingComponent: str('Who reports it.', { default: '' }),
  reportingInstance: str('Which one of them.', { default: '' }),
});

export const leaseSchema: Schema = kindSchema(
  'io.k8s.api.coordination.v1.Lease',
  'Who holds something, and until when.',
  {
    spec: named('io.k8s.api.coordination.v1.LeaseSpec', 'Holder and times.', {
      holderIdentity: str('Who holds it.'),
      leaseDurationSeconds: int('Seconds after renewTime in which others must not take it.', { minimum: 1 }),
      acquireTime: microTime('When it was taken.'),
      renewTime: microTime('When it was last renewed.'),
      leaseTransitions: int('How often the holder changed.', { minimum: 0 }),
      preferredHolder: str('Who should take it next.'),
      strategy: str('How the holder is chosen.'),
    }),
  },
);
