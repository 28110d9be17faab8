/**
 * Checks a JSON value against a structural schema in one walk: fills defaults, drops what the schema does not know and
 * says what that was, and collects what is wrong. The input is not changed.
 */
import type { Schema } from './schema.ts';

/** One thing wrong with one field, in Kubernetes' words (field.Error of apimachinery). */
export interface FieldProblem {
  /** `spec.containers[0].name` */
  field: string;
  reason:
    | 'FieldValueRequired'
    | 'FieldValueInvalid'
    | 'FieldValueNotSupported'
    | 'FieldValueForbidden'
    | 'FieldValueDuplicate'
    | 'FieldValueTypeInvalid'
    | 'FieldValueTooLong';
  message: string;
}

export interface Decoded {
  value: unknown;
  /** Paths of fields that the schema does not know. */
  unknown: string[];
  /** Values of the wrong JSON type: the object cannot be read at all. */
  typeErrors: string[];
  problems: FieldProblem[];
}

export const required = (field: string, detail = ''): FieldProblem => ({
  field,
  reason: 'FieldValueRequired',
  message: detail ? `Required value: ${detail}` : 'Required value',
});
export const invalid = (field: string, value: unknown, detail: string): FieldProblem => ({
  field,
  reason: 'FieldValueInvalid',
  message: `Invalid value: ${brief(value)}: ${detail}`,
});
export const forbidden = (field: string, detail: string): FieldProblem => ({
  field,
  reason: 'FieldValueForbidden',
  message: `Forbidden: ${detail}`,
});
export const duplicate = (field: string, value: unknown): FieldProblem => ({
  field,
  reason: 'FieldValueDuplicate',
  message: `Duplicate value: ${brief(value)}`,
});

/** A value as messages show it: JSON, cut to 200 characters. */
export function brief(value: unknown): string {
  const text = JSON.stringify(value) ?? 'null';
  return text.length > 200 ? `${text.slice(0, 200)}…` : text;
}

export function decode(schema: Schema, value: unknown): Decoded {
  const out: Decoded = { value: undefined, unknown: [], typeErrors: [], problems: [] };
  out.value = walk(schema, value, '', out);
  return out;
}

const QUANTITY = /^[+-]?(\d+(\.\d*)?|\.\d+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?\d+)?$/;
const RFC3339 = /^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

function walk(schema: Schema, value: unknown, path: string, out: Decoded): unknown {
  if (schema.intOrString) {
    if (typeof value !== 'string' && typeof value !== 'number')
      return mistyped('string or number', value, path, out);
    if (schema.format === 'quantity' && !QUANTITY.test(String(value)))
      out.problems.push(
        invalid(path, value, 'quantities must match a number and an optional suffix such as m, Ki or M'),
      );
    return schema.format === 'quantity' ? String(value) : value;
  }
  switch (schema.type) {
    case 'object':
      return walkObject(schema, value, path, out);
    case 'array':
      if (!Array.isArray(value)) return mistyped('array', value, path, out);
      return schema.items
        ? value.map((item, i) =>
            // null in a list of objects is an empty object to Kubernetes' decoders.
            walk(
              schema.items as Schema,
              item === null && schema.items?.type === 'object' ? {} : item,
              `${path}[${i}]`,
              out,
            ),
          )
        : value;
    case 'string':
      return typeof value === 'string'
        ? checkText(schema, value, path, out)
        : mistyped('string', value, path, out);
    case 'integer':
      if (typeof value !== 'number' || !Number.isInteger(value)) return mistyped('integer', value, path, out);
      return checkNumber(schema, value, path, out);
    case 'number':
      return typeof value === 'number'
        ? checkNumber(schema, value, path, out)
        : mistyped('number', value, path, out);
    case 'boolean':
      return typeof value === 'boolean' ? value : mistyped('boolean', value, path, out);
    default:
      return value;
  }
}

function walkObject(schema: Schema, value: unknown, path: string, out: Decoded): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return mistyped('object', value, path, out);
  if (schema.open) return value;
  const result: Record<string, unknown> = {};
  if (schema.additionalProperties) {
    for (const [key, item] of Object.entries(value)) {
      if (item === null && schema.additionalProperties.type === 'string') result[key] = '';
      else result[key] = walk(schema.additionalProperties, item, `${path}[${key}]`, out);
    }
    return result;
  }
  const properties = schema.properties ?? {};
  for (const [key, item] of Object.entries(value)) {
    const inner = Object.hasOwn(properties, key) ? properties[key] : undefined;
    const at = path === '' ? key : `${path}.${key}`;
    if (!inner) out.unknown.push(at);
    // null means absent, as in Go's decoders.
    else if (item !== null) result[key] = walk(inner, item, at, out);
  }
  for (const [key, inner] of Object.entries(properties))
    if (inner.default !== undefined && !Object.hasOwn(result, key))
      result[key] = structuredClone(inner.default);
  for (const key of schema.required ?? []) {
    const found = result[key];
    if (found === undefined || (found === '' && !properties[key]?.enum))
      out.problems.push(required(path === '' ? key : `${path}.${key}`));
  }
  return result;
}

function checkText(schema: Schema, value: string, path: string, out: Decoded): string {
  if (schema.enum && !schema.enum.includes(value) && value !== '')
    out.problems.push({
      field: path,
      reason: 'FieldValueNotSupported',
      message: `Unsupported value: ${brief(value)}: supported values: ${schema.enum.map((v) => `"${v}"`).join(', ')}`,
    });
  if (schema.maxLength !== undefined && value.length > schema.maxLength)
    out.problems.push({
      field: path,
      reason: 'FieldValueTooLong',
      message: `Too long: may not be more than ${schema.maxLength} bytes`,
    });
  if (schema.pattern && !schema.pattern.test(value))
    out.problems.push(invalid(path, value, `must match ${schema.pattern.source}`));
  const timed = schema.format === 'date-time' || schema.format === 'micro-time';
  if (timed && (!RFC3339.test(value) || Number.isNaN(Date.parse(value))))
    out.typeErrors.push(`${path}: ${brief(value)} is not an RFC 3339 time`);
  if (schema.format === 'byte' && !BASE64.test(value)) out.typeErrors.push(`${path}: illegal base64 data`);
  return value;
}

function checkNumber(schema: Schema, value: number, path: string, out: Decoded): number {
  if (schema.format === 'int32' && (value < -(2 ** 31) || value >= 2 ** 31))
    out.typeErrors.push(`${path}: ${value} does not fit a 32-bit integer`);
  if (schema.minimum !== undefined && schema.maximum !== undefined) {
    if (value < schema.minimum || value > schema.maximum)
      out.problems.push(
        invalid(path, value, `must be between ${schema.minimum} and ${schema.maximum}, inclusive`),
      );
  } else if (schema.minimum !== undefined && value < schema.minimum)
    out.problems.push(invalid(path, value, `must be greater than or equal to ${schema.minimum}`));
  return value;
}

function mistyped(wanted: string, value: unknown, path: string, out: Decoded): undefined {
  const found = value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;
  out.typeErrors.push(`${path || 'body'}: cannot read ${found} as ${wanted}`);
  return undefined;
}
