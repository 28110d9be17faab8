/** OpenAPI documents made from the declarations: v3 per group and version (client validation, `kubectl explain`), v2 whole. */
import { createHash } from 'node:crypto';
import { apiVersionOf, type KindDeclaration } from '../api/kind-declaration.ts';
import type { Schema } from '../api/schema.ts';
import { listMeta } from '../api/schemas/meta.ts';
import { groupVersionPath } from './discovery.ts';
import { subresourcesOf } from './request-info.ts';

type Json = Record<string, unknown>;

/** One schema and, in `definitions`, every named one that it reaches. */
export class SchemaWriter {
  readonly definitions: Record<string, Json> = {};
  readonly #base: string;

  /** `#/components/schemas/` or `#/definitions/` */
  constructor(base: string) {
    this.#base = base;
  }

  reference(schema: Schema): Json {
    const { name } = schema;
    if (!name) return this.#body(schema);
    if (!Object.hasOwn(this.definitions, name)) {
      this.definitions[name] = {};
      this.definitions[name] = this.#body(schema);
    }
    const ref = { $ref: `${this.#base}${name}` };
    if (schema.default === undefined || this.#base.startsWith('#/definitions')) return ref;
    return { allOf: [ref], default: schema.default };
  }

  #body(s: Schema): Json {
    const merge =
      s.mergeKey === undefined && !s.retainKeys
        ? {}
        : {
            ...(s.mergeKey && { 'x-kubernetes-patch-merge-key': s.mergeKey }),
            'x-kubernetes-patch-strategy': s.retainKeys ? 'merge,retainKeys' : 'merge',
          };
    return {
      ...(s.intOrString ? intOrStringType(s) : s.type && { type: s.type }),
      ...(s.format && !s.intOrString && { format: wireFormat(s.format) }),
      ...(s.description && { description: s.description }),
      ...(s.properties && {
        properties: Object.fromEntries(Object.entries(s.properties).map(([k, v]) => [k, this.reference(v)])),
      }),
      ...(s.required && { required: s.required }),
      ...(s.additionalProperties && { additionalProperties: this.reference(s.additionalProperties) }),
      ...(s.items && { items: this.reference(s.items) }),
      ...(s.enum && { enum: s.enum.filter(Boolean) }),
      ...(s.default !== undefined && !s.name && { default: s.default }),
      ...(s.listType && { 'x-kubernetes-list-type': s.listType }),
      ...(s.listKeys && { 'x-kubernetes-list-map-keys': s.listKeys }),
      ...merge,
      ...(s.open && { 'x-kubernetes-preserve-unknown-fields': true }),
    };
  }
}

const intOrStringType = (s: Schema): Json =>
  s.format === 'quantity' ? { type: 'string' } : { type: 'string', format: 'int-or-string' };

const wireFormat = (format: NonNullable<Schema['format']>): string =>
  format === 'micro-time' ? 'date-time' : format;

const gvkOf = (kind: KindDeclaration): Json => ({
  group: kind.group,
  kind: kind.kind,
  version: kind.version,
});

function addDefinitions(writer: SchemaWriter, kinds: readonly KindDeclaration[]): void {
  for (const kind of kinds) {
    writer.reference(kind.schema);
    const name = kind.schema.name as string;
    Object.assign(writer.definitions[name] as Json, { 'x-kubernetes-group-version-kind': [gvkOf(kind)] });
    writer.definitions[`${name}List`] = {
      type: 'object',
      description: `A list of ${kind.plural}.`,
      required: ['items'],
      properties: {
        apiVersion: { type: 'string' },
        kind: { type: 'string' },
        metadata: writer.reference(listMeta),
        items: { type: 'array', items: writer.reference(kind.schema) },
      },
      'x-kubernetes-group-version-kind': [{ ...gvkOf(kind), kind: `${kind.kind}List` }],
    };
  }
}

const query = (name: string, description: string, v3: boolean, type = 'string'): Json => ({
  name,
  in: 'query',
  description,
  uniqueItems: true,
  ...(v3 ? { schema: { type } } : { type }),
});

/** `fieldValidation` here is what makes kubectl leave validation to the server. */
const writeParameters = (v3: boolean): Json[] => [
  query('pretty', 'Not used.', v3),
  query('dryRun', 'All: nothing is stored.', v3),
  query('fieldManager', 'Who writes.', v3),
  query('fieldValidation', 'What to do about unknown fields: Ignore, Warn or Strict.', v3),
];
const listParameters = (v3: boolean): Json[] => [
  query('labelSelector', 'Labels to match.', v3),
  query('fieldSelector', 'Fields to match.', v3),
  query('limit', 'Greatest number of items in the answer.', v3, 'integer'),
  query('continue', 'Where to go on.', v3),
  query('resourceVersion', 'Version to list at or watch from.', v3),
  query('resourceVersionMatch', 'Exact or NotOlderThan.', v3),
  query('watch', 'Stream changes.', v3, 'boolean'),
  query('allowWatchBookmarks', 'Send BOOKMARK events.', v3, 'boolean'),
  query('sendInitialEvents', 'Begin a watch with the present state.', v3, 'boolean'),
  query('timeoutSeconds', 'End the watch after so long.', v3, 'integer'),
];

