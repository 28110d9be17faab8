/**
 * The embedded store: one SQLite file, one process.
 *
 * Durability: WAL with synchronous=FULL, so a commit returns after fsync, and a write is acknowledged after its commit.
 * Writes that arrive within one turn of the event loop share one commit (group commit); each is still compared and
 * applied by itself, in order of arrival, and has a revision of its own.
 *
 * `log` holds every version under its revision and is the history that watches resume from; `live` maps a key to its
 * newest version; `superseded` links a version to the one it replaced, which makes compaction proportional to what it
 * forgets.
 */
import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { messageOf, WeftError } from '../base/errors.ts';
import type { ListResult, Store, StoreEntry, StoreEvent, StoreWatch, WriteResult } from './store.ts';

export interface SqliteStoreOptions {
  /** Made if absent, mode 0600. ':memory:' for tests. */
  path: string;
  /** Versions kept for watches to resume from; older ones are compacted away. Default 10,000. */
  historyLimit?: number;
}

/** 'weft' in ASCII: tells our files from other SQLite files. */
const APPLICATION_ID = 0x77656674;
const SCHEMA_VERSION = 1;
/** Files up to this size are checked in full at every start (~1 ms per MB). */
const QUICK_CHECK_BYTES = 16 * 1024 * 1024;

const SCHEMA = `
CREATE TABLE log (
  revision INTEGER PRIMARY KEY,
  key TEXT NOT NULL,
  created INTEGER NOT NULL,
  superseded INTEGER,
  value TEXT
);
CREATE INDEX log_key ON log (key, revision);
CREATE TABLE live (key TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 1), ('compacted', 1);
PRAGMA application_id = ${APPLICATION_ID};
PRAGMA user_version = ${SCHEMA_VERSION};
`;

interface LogRow {
  revision: number;
  key: string;
  created: number;
  superseded: number | null;
  /** null: the key was deleted. */
  value: string | null;
}

interface PendingWrite {
  kind: 'create' | 'update' | 'delete';
  key: string;
  value: string;
  expected: number;
  resolve: (result: WriteResult) => void;
  reject: (error: unknown) => void;
}

interface Watcher {
  readonly listener: (events: readonly StoreEvent[]) => void;
  closed: boolean;
}

export function openSqliteStore(options: SqliteStoreOptions): Store {
  const memory = options.path === ':memory:';
  const fresh = memory || !existsSync(options.path);
  // SQLite makes its files by the umask; no await stands between setting and restoring it.
  const umask = process.umask(0o077);
  let db: DatabaseSync | undefined;
  try {
    if (!memory) mkdirSync(dirname(options.path), { recursive: true, mode: 0o700 });
    db = new DatabaseSync(options.path, { timeout: 0 });
    prepareDatabase(db, options.path, fresh);
    return new SqliteStore(db, options.historyLimit ?? 10_000);
  } catch (error) {
    if (db?.isOpen) db.close();
    throw describe(error, options.path);
  } finally {
    process.umask(umask);
  }
}

function prepareDatabase(db: DatabaseSync, path: string, fresh: boolean): void {
  // Exclusive: one process holds the file for as long as it lives (the kernel drops the lock even on kill -9), and
  // WAL needs no shared memory.
  db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
  db.exec('PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 1000;');
  const pragma = (name: string): number => Number(Object.values(db.prepare(`PRAGMA ${name}`).get() ?? {})[0]);
  db.exec('BEGIN EXCLUSIVE');
  try {
    const tables = Number((db.prepare('SELECT count(*) AS n FROM sqlite_schema').get() as { n: number }).n);
    if (tables === 0) db.exec(SCHEMA);
    else if (pragma('application_id') !== APPLICATION_ID)
      throw new WeftError('WEFT_STORE_CORRUPT', `${path} is a database of another program`);
    else if (pragma('user_version') !== SCHEMA_VERSION)
      throw new WeftError(
        'WEFT_STORE_VERSION',
        `${path} has store format ${pragma('user_version')}; this Weft knows ${SCHEMA_VERSION}`,
      );
    db.exec('COMMIT');
  } catch (error) {
    if (db.isTransaction) db.exec('ROLLBACK');
    throw error;
  }
  if (!fresh && pragma('page_count') * pragma('page_size') <= QUICK_CHECK_BYTES) {
    const found = Object.values(db.prepare('PRAGMA quick_check(1)').get() ?? {})[0];
    if (found !== 'ok') throw new WeftError('WEFT_STORE_CORRUPT', `${path} is damaged: ${String(found)}`);
  }
}

