/**
 * Strategic merge patch: a merge patch that knows, by the schema, which lists merge and by what key.
 *
 * Directives: `$patch: replace|delete|merge` in objects and list entries, `$retainKeys` for unions,
 * `$deleteFromPrimitiveList/f` and `$setElementOrder/f` beside list `f`.
 *
 * Source: kubernetes/community contributors/devel/sig-api-machinery/strategic-merge-patch.md
 */
import type { Schema } from '../schema.ts';
import { badRequest } from '../statuses.ts';
import { isObject } from './merge-patch.ts';

type Json = Record<string, unknown>;

const DELETE_FROM = '$deleteFromPrimitiveList/';
const ORDER = '$setElementOrder/';

/** Applies to a copy. Throws a 400 for directives that make no sense. */
export function applyStrategicMergePatch(target: unknown, patch: unknown, schema: Schema): unknown {
  if (!isObject(patch)) throw badRequest('a strategic merge patch is an object');
  return mergeObject(isObject(target) ? target : {}, patch, schema);
}

function mergeObject(target: Json, patch: Json, schema: Schema | undefined): Json {
  const { $patch: directive } = patch;
  if (directive === 'replace') return bare(patch);
  if (directive === 'delete') return {};
  if (directive !== undefined && directive !== 'merge')
    throw badRequest(`unknown $patch directive ${JSON.stringify(directive)}`);
  let result: Json = { ...target };
  if (patch.$retainKeys !== undefined) {
    if (!Array.isArray(patch.$retainKeys)) throw badRequest('$retainKeys must be a list of field names');
    const keep = new Set<unknown>(patch.$retainKeys);
    result = Object.fromEntries(Object.entries(result).filter(([key]) => keep.has(key)));
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith('$')) continue;
    const field = fieldOf(schema, key);
    const current = Object.hasOwn(result, key) ? result[key] : undefined;
    if (value === null) delete result[key];
    else if (isObject(value)) result[key] = mergeObject(isObject(current) ? current : {}, value, field);
    else if (Array.isArray(value) && field?.mergeKey !== undefined)
      result[key] = mergeList(Array.isArray(current) ? current : [], value, field, key);
    else result[key] = structuredClone(value);
  }
  for (const [key, value] of Object.entries(patch)) {
    if (key.startsWith(DELETE_FROM)) deleteScalars(result, key.slice(DELETE_FROM.length), value);
    else if (key.startsWith(ORDER)) reorder(result, key.slice(ORDER.length), value, schema);
  }
  return result;
}

function fieldOf(schema: Schema | undefined, key: string): Schema | undefined {
  if (schema?.additionalProperties) return schema.additionalProperties;
  return schema?.properties && Object.hasOwn(schema.properties, key) ? schema.properties[key] : undefined;
}

/** Without directives, at any depth: what is left when there is nothing to merge with. */
function bare(value: Json): Json {
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key, v]) => !key.startsWith('$') && v !== null)
      .map(([key, v]) => [key, isObject(v) ? bare(v) : structuredClone(v)]),
  );
}

function mergeList(target: unknown[], patch: unknown[], schema: Schema, field: string): unknown[] {
  const mergeKey = schema.mergeKey as string;
  if (mergeKey === '') return [...new Set([...target, ...patch])];
  let result = [...target];
  for (const entry of patch) {
    if (!isObject(entry)) throw badRequest(`entries of ${field} must be objects`);
    if (entry.$patch === 'replace')
      return patch.filter((e) => isObject(e) && e.$patch === undefined).map((e) => bare(e as Json));
  }
  for (const entry of patch as Json[]) {
    const id = entry[mergeKey];
    if (id === undefined)
      throw badRequest(`entry of ${field} does not contain declared merge key: ${mergeKey}`);
    const same = (other: unknown): boolean => isObject(other) && other[mergeKey] === id;
    if (entry.$patch === 'delete') {
      result = result.filter((other) => !same(other));
      continue;
    }
    const at = result.findIndex(same);
    if (at < 0) result.push(mergeObject({}, entry, schema.items));
    else result[at] = mergeObject(result[at] as Json, entry, schema.items);
  }
  return result;
}

function deleteScalars(result: Json, field: string, values: unknown): void {
  if (!Array.isArray(values)) throw badRequest(`${DELETE_FROM}${field} must be a list`);
  const current = Object.hasOwn(result, field) ? result[field] : undefined;
  if (Array.isArray(current)) result[field] = current.filter((item) => !values.includes(item));
}

/** Entries that the patch orders stand in its order; the others keep their place relative to those before them. */
function reorder(result: Json, field: string, order: unknown, schema: Schema | undefined): void {
  if (!Array.isArray(order)) throw badRequest(`${ORDER}${field} must be a list`);
  const current = Object.hasOwn(result, field) ? result[field] : undefined;
  const mergeKey = fieldOf(schema, field)?.mergeKey;
  if (!Array.isArray(current) || mergeKey === undefined) return;
  const idOf = (entry: unknown): unknown => (mergeKey === '' || !isObject(entry) ? entry : entry[mergeKey]);
  const places = new Map(order.map((entry, i) => [idOf(entry), i]));
  const ordered = current.filter((e) => places.has(idOf(e)));
  ordered.sort((a, b) => (places.get(idOf(a)) as number) - (places.get(idOf(b)) as number));
  let next = 0;
  result[field] = current.map((entry) => (places.has(idOf(entry)) ? ordered[next++] : entry));
}
