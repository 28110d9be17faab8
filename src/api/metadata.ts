/** Validation of ObjectMeta, the same for every kind. */
import { type FieldProblem, forbidden, invalid, required } from './decode.ts';
import { qualifiedNameProblem, validateLabels } from './names.ts';
import type { KubeObject, ObjectMeta } from './types.ts';

/** Bytes of all annotations of an object together. */
const MAX_ANNOTATION_BYTES = 256 * 1024;

export function validateMetadata(
  meta: ObjectMeta,
  nameProblem: (name: string) => string | undefined,
): FieldProblem[] {
  const problems: FieldProblem[] = [];
  if (!meta.name) problems.push(required('metadata.name', 'name or generateName is required'));
  else {
    const problem = nameProblem(meta.name);
    if (problem) problems.push(invalid('metadata.name', meta.name, problem));
  }
  problems.push(...validateLabels(meta.labels, 'metadata.labels'));
  let bytes = 0;
  for (const [key, value] of Object.entries(meta.annotations ?? {})) {
    const problem = qualifiedNameProblem(key.toLowerCase());
    if (problem) problems.push(invalid('metadata.annotations', key, problem));
    bytes += key.length + value.length;
  }
  if (bytes > MAX_ANNOTATION_BYTES)
    problems.push({
      field: 'metadata.annotations',
      reason: 'FieldValueTooLong',
      message: `Too long: may not be more than ${MAX_ANNOTATION_BYTES} bytes`,
    });
  for (const [i, finalizer] of (meta.finalizers ?? []).entries()) {
    const problem = qualifiedNameProblem(finalizer);
    if (problem) problems.push(invalid(`metadata.finalizers[${i}]`, finalizer, problem));
  }
  const controllers = (meta.ownerReferences ?? []).filter((owner) => owner.controller);
  if (controllers.length > 1)
    problems.push(
      invalid(
        'metadata.ownerReferences',
        controllers.map((o) => o.name),
        'Only one reference can have Controller set to true',
      ),
    );
  return problems;
}

/** What an update must leave as it was. */
export function validateMetadataUpdate(next: KubeObject, old: KubeObject): FieldProblem[] {
  const problems: FieldProblem[] = [];
  const [a, b] = [next.metadata, old.metadata];
  if (a.uid !== b.uid) problems.push(invalid('metadata.uid', a.uid, 'field is immutable'));
  if (b.deletionTimestamp) {
    const added = (a.finalizers ?? []).filter((f) => !(b.finalizers ?? []).includes(f));
    if (added.length > 0)
      problems.push(
        forbidden(
          'metadata.finalizers',
          `no new finalizers can be added if the object is being deleted, found new finalizers ${JSON.stringify(added)}`,
        ),
      );
  }
  return problems;
}