/** SQLite's result codes (https://sqlite.org/rescode.html) as coded errors. */
function describe(error: unknown, path: string): WeftError {
  if (error instanceof WeftError) return error;
  const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
  const options = { cause: error, details: { path, sqlite: code } };
  if (code === 5 || code === 6)
    return new WeftError('WEFT_STORE_LOCKED', `${path} is in use by another process`, options);
  if (code === 11 || code === 26)
    return new WeftError('WEFT_STORE_CORRUPT', `${path} is damaged: ${messageOf(error)}`, options);
  return new WeftError('WEFT_STORE_FAILED', `${path}: ${messageOf(error)}`, options);
}

class SqliteStore implements Store {
  readonly #db: DatabaseSync;
  readonly #path: string;
  readonly #historyLimit: number;
  #revision: number;
  #compacted: number;
  #pending: PendingWrite[] = [];
  #flushScheduled = false;
  #closed = false;
  readonly #watchers = new Map<string, Set<Watcher>>();
  readonly #statements = new Map<string, StatementSync>();

  constructor(db: DatabaseSync, historyLimit: number) {
    this.#db = db;
    this.#path = db.location() ?? ':memory:';
    this.#historyLimit = historyLimit;
    const meta = new Map(
      (db.prepare('SELECT name, value FROM meta').all() as Array<{ name: string; value: number }>).map(
        (r) => [r.name, r.value],
      ),
    );
    const newest = db.prepare('SELECT max(revision) AS r FROM log').get() as { r: number | null };
    this.#compacted = meta.get('compacted') ?? 1;
    this.#revision = Math.max(meta.get('revision') ?? 1, newest.r ?? 1, this.#compacted);
  }

  get revision(): number {
    return this.#revision;
  }

  get compactedRevision(): number {
    return this.#compacted;
  }

  async get(key: string): Promise<StoreEntry | undefined> {
    return this.#guard(() => this.#live(key));
  }

