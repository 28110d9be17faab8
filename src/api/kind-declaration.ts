/**
 * What the API server must know of a kind. A new kind is one such value in kinds.ts; everything else (paths, discovery,
 * OpenAPI, validation, patches, tables, watches) follows from it.
 */
import type { FieldProblem } from './decode.ts';
import type { ProtoMessage } from './protobuf.ts';
import type { Schema } from './schema.ts';
import type { KubeObject } from './types.ts';

/** A column of `kubectl get`. */
export interface Column<T extends KubeObject = KubeObject> {
  name: string;
  type: 'string' | 'integer' | 'date';
  format?: string;
  description: string;
  /** 0: always shown; 1: with -o wide. */
  priority: 0 | 1;
  /** `now` in milliseconds since the epoch. */
  value(object: T, now: number): string | number;
}

export interface KindDeclaration<T extends KubeObject = KubeObject> {
  /** '' for core. */
  group: string;
  version: string;
  kind: string;
  plural: string;
  singular: string;
  shortNames: string[];
  categories: string[];
  namespaced: boolean;
  /** Folder under /registry/ that Kubernetes itself uses in etcd. */
  storage: string;
  schema: Schema;
  /** Field numbers, if requests in protobuf are understood. */
  protobuf?: ProtoMessage;
  /** Whether `status` is written through its own subresource. */
  statusSubresource: boolean;
  /** Whether a status given at creation is kept (nodes register themselves with one). */
  keepsStatusOnCreate?: boolean;
  /** Objects are removed when they have not changed for so long. */
  ttlSeconds?: number;
  columns: Column<T>[];
  /** Further labels of field selectors, besides metadata.name and metadata.namespace. */
  fieldLabels: Record<string, (object: T) => string>;
  /** What is wrong with a name. */
  nameProblem(name: string): string | undefined;
  /** Defaults that depend on other fields; after those of the schema. May change the object. */
  applyDefaults?(object: T): void;
  /** What the server sets on a new object. May change the object. */
  prepareCreate?(object: T): void;
  validate?(object: T): FieldProblem[];
  /** Rules that need the object as it was; after {@link validate}. */
  validateUpdate?(next: T, old: T): FieldProblem[];
  /**
   * Seconds between a deletion and the removal of the object; 0 removes at once. `requested` is the caller's wish.
   * Absent: always 0.
   */
  gracePeriodSeconds?(object: T, requested: number | undefined): number;
}

export const apiVersionOf = (kind: { group: string; version: string }): string =>
  kind.group ? `${kind.group}/${kind.version}` : kind.version;