function addPaths(paths: Json, kind: KindDeclaration, v3: boolean): void {
  const base = `/${groupVersionPath(kind)}`;
  const refBase = v3 ? '#/components/schemas/' : '#/definitions/';
  const pathParameter = (name: string): Json => ({
    name,
    in: 'path',
    required: true,
    ...(v3 ? { schema: { type: 'string' } } : { type: 'string' }),
  });
  const scope = kind.namespaced ? [pathParameter('namespace')] : [];
  const operation = (action: string, parameters: Json[], suffix = ''): Json => {
    const schema = { $ref: `${refBase}${kind.schema.name}${suffix}` };
    return {
      tags: [groupVersionPath(kind)],
      operationId: `${action}${apiVersionOf(kind).replace(/[^A-Za-z0-9]/g, '')}${kind.kind}${suffix}`,
      parameters,
      responses: {
        '200': v3
          ? { description: 'OK', content: { 'application/json': { schema } } }
          : { description: 'OK', schema },
      },
      'x-kubernetes-action': action,
      'x-kubernetes-group-version-kind': gvkOf(kind),
    };
  };
  const collection = kind.namespaced
    ? `${base}/namespaces/{namespace}/${kind.plural}`
    : `${base}/${kind.plural}`;
  if (kind.namespaced)
    paths[`${base}/${kind.plural}`] = { get: operation('list', listParameters(v3), 'List') };
  paths[collection] = {
    get: operation('list', listParameters(v3), 'List'),
    post: operation('post', writeParameters(v3)),
    delete: operation('deletecollection', listParameters(v3)),
    parameters: scope,
  };
  const single = {
    get: operation('get', []),
    put: operation('put', writeParameters(v3)),
    patch: operation('patch', writeParameters(v3)),
  };
  paths[`${collection}/{name}`] = {
    ...single,
    delete: operation('delete', writeParameters(v3).slice(1, 2)),
    parameters: [...scope, pathParameter('name')],
  };
  if (subresourcesOf(kind).includes('status'))
    paths[`${collection}/{name}/status`] = { ...single, parameters: [...scope, pathParameter('name')] };
}

export interface OpenApiDocument {
  text: string;
  hash: string;
}

/** Documents are made when first asked for, and kept as text. */
export class OpenApi {
  readonly #kinds: readonly KindDeclaration[];
  readonly #v3 = new Map<string, OpenApiDocument>();
  #v2: OpenApiDocument | undefined;

  constructor(kinds: readonly KindDeclaration[]) {
    this.#kinds = kinds;
  }

  /** `/openapi/v3`: where each group and version has its document. */
  index(): string {
    const paths = [...new Set(this.#kinds.map(groupVersionPath))].map((path) => [
      path,
      { serverRelativeURL: `/openapi/v3/${path}?hash=${this.v3(path)?.hash}` },
    ]);
    return JSON.stringify({ paths: Object.fromEntries(paths) });
  }

  /** `path` is such as `api/v1`; undefined when nothing is served there. */
  v3(path: string): OpenApiDocument | undefined {
    const known = this.#v3.get(path);
    if (known) return known;
    const kinds = this.#kinds.filter((kind) => groupVersionPath(kind) === path);
    if (kinds.length === 0) return undefined;
    const writer = new SchemaWriter('#/components/schemas/');
    addDefinitions(writer, kinds);
    const paths: Json = {};
    for (const kind of kinds) addPaths(paths, kind, true);
    const document = finish({
      openapi: '3.0.0',
      info: { title: 'Weft', version: '1' },
      paths,
      components: { schemas: writer.definitions },
    });
    this.#v3.set(path, document);
    return document;
  }

  v2(): OpenApiDocument {
    this.#v2 ??= finish(this.v2Document());
    return this.#v2;
  }

  v2Document(): Json {
    const writer = new SchemaWriter('#/definitions/');
    addDefinitions(writer, this.#kinds);
    const paths: Json = {};
    for (const kind of this.#kinds) addPaths(paths, kind, false);
    return { swagger: '2.0', info: { title: 'Weft', version: '1' }, paths, definitions: writer.definitions };
  }
}

function finish(document: Json): OpenApiDocument {
  const text = JSON.stringify(document);
  return { text, hash: createHash('sha256').update(text).digest('hex').slice(0, 32).toUpperCase() };
}
