/** RFC 6902 JSON Patch on RFC 6901 pointers. */
import { isDeepStrictEqual } from 'node:util';
import { badRequest } from '../statuses.ts';

/** Operations one patch may hold; kube-apiserver's limit. */
const MAX_OPERATIONS = 10_000;

type Container = Record<string, unknown> | unknown[];

/** Applies to a copy. Throws a 400 for a malformed patch or one that does not fit. */
export function applyJsonPatch(target: unknown, patch: unknown): unknown {
  if (!Array.isArray(patch)) throw badRequest('a JSON patch is an array of operations');
  if (patch.length > MAX_OPERATIONS)
    throw badRequest(
      `The allowed maximum operations in a JSON patch is ${MAX_OPERATIONS}, got ${patch.length}`,
    );
  const root = { document: structuredClone(target) };
  for (const operation of patch) applyOne(root, operation);
  return root.document;
}

function applyOne(root: { document: unknown }, operation: unknown): void {
  if (typeof operation !== 'object' || operation === null)
    throw badRequest('a JSON patch operation is an object');
  const { op, path, from, value } = operation as {
    op?: unknown;
    path?: unknown;
    from?: unknown;
    value?: unknown;
  };
  const pointer = parsePointer(path, 'path');
  const hasValue = Object.hasOwn(operation, 'value');
  switch (op) {
    case 'add':
    case 'replace':
    case 'test':
      if (!hasValue) throw badRequest(`JSON patch ${op} needs a value`);
      if (op === 'test') {
        if (!isDeepStrictEqual(read(root, pointer), value)) throw badRequest(`testing value ${path} failed`);
      } else write(root, pointer, structuredClone(value), op === 'add');
      return;
    case 'remove':
      remove(root, pointer);
      return;
    case 'move':
    case 'copy': {
      const source = parsePointer(from, 'from');
      if (op === 'move' && source.length < pointer.length && source.every((s, i) => s === pointer[i]))
        throw badRequest('JSON patch cannot move a value into itself');
      const moved = structuredClone(read(root, source));
      if (op === 'move') remove(root, source);
      write(root, pointer, moved, true);
      return;
    }
    default:
      throw badRequest(`unknown JSON patch operation ${JSON.stringify(op)}`);
  }
}

function parsePointer(path: unknown, field: string): string[] {
  if (typeof path !== 'string' || (path !== '' && !path.startsWith('/')))
    throw badRequest(`JSON patch ${field} must be a pointer such as /metadata/labels/a`);
  const parts = path
    .split('/')
    .slice(1)
    .map((part) => part.replace(/~1/g, '/').replace(/~0/g, '~'));
  if (parts.includes('__proto__')) throw badRequest(`JSON patch ${field} ${path} is not allowed`);
  return parts;
}

const isContainer = (value: unknown): value is Container => typeof value === 'object' && value !== null;
const missing = (key: string) => badRequest(`JSON patch path does not exist: ${JSON.stringify(key)}`);

function child(parent: unknown, key: string): unknown {
  if (!isContainer(parent)) throw missing(key);
  if (Array.isArray(parent)) return parent[index(parent, key, parent.length - 1)];
  if (!Object.hasOwn(parent, key)) throw missing(key);
  return parent[key];
}

/** An array index without leading zeros, at most `max`. */
function index(array: unknown[], key: string, max: number): number {
  if (!/^(0|[1-9]\d{0,9})$/.test(key) || Number(key) > max)
    throw badRequest(
      `JSON patch index ${JSON.stringify(key)} is out of the bounds of an array of ${array.length}`,
    );
  return Number(key);
}

function read(root: { document: unknown }, pointer: string[]): unknown {
  return pointer.reduce((at, key) => child(at, key), root.document);
}

function write(root: { document: unknown }, pointer: string[], value: unknown, adding: boolean): void {
  const key = pointer.at(-1);
  if (key === undefined) {
    root.document = value;
    return;
  }
  const parent = read(root, pointer.slice(0, -1));
  if (!isContainer(parent)) throw missing(key);
  if (Array.isArray(parent)) {
    if (!adding) parent[index(parent, key, parent.length - 1)] = value;
    else parent.splice(key === '-' ? parent.length : index(parent, key, parent.length), 0, value);
    return;
  }
  if (!adding && !Object.hasOwn(parent, key)) throw missing(key);
  parent[key] = value;
}

function remove(root: { document: unknown }, pointer: string[]): void {
  const key = pointer.at(-1);
  if (key === undefined) throw badRequest('JSON patch cannot remove the whole document');
  const parent = read(root, pointer.slice(0, -1));
  child(parent, key);
  if (Array.isArray(parent)) parent.splice(Number(key), 1);
  else delete (parent as Record<string, unknown>)[key];
}