  async list(
    prefix: string,
    options: { revision?: number; after?: string; limit?: number } = {},
  ): Promise<ListResult> {
    return this.#guard(() => {
      const limit = options.limit && options.limit > 0 ? options.limit : -1;
      const [from, to] = prefixRange(prefix);
      const after = options.after !== undefined && options.after >= from ? options.after : undefined;
      const lower = after === undefined ? 'key >= ?' : 'key > ?';
      const range = [after ?? from, to] as const;
      if (options.revision === undefined || options.revision === this.#revision) {
        const rows = this.#sql(
          `SELECT log.* FROM live JOIN log ON log.revision = live.revision
           WHERE live.${lower} AND live.key < ? ORDER BY live.key LIMIT ?`,
        ).all(...range, limit) as unknown as LogRow[];
        const remaining =
          limit < 0 || rows.length < limit
            ? 0
            : (
                this.#sql('SELECT count(*) AS n FROM live WHERE key > ? AND key < ?').get(
                  rows.at(-1)?.key ?? from,
                  to,
                ) as { n: number }
              ).n;
        return { revision: this.#revision, entries: rows.map(toEntry), remaining };
      }
      this.#checkRevision(options.revision);
      // The bare columns are those of the row that holds max(): https://sqlite.org/lang_select.html#bareagg
      const rows = this.#sql(
        `SELECT key, max(revision) AS revision, created, superseded, value FROM log
         WHERE ${lower} AND key < ? AND revision <= ? GROUP BY key HAVING value IS NOT NULL ORDER BY key LIMIT ?`,
      ).all(...range, options.revision, limit) as unknown as LogRow[];
      const remaining =
        limit < 0 || rows.length < limit
          ? 0
          : (
              this.#sql(
                `SELECT count(*) AS n FROM (SELECT max(revision), value FROM log
                 WHERE key > ? AND key < ? AND revision <= ? GROUP BY key HAVING value IS NOT NULL)`,
              ).get(rows.at(-1)?.key ?? from, to, options.revision) as { n: number }
            ).n;
      return { revision: options.revision, entries: rows.map(toEntry), remaining };
    });
  }

  create(key: string, value: string): Promise<WriteResult> {
    return this.#write('create', key, value, 0);
  }

  update(key: string, value: string, expected: number): Promise<WriteResult> {
    return this.#write('update', key, value, expected);
  }

  delete(key: string, expected: number): Promise<WriteResult> {
    return this.#write('delete', key, '', expected);
  }

  async watch(
    prefix: string,
    options: { after?: number },
    listener: (events: readonly StoreEvent[]) => void,
  ): Promise<StoreWatch> {
    return this.#guard(() => {
      if (options.after !== undefined) this.#checkRevision(options.after);
      const watcher: Watcher = { listener, closed: false };
      // Reading the history and joining the live watchers happen in one synchronous step: no gap, nothing twice.
      const past = options.after === undefined ? [] : this.#history(prefix, options.after);
      const group = this.#watchers.get(prefix) ?? new Set();
      this.#watchers.set(prefix, group.add(watcher));
      const store = this;
      if (past.length > 0) listener(past);
      return {
        get revision() {
          return store.#revision;
        },
        close() {
          watcher.closed = true;
          group.delete(watcher);
          if (group.size === 0 && store.#watchers.get(prefix) === group) store.#watchers.delete(prefix);
        },
      };
    });
  }

  async compact(revision: number): Promise<void> {
    this.#guard(() => this.#compact(Math.min(revision, this.#revision)));
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#flush();
    this.#closed = true;
    this.#watchers.clear();
    this.#statements.clear();
    this.#db.close();
  }

  #write(kind: PendingWrite['kind'], key: string, value: string, expected: number): Promise<WriteResult> {
    return new Promise((resolve, reject) => {
      if (this.#closed) {
        reject(new WeftError('WEFT_STORE_CLOSED', `write of ${key} after close`));
        return;
      }
      this.#pending.push({ kind, key, value, expected, resolve, reject });
      if (this.#flushScheduled) return;
      this.#flushScheduled = true;
      setImmediate(() => this.#flush());
    });
  }

  /** Apply and commit everything pending, acknowledge it, then tell the watchers. */
  #flush(): void {
    this.#flushScheduled = false;
    const batch = this.#pending;
    if (batch.length === 0) return;
    this.#pending = [];
    const before = this.#revision;
    const events: StoreEvent[] = [];
    const results: WriteResult[] = [];
    try {
      this.#db.exec('BEGIN IMMEDIATE');
      for (const write of batch) results.push(this.#apply(write, events));
      // Stored so that revisions never go back, even when the newest row is a deletion that compaction forgot.
      if (events.length > 0)
        this.#sql("UPDATE meta SET value = ? WHERE name = 'revision'").run(this.#revision);
      this.#db.exec('COMMIT');
    } catch (error) {
      this.#revision = before;
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      const failure = describe(error, this.#path);
      for (const write of batch) write.reject(failure);
      return;
    }
    for (const [i, write] of batch.entries()) write.resolve(results[i] as WriteResult);
    this.#dispatch(events);
    if (this.#revision - this.#compacted > this.#historyLimit * 1.25)
      this.#compact(this.#revision - this.#historyLimit);
  }

  #apply(write: PendingWrite, events: StoreEvent[]): WriteResult {
    const current = this.#live(write.key);
    const expected = write.kind === 'create' ? undefined : write.expected;
    if (current?.revision !== expected) return { ok: false, current };
    const revision = this.#revision + 1;
    const created = current?.createRevision ?? revision;
    const superseded = current?.revision ?? null;
    const insert = this.#sql(
      'INSERT INTO log (revision, key, created, superseded, value) VALUES (?, ?, ?, ?, ?)',
    );
    if (write.kind === 'delete') {
      insert.run(revision, write.key, created, superseded, null);
      this.#sql('DELETE FROM live WHERE key = ?').run(write.key);
      this.#revision = revision;
      const previous = current as StoreEntry;
      events.push({ type: 'delete', key: write.key, revision, previous });
      return { ok: true, revision, entry: previous };
    }
    insert.run(revision, write.key, created, superseded, write.value);
    this.#sql(
      'INSERT INTO live (key, revision) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET revision = excluded.revision',
    ).run(write.key, revision);
    this.#revision = revision;
    const entry: StoreEntry = { key: write.key, value: write.value, createRevision: created, revision };
    events.push({ type: 'put', key: write.key, revision, entry, ...(current && { previous: current }) });
    return { ok: true, revision, entry };
  }

  #dispatch(events: StoreEvent[]): void {
    if (events.length === 0) return;
    for (const [prefix, group] of this.#watchers) {
      const matching = events.filter((event) => event.key.startsWith(prefix));
      if (matching.length === 0) continue;
      for (const watcher of [...group]) if (!watcher.closed) watcher.listener(matching);
    }
  }

  /** The newest version of a key, if it exists. */
  #live(key: string): StoreEntry | undefined {
    const row = this.#sql(
      'SELECT log.* FROM live JOIN log ON log.revision = live.revision WHERE live.key = ?',
    ).get(key) as unknown as LogRow | undefined;
    return row && toEntry(row);
  }

  #history(prefix: string, after: number): StoreEvent[] {
    const rows = this.#sql(
      `SELECT log.revision, log.key, log.created, log.superseded, log.value, old.value AS oldValue,
              old.created AS oldCreated
       FROM log LEFT JOIN log AS old ON old.revision = log.superseded
       WHERE log.revision > ? AND log.key >= ? AND log.key < ? ORDER BY log.revision`,
    ).all(after, ...prefixRange(prefix)) as unknown as Array<
      LogRow & { oldValue: string | null; oldCreated: number | null }
    >;
    return rows.map((row) => {
      const previous: StoreEntry | undefined =
        row.superseded === null || row.oldValue === null
          ? undefined
          : {
              key: row.key,
              value: row.oldValue,
              createRevision: row.oldCreated ?? row.created,
              revision: row.superseded,
            };
      return {
        type: row.value === null ? 'delete' : 'put',
        key: row.key,
        revision: row.revision,
        ...(row.value !== null && { entry: toEntry(row) }),
        ...(previous && { previous }),
      };
    });
  }

  /** Versions replaced at or before `revision`, and deletions up to it, serve nobody any more. */
  #compact(revision: number): void {
    if (revision <= this.#compacted) return;
    try {
      this.#db.exec('BEGIN IMMEDIATE');
      this.#sql(
        `DELETE FROM log WHERE revision IN
           (SELECT superseded FROM log WHERE revision > ? AND revision <= ? AND superseded IS NOT NULL)`,
      ).run(this.#compacted, revision);
      this.#sql('DELETE FROM log WHERE revision > ? AND revision <= ? AND value IS NULL').run(
        this.#compacted,
        revision,
      );
      this.#sql("UPDATE meta SET value = ? WHERE name = 'compacted'").run(revision);
      this.#db.exec('COMMIT');
      this.#compacted = revision;
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
      throw describe(error, this.#path);
    }
  }

  #checkRevision(revision: number): void {
    if (revision < this.#compacted)
      throw new WeftError(
        'WEFT_STORE_COMPACTED',
        `revision ${revision} is compacted; oldest is ${this.#compacted}`,
        {
          details: { revision, compacted: this.#compacted },
        },
      );
    if (revision > this.#revision)
      throw new WeftError(
        'WEFT_STORE_FUTURE',
        `revision ${revision} is not reached; newest is ${this.#revision}`,
        {
          details: { revision, newest: this.#revision },
        },
      );
  }

  #sql(text: string): StatementSync {
    let statement = this.#statements.get(text);
    if (!statement) {
      statement = this.#db.prepare(text);
      this.#statements.set(text, statement);
    }
    return statement;
  }

  #guard<T>(read: () => T): T {
    if (this.#closed) throw new WeftError('WEFT_STORE_CLOSED', 'the store is closed');
    try {
      return read();
    } catch (error) {
      throw describe(error, this.#path);
    }
  }
}

function toEntry(row: LogRow): StoreEntry {
  return { key: row.key, value: row.value ?? '', createRevision: row.created, revision: row.revision };
}

/** [from, to) of the keys that begin with `prefix`; Kubernetes keys are ASCII, so the last code point serves as the end. */
function prefixRange(prefix: string): [string, string] {
  return [prefix, `${prefix}\u{10ffff}`];
}
