/**
 * Attachments and released addresses in one SQLite file of the node.
 *
 * WAL with synchronous=FULL: a method that returns has been fsynced (0.3 ms). Synchronous on purpose: a few hundred
 * microseconds once per ADD cost less than the round trip to another thread, and "committed before answered" is plain
 * to see.
 */
import { chmodSync, existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { messageOf, WeftError } from '../base/errors.ts';
import { parseCidr } from '../base/ip.ts';
import type { Attachment } from '../state/attachment.ts';
import type { AttachmentState, AttachmentStore } from '../state/attachment-store.ts';

/** 'wfta' in ASCII: tells this file from other SQLite files. */
const APPLICATION_ID = 0x77667461;
const SCHEMA_VERSION = 1;

const SCHEMA = `
CREATE TABLE attachment (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE released (ip TEXT PRIMARY KEY, released_at INTEGER NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
PRAGMA application_id = ${APPLICATION_ID};
PRAGMA user_version = ${SCHEMA_VERSION};
`;

export class SqliteAttachmentStore implements AttachmentStore {
  readonly #path: string;
  readonly #db: DatabaseSync;
  readonly #sql: Record<'find' | 'put' | 'remove' | 'held' | 'rest' | 'begin' | 'commit', StatementSync>;

  /** @throws WEFT_STORE_CORRUPT, WEFT_STORE_VERSION, WEFT_STORE_LOCKED, WEFT_STORE_FAILED */
  constructor(path: string) {
    this.#path = path;
    this.#db = this.#attempt('open', () => open(path));
    try {
      this.#sql = this.#attempt('prepare', () => ({
        find: this.#db.prepare('SELECT record FROM attachment WHERE id = ?'),
        put: this.#db.prepare('INSERT OR REPLACE INTO attachment (id, record) VALUES (?, ?)'),
        remove: this.#db.prepare('DELETE FROM attachment WHERE id = ?'),
        held: this.#db.prepare('DELETE FROM released WHERE ip = ?'),
        rest: this.#db.prepare('INSERT OR REPLACE INTO released (ip, released_at) VALUES (?, ?)'),
        begin: this.#db.prepare('BEGIN IMMEDIATE'),
        commit: this.#db.prepare('COMMIT'),
      }));
    } catch (error) {
      this.#db.close();
      throw error;
    }
  }

  load(): AttachmentState {
    return this.#attempt('load', () => {
      const rows = this.#db.prepare('SELECT record FROM attachment ORDER BY id').all() as Array<{
        record: string;
      }>;
      const released = this.#db
        .prepare('SELECT ip, released_at AS releasedAt FROM released ORDER BY released_at, rowid')
        .all() as Array<{ ip: string; releasedAt: number }>;
      const boot = this.#db.prepare("SELECT value FROM meta WHERE name = 'boot'").get() as
        | { value: string }
        | undefined;
      return {
        attachments: rows.map((row) => JSON.parse(row.record) as Attachment),
        released: released.map(({ ip, releasedAt }) => ({ ip, releasedAt })),
        ...(boot && { bootId: boot.value }),
      };
    });
  }

  put(attachment: Attachment): void {
    this.#transaction('put', () => {
      this.#sql.put.run(attachment.id, JSON.stringify(attachment));
      for (const cidr of attachment.ips) this.#sql.held.run(parseCidr(cidr).ip);
    });
  }

  release(ids: readonly string[], releasedAt: number): void {
    if (ids.length === 0) return;
    this.#transaction('release', () => {
      for (const id of ids) {
        const row = this.#sql.find.get(id) as { record: string } | undefined;
        if (!row) continue;
        this.#sql.remove.run(id);
        for (const cidr of (JSON.parse(row.record) as Attachment).ips) {
          this.#sql.rest.run(parseCidr(cidr).ip, releasedAt);
        }
      }
    });
  }

  setBootId(bootId: string): void {
    this.#attempt('write', () =>
      this.#db.prepare("INSERT OR REPLACE INTO meta (name, value) VALUES ('boot', ?)").run(bootId),
    );
  }

  close(): void {
    if (this.#db.isOpen) this.#db.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #transaction(what: string, work: () => void): void {
    this.#attempt(what, () => {
      this.#sql.begin.run();
      try {
        work();
        this.#sql.commit.run();
      } catch (error) {
        if (this.#db.isTransaction) this.#db.exec('ROLLBACK');
        throw error;
      }
    });
  }

  #attempt<T>(what: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (error instanceof WeftError) throw error;
      // SQLite's primary result codes: https://www.sqlite.org/rescode.html
      const code = ((error as { errcode?: number }).errcode ?? 0) & 0xff;
      const kind =
        code === 5 || code === 6
          ? 'WEFT_STORE_LOCKED'
          : code === 11 || code === 26 || error instanceof SyntaxError
            ? 'WEFT_STORE_CORRUPT'
            : 'WEFT_STORE_FAILED';
      throw new WeftError(kind, `attachments in ${this.#path}: ${what}: ${messageOf(error)}`, {
        cause: error,
        details: { path: this.#path },
      });
    }
  }
}

function open(path: string): DatabaseSync {
  // SQLite makes its files by the umask; no await stands between setting and restoring it.
  const umask = process.umask(0o077);
  try {
    return openPrivate(path);
  } finally {
    process.umask(umask);
  }
}

function openPrivate(path: string): DatabaseSync {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const isNew = !existsSync(path);
  const db = new DatabaseSync(path, { timeout: 500 });
  try {
    if (!isNew) chmodSync(path, 0o600); // one that an earlier version made may be open to all
    db.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;');
    const id = db.prepare('PRAGMA application_id').get()?.application_id;
    const version = db.prepare('PRAGMA user_version').get()?.user_version;
    if (id === 0 && version === 0 && isEmpty(db)) db.exec(`BEGIN IMMEDIATE; ${SCHEMA} COMMIT;`);
    else if (id !== APPLICATION_ID) {
      throw new WeftError('WEFT_STORE_CORRUPT', `${path} is not an attachment store`, { details: { path } });
    } else if (version !== SCHEMA_VERSION) {
      throw new WeftError(
        'WEFT_STORE_VERSION',
        `${path} has format ${version}; this version knows ${SCHEMA_VERSION}`,
        { details: { path, version } },
      );
    } else if (!isNew) {
      const check = db.prepare('PRAGMA quick_check(1)').get()?.quick_check;
      if (check !== 'ok')
        throw new WeftError('WEFT_STORE_CORRUPT', `${path} is damaged: ${check}`, { details: { path } });
    }
    // Takes the exclusive lock now: a second agent on the same state must fail at its start, not at its first ADD.
    db.exec('BEGIN IMMEDIATE; COMMIT;');
    return db;
  } catch (error) {
    db.close();
    throw error;
  }
}

function isEmpty(db: DatabaseSync): boolean {
  return db.prepare('SELECT count(*) AS n FROM sqlite_schema').get()?.n === 0;
}
