import type { ObjectReference, Pod } from '../../api/types.ts';

/** What an Event about the pod refers to. Items of a list do not say of which kind they are, hence not their own words. */
export function podReference({ metadata }: Pod): ObjectReference {
  const { name, namespace = 'default', uid, resourceVersion } = metadata;
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    name,
    namespace,
    ...(uid && { uid }),
    ...(resourceVersion && { resourceVersion }),
  };
}
