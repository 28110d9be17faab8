/** From what a client sent to an object of a kind: type check, strictness, defaults, namespace and name. */
import { type Decoded, decode, type FieldProblem } from '../api/decode.ts';
import { apiVersionOf, type KindDeclaration } from '../api/kind-declaration.ts';
import { badRequest } from '../api/statuses.ts';
import type { KubeObject } from '../api/types.ts';

/** https://kubernetes.io/docs/reference/using-api/api-concepts/#setting-the-field-validation-level */
export type FieldValidation = 'Strict' | 'Warn' | 'Ignore';

export interface Input {
  object: KubeObject;
  /** What the schema found; joined with the kind's own findings later. */
  problems: FieldProblem[];
}

/** Unknown fields are refused, warned of or dropped in silence; they are never stored. */
export function readObject(
  kind: KindDeclaration,
  value: unknown,
  validation: FieldValidation,
  warn: (text: string) => void,
): Input {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw badRequest('the body is not an object');
  const { apiVersion, kind: kindName } = value as { apiVersion?: unknown; kind?: unknown };
  if (kindName !== undefined && kindName !== kind.kind)
    throw badRequest(`${kind.kind} expected, but the object is of kind ${JSON.stringify(kindName)}`);
  if (apiVersion !== undefined && apiVersion !== apiVersionOf(kind))
    throw badRequest(
      `the API version in the data (${String(apiVersion)}) does not match the expected API version (${apiVersionOf(kind)})`,
    );
  const decoded = decode(kind.schema, value);
  const where = `${kind.kind} in version "${kind.version}" cannot be handled as a ${kind.kind}`;
  if (decoded.typeErrors.length > 0)
    throw badRequest(`${where}: ${decoded.typeErrors.slice(0, 10).join(', ')}`);
  reportUnknown(decoded, validation, where, warn);
  const object = decoded.value as KubeObject;
  object.apiVersion = apiVersionOf(kind);
  object.kind = kind.kind;
  object.metadata ??= { name: '' };
  kind.applyDefaults?.(object);
  return { object, problems: decoded.problems };
}

function reportUnknown(
  decoded: Decoded,
  validation: FieldValidation,
  where: string,
  warn: (text: string) => void,
): void {
  if (decoded.unknown.length === 0 || validation === 'Ignore') return;
  const texts = decoded.unknown.slice(0, 10).map((field) => `unknown field "${field}"`);
  if (validation === 'Strict') throw badRequest(`${where}: strict decoding error: ${texts.join(', ')}`);
  for (const text of texts) warn(text);
}

export function parseFieldValidation(value: string | null): FieldValidation {
  if (value === null || value === '') return 'Warn';
  if (value === 'Strict' || value === 'Warn' || value === 'Ignore') return value;
  throw badRequest(
    `fieldValidation: Unsupported value: ${JSON.stringify(value)}: supported values: "Ignore", "Warn", "Strict"`,
  );
}
