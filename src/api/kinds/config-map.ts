/** core/v1 ConfigMap. */
import { isDeepStrictEqual } from 'node:util';
import { type FieldProblem, forbidden, invalid } from '../decode.ts';
import { ageOf } from '../duration.ts';
import type { KindDeclaration } from '../kind-declaration.ts';
import { subdomainNameProblem } from '../names.ts';
import { CONFIG_MAP_PROTO } from '../protobuf.ts';
import { configMapSchema } from '../schemas/others.ts';
import type { ConfigMap } from '../types.ts';

const KEY = /^[-._a-zA-Z0-9]+$/;
/** Bytes of all values together. */
const MAX_BYTES = 1024 * 1024;

function validate(configMap: ConfigMap): FieldProblem[] {
  const problems: FieldProblem[] = [];
  let size = 0;
  for (const field of ['data', 'binaryData'] as const)
    for (const [key, value] of Object.entries(configMap[field] ?? {})) {
      if (!KEY.test(key) || key.length > 253 || key === '.' || key.startsWith('..'))
        problems.push(
          invalid(
            `${field}[${key}]`,
            key,
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
          ),
        );
      if (field === 'binaryData' && Object.hasOwn(configMap.data ?? {}, key))
        problems.push(invalid(`data[${key}]`, key, 'duplicate of key present in binaryData'));
      size += value.length;
    }
  if (size > MAX_BYTES)
    problems.push({
      field: '',
      reason: 'FieldValueTooLong',
      message: `Too long: may not be more than ${MAX_BYTES} bytes`,
    });
  return problems;
}

function validateUpdate(next: ConfigMap, old: ConfigMap): FieldProblem[] {
  if (!old.immutable) return [];
  const problems: FieldProblem[] = [];
  if (!next.immutable) problems.push(forbidden('immutable', 'field is immutable when `immutable` is set'));
  for (const field of ['data', 'binaryData'] as const)
    if (!isDeepStrictEqual(next[field] ?? {}, old[field] ?? {}))
      problems.push(forbidden(field, 'field is immutable when `immutable` is set'));
  return problems;
}

export const configMapKind: KindDeclaration<ConfigMap> = {
  group: '',
  version: 'v1',
  kind: 'ConfigMap',
  plural: 'configmaps',
  singular: 'configmap',
  shortNames: ['cm'],
  categories: [],
  namespaced: true,
  storage: 'configmaps',
  schema: configMapSchema,
  protobuf: CONFIG_MAP_PROTO,
  statusSubresource: false,
  columns: [
    {
      name: 'Name',
      type: 'string',
      format: 'name',
      description: 'Name of the ConfigMap.',
      priority: 0,
      value: (c) => c.metadata.name,
    },
    {
      name: 'Data',
      type: 'string',
      description: 'Number of keys.',
      priority: 0,
      value: (c) => Object.keys(c.data ?? {}).length + Object.keys(c.binaryData ?? {}).length,
    },
    {
      name: 'Age',
      type: 'string',
      description: 'Time since creation.',
      priority: 0,
      value: (c, now) => ageOf(c.metadata.creationTimestamp, now),
    },
  ],
  fieldLabels: {},
  nameProblem: subdomainNameProblem,
  validate,
  validateUpdate,
};
