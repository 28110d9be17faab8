/**
 * Structural schemas: the part of JSON Schema with which Kubernetes describes its objects, and small builders for it.
 *
 * A schema refers to another by holding it. One with a `name` is emitted in OpenAPI documents as a definition of that
 * name and referred to by $ref (see src/apiserver/openapi.ts).
 *
 * Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/ (structural
 * schemas, list types) and the API conventions' patch strategies.
 */
export interface Schema {
  /** Definition name, such as io.k8s.api.core.v1.Pod. */
  name?: string;
  type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean';
  format?: 'date-time' | 'micro-time' | 'int32' | 'int64' | 'byte' | 'quantity' | 'double';
  description?: string;
  properties?: Record<string, Schema>;
  required?: string[];
  /** Values of a map. */
  additionalProperties?: Schema;
  items?: Schema;
  /** How lists merge: `map` by `listKeys`, `set` by value; absent: replaced as a whole. */
  listType?: 'atomic' | 'set' | 'map';
  /** Keys of a `map` list in server-side apply. */
  listKeys?: string[];
  /** Strategic merge: the key of `patchStrategy: merge`; '' for a list of scalars. */
  mergeKey?: string;
  /** Strategic merge with `retainKeys` (unions: volumes, deployment strategies). */
  retainKeys?: boolean;
  enum?: readonly string[];
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  pattern?: RegExp;
  /** Filled in where the field is absent and its parent is there. */
  default?: unknown;
  /** A number or a text. */
  intOrString?: boolean;
  /** Anything inside is kept as it is. */
  open?: boolean;
}

type Options = Omit<Schema, 'type' | 'properties' | 'items' | 'additionalProperties'>;

export const str = (description?: string, options: Options = {}): Schema => ({
  type: 'string',
  ...(description && { description }),
  ...options,
});
export const int = (description?: string, options: Options = {}): Schema => ({
  type: 'integer',
  format: 'int32',
  ...(description && { description }),
  ...options,
});
export const int64 = (description?: string, options: Options = {}): Schema => ({
  ...int(description, options),
  format: 'int64',
});
export const bool = (description?: string, options: Options = {}): Schema => ({
  type: 'boolean',
  ...(description && { description }),
  ...options,
});
/** One of fixed words; an absent or empty text is left to `required`. */
export const oneOf = (values: readonly string[], description?: string, options: Options = {}): Schema =>
  str(description, { enum: values, ...options });
export const time = (description?: string): Schema => str(description, { format: 'date-time' });
export const microTime = (description?: string): Schema => str(description, { format: 'micro-time' });
export const bytes = (description?: string): Schema => str(description, { format: 'byte' });
export const port = (description?: string, options: Options = {}): Schema =>
  int(description, { minimum: 1, maximum: 65535, ...options });
export const intOrString = (description?: string): Schema => ({
  intOrString: true,
  ...(description && { description }),
});
/** An amount with a unit (`100m`, `64Mi`): https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ */
export const quantity = (description?: string): Schema => ({
  intOrString: true,
  format: 'quantity',
  ...(description && { description }),
});
export const list = (items: Schema, description?: string, options: Options = {}): Schema => ({
  type: 'array',
  items,
  listType: 'atomic',
  ...(description && { description }),
  ...options,
});
/** A list whose entries are told apart by `keys`; strategic merge uses the first one unless told otherwise. */
export const keyed = (items: Schema, keys: string[], description?: string, options: Options = {}): Schema =>
  list(items, description, { listType: 'map', listKeys: keys, mergeKey: keys[0]!, ...options });
/** A list of scalars that merges as a set. */
export const setOf = (items: Schema, description?: string): Schema =>
  list(items, description, { listType: 'set', mergeKey: '' });
export const map = (values: Schema, description?: string): Schema => ({
  type: 'object',
  additionalProperties: values,
  ...(description && { description }),
});
export const strings = (description?: string): Schema => list(str(), description);
export const stringMap = (description?: string): Schema => map(str(), description);
/** A deep corner that Weft neither reads nor checks. */
export const open = (description?: string): Schema => ({
  type: 'object',
  open: true,
  ...(description && { description }),
});

/** An object; a field whose name ends in '!' is required. */
export function object(description: string, fields: Record<string, Schema>, options: Options = {}): Schema {
  const properties: Record<string, Schema> = {};
  const required: string[] = [];
  for (const [key, schema] of Object.entries(fields)) {
    const name = key.endsWith('!') ? key.slice(0, -1) : key;
    if (name !== key) required.push(name);
    properties[name] = schema;
  }
  return {
    type: 'object',
    ...(description && { description }),
    properties,
    ...(required.length > 0 && { required }),
    ...options,
  };
}

/** An {@link object} that OpenAPI documents list by name. */
export const named = (
  name: string,
  description: string,
  fields: Record<string, Schema>,
  options: Options = {},
): Schema => object(description, fields, { name, ...options });

/** The same schema with other options, such as a description for this place or a default. */
export const like = (schema: Schema, options: Options): Schema => ({ ...schema, ...options });
