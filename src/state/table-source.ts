/**
 * Where a part gets tables of API objects from, without knowing how they are filled. `src/informers` implements it by
 * list and watch (one reflector per table); tests fill MemoryTables by hand.
 */
import type { Resource } from '../api/client.ts';
import type { KubeObject } from '../api/types.ts';
import type { IndexedTable } from './memory-table.ts';

/** A row that carries its key, which is `objectKey` of its object. */
export interface KeyedRow {
  readonly key: string;
}

export interface TableRequest<T extends KubeObject, R extends KeyedRow> {
  resource: Resource<T>;
  namespace?: string;
  labelSelector?: string;
  fieldSelector?: string;
  /**
   * What of an object is worth keeping; undefined: nothing. Only the row is kept: the memory of a table is its rows
   * times their size.
   */
  map: (object: T) => R | undefined;
}

export interface SourcedTable<R> {
  readonly table: IndexedTable<R>;
  /** Resolves once the table held everything that the server had; rejects if closed before. */
  readonly synced: Promise<void>;
  /** Whether what the table says is current as far as we know: synced, and the last exchange did not fail. */
  readonly connected: boolean;
  close(): Promise<void>;
}

export interface TableSource {
  open<T extends KubeObject, R extends KeyedRow>(request: TableRequest<T, R>): SourcedTable<R>;
}
