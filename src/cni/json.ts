/** Reading untrusted JSON by hand: each accessor names the key it refuses. */
import { CNI_CODE, CniError } from './errors.ts';

export type JsonObject = Record<string, unknown>;

export const refuse = (key: string, what: string): CniError =>
  new CniError(CNI_CODE.invalidConfig, `${key} ${what}`);

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** An absent or null field is `undefined`: Go's encoders write null for empty lists and maps. */
export function field(object: JsonObject, key: string): unknown {
  return Object.hasOwn(object, key) ? (object[key] ?? undefined) : undefined;
}

/** A field whose key may be spelt in any case: runtimes differ, and Go's decoder does not care. */
export function fieldAnyCase(object: JsonObject, key: string): unknown {
  const exact = field(object, key);
  if (exact !== undefined) return exact;
  const lower = key.toLowerCase();
  for (const name of Object.keys(object)) if (name.toLowerCase() === lower) return object[name] ?? undefined;
  return undefined;
}

export function objectOr(value: unknown, key: string): JsonObject | undefined {
  if (value === undefined) return undefined;
  if (!isObject(value)) throw refuse(key, 'must be an object');
  return value;
}

export function textOr(value: unknown, key: string): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'string') throw refuse(key, 'must be a text');
  return value;
}

export function intOr(value: unknown, key: string, min = 0, max = 0xffff_ffff): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < min || value > max) {
    throw refuse(key, `must be a whole number from ${min} to ${max}`);
  }
  return value;
}

export function listOr(value: unknown, key: string): unknown[] | undefined {
  if (value === undefined) return undefined;
  if (!Array.isArray(value)) throw refuse(key, 'must be a list');
  return value;
}

export function textsOr(value: unknown, key: string): string[] | undefined {
  return listOr(value, key)?.map((item, i) => textOr(item ?? undefined, `${key}[${i}]`) ?? '');
}
