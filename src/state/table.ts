/**
 * Tables: rows by key, with change sets. They are where features meet: whoever learns something writes rows, whoever
 * needs it reads or subscribes.
 *
 * Changes made within one turn of the event loop reach a subscriber as one batch, coalesced per key, after the turn
 * that made them: a subscriber never runs inside the writer's stack and never sees half of a multi-row change.
 */
export interface Change<T> {
  key: string;
  /** Row before, as the subscriber last saw it; absent when new. */
  old?: T;
  /** Row now; absent when deleted. */
  new?: T;
}

export interface ReadTable<T> {
  readonly name: string;
  readonly size: number;
  /** Grows with every effective change. */
  readonly revision: number;
  get(key: string): T | undefined;
  has(key: string): boolean;
  values(): IterableIterator<T>;
  keys(): IterableIterator<string>;
  /** Batches of changes from now on; with `initial`, the first batch holds the rows that are there. Closing is idempotent. */
  subscribe(listener: (changes: Change<T>[]) => void, options?: { initial?: boolean }): Disposable;
}
