/** meta/v1: what every object carries. */
import {
  bool,
  int64,
  keyed,
  list,
  named,
  object,
  open,
  type Schema,
  setOf,
  str,
  stringMap,
  time,
} from '../schema.ts';

const meta = (kind: string): string => `io.k8s.apimachinery.pkg.apis.meta.v1.${kind}`;

const ownerReference = named(meta('OwnerReference'), 'The object that this one belongs to.', {
  'apiVersion!': str('API version of the owner.'),
  'kind!': str('Kind of the owner.'),
  'name!': str('Name of the owner.'),
  'uid!': str('UID of the owner.'),
  controller: bool('Whether the owner manages this object.'),
  blockOwnerDeletion: bool('Whether the owner waits for this object in a foreground deletion.'),
});

const managedFieldsEntry = named(meta('ManagedFieldsEntry'), 'Which fields a manager owns.', {
  apiVersion: str('Version the field set was written in.'),
  fieldsType: str('Always FieldsV1.'),
  fieldsV1: open('The set of fields.'),
  manager: str('Who owns them.'),
  operation: str('Apply or Update.'),
  subresource: str('The subresource they were written through.'),
  time: time('When they were last written.'),
});

export const objectMeta: Schema = named(meta('ObjectMeta'), 'Name, labels and bookkeeping of an object.', {
  name: str('Unique within a namespace and kind; cannot be changed.'),
  generateName: str('Prefix from which the server makes a name when none is given.'),
  namespace: str('The namespace that the name is unique in.'),
  uid: str('Unique over space and time; set by the server.'),
  resourceVersion: str('Opaque version of the object, for conditional writes and watches.'),
  generation: int64('Grows with each change of the desired state.'),
  creationTimestamp: time('When the object was made; set by the server.'),
  deletionTimestamp: time('When the object is to be gone; set by the server on deletion.'),
  deletionGracePeriodSeconds: int64('Seconds the object was given to end.'),
  labels: stringMap('Keys and values to select objects by.'),
  annotations: stringMap('Keys and values that tools keep with the object.'),
  finalizers: setOf(str(), 'What must be done before the object goes; it is kept until the list is empty.'),
  ownerReferences: keyed(ownerReference, ['uid'], 'Objects that this one depends on.'),
  managedFields: list(managedFieldsEntry, 'Which manager owns which fields.'),
  selfLink: str('Not used any more.'),
});

export const listMeta: Schema = named(meta('ListMeta'), 'Version and continuation of a list.', {
  resourceVersion: str('Version that the list is of.'),
  continue: str('Token for the next page.'),
  remainingItemCount: int64('How many items follow this page.'),
  selfLink: str('Not used any more.'),
});

const labelSelectorRequirement = named(meta('LabelSelectorRequirement'), 'A condition on a label.', {
  'key!': str('Label key.'),
  'operator!': str('In, NotIn, Exists or DoesNotExist.', {
    enum: ['In', 'NotIn', 'Exists', 'DoesNotExist'],
  }),
  values: list(str(), 'Values for In and NotIn.'),
});

export const labelSelector: Schema = named(meta('LabelSelector'), 'Selects objects by their labels.', {
  matchLabels: stringMap('Labels that must be there with these values.'),
  matchExpressions: list(labelSelectorRequirement, 'Conditions that must all hold.'),
});

/** metav1.DeleteOptions: the body of a DELETE. */
export const deleteOptions: Schema = named(meta('DeleteOptions'), 'How to delete.', {
  apiVersion: str(),
  kind: str(),
  gracePeriodSeconds: int64('Seconds until the object is removed; 0: at once.'),
  preconditions: object('What must hold.', {
    uid: str('UID of the object.'),
    resourceVersion: str('Version of the object.'),
  }),
  propagationPolicy: str('Orphan, Background or Foreground.', {
    enum: ['Orphan', 'Background', 'Foreground'],
  }),
  orphanDependents: bool('Not used any more.'),
  dryRun: list(str(), 'All: nothing is stored.'),
  ignoreStoreReadErrorWithClusterBreakingPotential: bool('Not supported.'),
});

/** A condition; `extra`: what only this kind's has. */
export const condition = (name: string, description: string, extra: Record<string, Schema> = {}): Schema =>
  named(name, description, {
    'type!': str('What the condition is about.'),
    'status!': str('True, False or Unknown.', { enum: ['True', 'False', 'Unknown'] }),
    ...extra,
    lastTransitionTime: time('When the status last changed.'),
    reason: str('One CamelCase word.'),
    message: str('For people.'),
  });

/** core/v1 ObjectReference. */
export const objectReference: Schema = named('io.k8s.api.core.v1.ObjectReference', 'Names an object.', {
  apiVersion: str('API version of the object.'),
  kind: str('Kind of the object.'),
  namespace: str('Namespace of the object.'),
  name: str('Name of the object.'),
  uid: str('UID of the object.'),
  resourceVersion: str('Version of the object that is meant.'),
  fieldPath: str('The part of the object that is meant.'),
});

/** The whole object: apiVersion, kind, metadata and its own fields. */
export function kindSchema(name: string, description: string, fields: Record<string, Schema>): Schema {
  return named(name, description, {
    apiVersion: str('Version of the schema that this object is written in.'),
    kind: str('What this object is.'),
    metadata: objectMeta,
    ...fields,
  });
}
