/**
 * The forms in which an object can be answered: itself, its metadata alone, or a row of a table
 * (https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables).
 */
import { apiVersionOf, type KindDeclaration } from '../api/kind-declaration.ts';
import { notAcceptable } from '../api/statuses.ts';
import type { KubeObject } from '../api/types.ts';
import type { StoreEntry } from '../store/store.ts';
import { decodeObject, objectText } from './object-codec.ts';

export type Representation =
  | { readonly form: 'object' }
  | { readonly form: 'metadata'; readonly version: string }
  | { readonly form: 'table'; readonly version: string; readonly include: 'None' | 'Metadata' | 'Object' };

const OBJECT: Representation = { form: 'object' };
const SERVED = ['application/json', 'application/yaml', 'application/vnd.kubernetes.protobuf'];

/** One value of an Accept header: its media type and its parameters. */
export interface MediaType {
  type: string;
  parameters: ReadonlyMap<string, string>;
}

export function parseAccept(header: string | undefined): MediaType[] {
  return (header ?? '*/*')
    .slice(0, 4096)
    .split(',')
    .map((part) => {
      const [type = '', ...rest] = part.split(';').map((s) => s.trim());
      const parameters = new Map(rest.map((p) => p.split('=', 2).map((s) => s.trim()) as [string, string]));
      return { type: type.toLowerCase(), parameters };
    });
}

/** The first form in the Accept header that can be served. Protobuf is passed over: clients name JSON after it. */
export function negotiate(accept: string | undefined, includeObject: string | null): Representation {
  let protobufOnly = false;
  for (const { type, parameters } of parseAccept(accept)) {
    if (type === 'application/vnd.kubernetes.protobuf') {
      protobufOnly ||= !parameters.has('as');
      continue;
    }
    if (type !== 'application/json' && type !== '*/*' && type !== 'application/*') continue;
    const as = parameters.get('as');
    if (as === undefined) return OBJECT;
    const version = parameters.get('v') ?? 'v1';
    if (parameters.get('g') !== 'meta.k8s.io' || (version !== 'v1' && version !== 'v1beta1')) continue;
    if (as === 'Table') {
      const include = includeObject === 'None' || includeObject === 'Object' ? includeObject : 'Metadata';
      return { form: 'table', version, include };
    }
    if (as === 'PartialObjectMetadata' || as === 'PartialObjectMetadataList')
      return { form: 'metadata', version };
  }
  if (protobufOnly) return OBJECT;
  throw notAcceptable(SERVED.slice(0, 1).join(', '));
}

/** Two requests with the same key get the same bytes for the same object. */
export const representationKey = (r: Representation): string =>
  r.form === 'object' ? 'o' : r.form === 'metadata' ? `m${r.version}` : `t${r.version}${r.include}`;

interface ListMeta {
  resourceVersion: string;
  continue?: string;
  remainingItemCount?: number;
}

/** One entry. `parsed` saves parsing when the caller has the object already. */
export function entryText(
  kind: KindDeclaration,
  r: Representation,
  entry: StoreEntry,
  revision: number,
  now: number,
  parsed?: KubeObject,
): string {
  if (r.form === 'object') return objectText(kind, entry, revision);
  const object = parsed ?? decodeObject(entry, revision);
  object.metadata.resourceVersion = String(revision);
  return objectTextAs(kind, r, object, now);
}

export function objectTextAs(
  kind: KindDeclaration,
  r: Representation,
  object: KubeObject,
  now: number,
): string {
  if (r.form === 'object') return JSON.stringify(object);
  if (r.form === 'metadata') return JSON.stringify(partial(object, r.version));
  return tableText(kind, r, { resourceVersion: object.metadata.resourceVersion ?? '' }, [object], now);
}

export function listText(
  kind: KindDeclaration,
  r: Representation,
  meta: ListMeta,
  entries: readonly StoreEntry[],
  now: number,
): string {
  if (r.form === 'table')
    return tableText(
      kind,
      r,
      meta,
      entries.map((e) => decodeObject(e)),
      now,
    );
  const [apiVersion, listKind] =
    r.form === 'metadata'
      ? [`meta.k8s.io/${r.version}`, 'PartialObjectMetadataList']
      : [apiVersionOf(kind), `${kind.kind}List`];
  const items = entries.map((e) =>
    r.form === 'metadata' ? JSON.stringify(partial(decodeObject(e), r.version)) : objectText(kind, e),
  );
  return `{"kind":"${listKind}","apiVersion":"${apiVersion}","metadata":${JSON.stringify(meta)},"items":[${items.join(',')}]}\n`;
}

/** What a BOOKMARK carries: nothing but a revision. */
export function bookmarkText(
  kind: KindDeclaration,
  r: Representation,
  revision: number,
  initialEventsEnd: boolean,
): string {
  const metadata = {
    resourceVersion: String(revision),
    ...(initialEventsEnd && { annotations: { 'k8s.io/initial-events-end': 'true' } }),
  };
  if (r.form === 'table')
    return JSON.stringify({
      kind: 'Table',
      apiVersion: `meta.k8s.io/${r.version}`,
      metadata: { resourceVersion: metadata.resourceVersion },
      columnDefinitions: columnDefinitions(kind),
      rows: initialEventsEnd
        ? [{ cells: [], object: { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata } }]
        : [],
    });
  return JSON.stringify({ kind: kind.kind, apiVersion: apiVersionOf(kind), metadata });
}

const partial = (object: KubeObject, version: string): object => ({
  kind: 'PartialObjectMetadata',
  apiVersion: `meta.k8s.io/${version}`,
  metadata: object.metadata,
});

function columnDefinitions(kind: KindDeclaration): object[] {
  return kind.columns.map(({ name, type, format, description, priority }) => ({
    name,
    type,
    format: format ?? '',
    description,
    priority,
  }));
}

function tableText(
  kind: KindDeclaration,
  r: Extract<Representation, { form: 'table' }>,
  meta: ListMeta,
  objects: readonly KubeObject[],
  now: number,
): string {
  const rows = objects.map((object) => ({
    cells: kind.columns.map((column) => column.value(object, now)),
    ...(r.include === 'Object' && { object }),
    ...(r.include === 'Metadata' && { object: partial(object, r.version) }),
  }));
  return `${JSON.stringify({
    kind: 'Table',
    apiVersion: `meta.k8s.io/${r.version}`,
    metadata: meta,
    columnDefinitions: columnDefinitions(kind),
    rows,
  })}\n`;
}
