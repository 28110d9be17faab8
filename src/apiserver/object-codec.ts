/**
 * Between stored texts and objects. A stored text begins with apiVersion, kind and metadata and has no
 * resourceVersion: that is the store's revision, put in when the text is read. Lists and watches that need nothing of
 * the object splice it into the text and never parse.
 */
import { apiVersionOf, type KindDeclaration } from '../api/kind-declaration.ts';
import type { KubeObject } from '../api/types.ts';
import type { StoreEntry } from '../store/store.ts';

export const REGISTRY = '/registry/';

/** Kubernetes' own key in etcd: `/registry/pods/default/a`. */
export function keyOf(kind: KindDeclaration, namespace: string | undefined, name: string): string {
  return kind.namespaced ? `${prefixOf(kind, namespace)}${name}` : `${prefixOf(kind)}${name}`;
}

/** All of a kind, or those of one namespace. */
export function prefixOf(kind: KindDeclaration, namespace?: string): string {
  const base = `${REGISTRY}${kind.storage}/`;
  return kind.namespaced && namespace ? `${base}${namespace}/` : base;
}

export function encodeObject(kind: KindDeclaration, object: KubeObject): string {
  const { apiVersion: _version, kind: _kind, metadata, ...rest } = object;
  const {
    resourceVersion: _revision,
    selfLink: _link,
    ...meta
  } = metadata as KubeObject['metadata'] & {
    selfLink?: string;
  };
  return JSON.stringify({ apiVersion: apiVersionOf(kind), kind: kind.kind, metadata: meta, ...rest });
}

/** The object, with the revision it is of; `revision` overrides it (a deletion's own). */
export function decodeObject(entry: StoreEntry, revision = entry.revision): KubeObject {
  const object = JSON.parse(entry.value) as KubeObject;
  object.metadata.resourceVersion = String(revision);
  return object;
}

/** The object's JSON, with the revision it is of. */
export function objectText(kind: KindDeclaration, entry: StoreEntry, revision = entry.revision): string {
  const head = headOf(kind);
  if (!entry.value.startsWith(head)) return JSON.stringify(decodeObject(entry, revision));
  return `${head}"resourceVersion":"${revision}",${entry.value.slice(head.length)}`;
}

const heads = new WeakMap<KindDeclaration, string>();
function headOf(kind: KindDeclaration): string {
  let head = heads.get(kind);
  if (head === undefined) {
    head = `{"apiVersion":"${apiVersionOf(kind)}","kind":"${kind.kind}","metadata":{`;
    heads.set(kind, head);
  }
  return head;
}
