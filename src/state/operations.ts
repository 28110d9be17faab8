/**
 * What the reconciler needs of a target (a kernel, a server): the interface that datapaths implement.
 *
 * All three are idempotent: updating what is already so, or deleting what does not exist, is no error. None of them is
 * called while another one of the same target runs, except `update` with `update` and `delete` with `delete` of other
 * rows, up to the reconciler's `concurrency`.
 */
export interface Operations<T> {
  /** Make the target hold each row, creating or replacing. One outcome per row, in order. */
  update(rows: T[]): Promise<Outcome[]>;
  /**
   * Remove each row: whatever the target holds under its key, which may be of an older version than the row given. One
   * outcome per row, in order.
   */
  delete(rows: T[]): Promise<Outcome[]>;
  /**
   * The full comparison: make the target hold exactly `desired`, creating what is missing, replacing what differs and
   * removing what is ours but not desired. Changes nothing that is right already. Throws if it could not look at all;
   * single failures go into the report.
   */
  prune(desired: ReadonlyMap<string, T>): Promise<PruneReport>;
}

/** Empty: done. */
export interface Outcome {
  error?: unknown;
}

export const DONE: Outcome = Object.freeze({});

export interface PruneReport {
  /** What was not as desired, and was put right. Empty if nothing was. */
  changes: PruneChange[];
  /** What could not be put right. */
  errors: Array<{ key: string; error: unknown }>;
}

export interface PruneChange {
  /** Key of the desired row, or a description of the stray object. */
  key: string;
  action: 'created' | 'replaced' | 'removed';
  /** For people: what was found instead. */
  detail?: string;
}

/** Status of one desired object, or of one that is being deleted. */
export interface ObjectStatus {
  key: string;
  state: 'pending' | 'done' | 'error';
  /** The row is no longer desired, and not yet gone from the target. */
  deleting?: true;
  /** Milliseconds since the epoch: when it came into this state. */
  since: number;
  /** Failed attempts in a row. */
  attempts: number;
  /** The last failure. `code` is a WeftError's, or WEFT_INTERNAL. */
  error?: { code: string; message: string };
}
