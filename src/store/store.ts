/**
 * The contract of a revisioned key-value store with watch: etcd's model, in the form that an embedded file and etcd can
 * both serve. One global revision grows by one with each write; every version is kept until compacted.
 *
 * Failures are WeftErrors: `WEFT_STORE_COMPACTED` for a revision that is no longer remembered, `WEFT_STORE_FUTURE` for
 * one that has not been reached, `WEFT_STORE_CLOSED`, and `WEFT_STORE_FAILED` when the medium refuses.
 */

/** A key as it was at a revision. */
export interface StoreEntry {
  readonly key: string;
  readonly value: string;
  /** Revision of the write that made the key. */
  readonly createRevision: number;
  /** Revision of the write that gave it this value. */
  readonly revision: number;
}

export interface StoreEvent {
  readonly type: 'put' | 'delete';
  readonly key: string;
  readonly revision: number;
  /** Absent in a deletion. */
  readonly entry?: StoreEntry;
  /** What was there before; absent when the key is new. */
  readonly previous?: StoreEntry;
}

/**
 * Outcome of a conditional write. A refusal tells what is there now (undefined: no such key), so that the caller need
 * not read again.
 */
export type WriteResult =
  | { readonly ok: true; readonly revision: number; readonly entry: StoreEntry }
  | { readonly ok: false; readonly current: StoreEntry | undefined };

export interface ListResult {
  /** The revision that the entries are of: watch from here to miss nothing. */
  readonly revision: number;
  readonly entries: StoreEntry[];
  /** Keys beyond the limit; 0 when all were given. */
  readonly remaining: number;
}

export interface StoreWatch {
  /** Every event up to this revision has been delivered. */
  readonly revision: number;
  /** Idempotent; nothing is delivered after it returns. */
  close(): void;
}

export interface Store {
  /** The newest revision that this process knows; 1 when nothing was ever written. */
  readonly revision: number;
  /** Revisions below this one are forgotten. */
  readonly compactedRevision: number;
  get(key: string): Promise<StoreEntry | undefined>;
  /** Keys that begin with `prefix`, in order of their code units; `after` (exclusive) and `limit` for pages. */
  list(prefix: string, options?: { revision?: number; after?: string; limit?: number }): Promise<ListResult>;
  /** Refused when the key exists. */
  create(key: string, value: string): Promise<WriteResult>;
  /** Refused unless the key's newest revision is `expected`. */
  update(key: string, value: string, expected: number): Promise<WriteResult>;
  /** As {@link update}; the result's entry is what was deleted, its revision that of the deletion. */
  delete(key: string, expected: number): Promise<WriteResult>;
  /**
   * Every change of keys under `prefix` with a revision greater than `after`, oldest first, without gaps; those already
   * made come in the first batches. All watchers are given the same event objects, so that encodings can be memoised by
   * identity. The listener must not throw. Rejects with WEFT_STORE_COMPACTED if `after` is too old. Without `after`:
   * from now on.
   */
  watch(
    prefix: string,
    options: { after?: number },
    listener: (events: readonly StoreEvent[]) => void,
  ): Promise<StoreWatch>;
  /** Forget what no revision ≥ `revision` needs. */
  compact(revision: number): Promise<void>;
  /** Settles every write that was accepted, then releases the medium. Idempotent. */
  close(): Promise<void>;
}
