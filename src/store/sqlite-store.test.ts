import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, openSync, rmSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, describe, it } from 'node:test';
import { isWeftError } from '../base/errors.ts';
import { openSqliteStore } from './sqlite-store.ts';
import { testStoreCompliance } from './store-compliance.ts';

const dir = mkdtempSync(join(tmpdir(), 'weft-store-'));
after(() => rmSync(dir, { recursive: true, force: true }));
let files = 0;
const freshPath = (): string => join(dir, `${++files}.db`);

testStoreCompliance('sqlite', async () => openSqliteStore({ path: freshPath() }));
testStoreCompliance('sqlite in memory', async () => openSqliteStore({ path: ':memory:' }));

async function writeSome(path: string, count: number): Promise<number> {
  const store = openSqliteStore({ path });
  for (let i = 0; i < count; i++) await store.create(`/k/${i}`, 'x'.repeat(500));
  const { revision } = store;
  await store.close();
  return revision;
}

describe('sqlite store', () => {
  it('keeps everything over a restart, readable by its owner only', async () => {
    const path = freshPath();
    const revision = await writeSome(path, 50);
    assert.equal(statSync(path).mode & 0o777, 0o600);
    const store = openSqliteStore({ path });
    assert.equal(store.revision, revision);
    assert.equal((await store.list('/k/')).entries.length, 50);
    await store.close();
  });

  it('never goes back in revisions, even when the newest one was a deletion and was compacted', async () => {
    const path = freshPath();
    const store = openSqliteStore({ path });
    const made = await store.create('/a', '1');
    assert.ok(made.ok);
    await store.delete('/a', made.revision);
    const { revision } = store;
    await store.compact(revision);
    await store.close();
    const again = openSqliteStore({ path });
    assert.equal(again.revision, revision);
    assert.equal(again.compactedRevision, revision);
    await again.close();
  });

  it('compacts by itself beyond its history limit', async () => {
    const path = freshPath();
    const store = openSqliteStore({ path, historyLimit: 40 });
    const made = await store.create('/a', '0');
    assert.ok(made.ok);
    let { revision } = made;
    for (let i = 0; i < 200; i++) {
      const result = await store.update('/a', String(i), revision);
      assert.ok(result.ok);
      revision = result.revision;
    }
    await store.close();
    const db = new DatabaseSync(path);
    const { n } = db.prepare('SELECT count(*) AS n FROM log').get() as { n: number };
    db.close();
    assert.ok(n >= 40 && n <= 51, `${n} versions kept`);
  });

  it('refuses a second opener, in this process and in another', async () => {
    const path = freshPath();
    const store = openSqliteStore({ path });
    assert.throws(
      () => openSqliteStore({ path }),
      (e) => isWeftError(e, 'WEFT_STORE_LOCKED'),
    );
    const child = spawn(
      process.execPath,
      [join(import.meta.dirname, 'testdata/crash-writer.ts'), path, '0'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    let output = '';
    for await (const chunk of child.stdout) output += String(chunk);
    assert.match(output, /WEFT_STORE_LOCKED/);
    await store.close();
    await openSqliteStore({ path }).close();
  });

  it('names damage instead of serving it', async () => {
    const cases: Array<[string, (path: string) => void, RegExp]> = [
      ['not a database', (path) => writeFileSync(path, 'hello '.repeat(1000)), /^WEFT_STORE_CORRUPT$/],
      ['cut off', (path) => truncateSync(path, 9000), /^WEFT_STORE_CORRUPT$/],
      [
        'overwritten pages',
        (path) => {
          const fd = openSync(path, 'r+');
          const size = statSync(path).size;
          for (let at = 4096; at < size; at += 4096) writeSync(fd, Buffer.alloc(2000, 0xa5), 0, 2000, at);
        },
        /^WEFT_STORE_CORRUPT$/,
      ],
      [
        'of another program',
        (path) => {
          rmSync(path);
          const db = new DatabaseSync(path);
          db.exec('CREATE TABLE theirs (x)');
          db.close();
        },
        /^WEFT_STORE_CORRUPT$/,
      ],
      [
        'of a newer version',
        (path) => {
          const db = new DatabaseSync(path);
          db.exec('PRAGMA user_version = 99');
          db.close();
        },
        /^WEFT_STORE_VERSION$/,
      ],
      ['a directory', (path) => rmSync(path), /^WEFT_STORE_FAILED$/],
    ];
    for (const [name, damage, code] of cases) {
      const path = freshPath();
      await writeSome(path, 100);
      damage(path);
      assert.throws(
        () => openSqliteStore({ path: name === 'a directory' ? dir : path }),
        (e) => isWeftError(e) && code.test(e.code),
        name,
      );
    }
  });

  it('loses nothing acknowledged when killed with -9 at random moments', { timeout: 60_000 }, async () => {
    const path = freshPath();
    let lastRevision = 1;
    const expected = new Map<string, string>();
    for (let round = 0; round < 12; round++) {
      const child = spawn(
        process.execPath,
        [join(import.meta.dirname, 'testdata/crash-writer.ts'), path, String(round)],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      );
      let text = '';
      child.stdout.on('data', (chunk) => {
        text += String(chunk);
      });
      child.stdout.once('data', () => setTimeout(() => child.kill('SIGKILL'), Math.random() * 60));
      await new Promise((resolve) => child.once('close', resolve));
      const lines = text.split('\n').slice(0, -1);
      assert.ok(lines.length > 0, 'the child acknowledged something');
      for (const line of lines) {
        const [revision, key, value] = line.split(' ') as [string, string, string];
        assert.ok(Number(revision) > lastRevision, 'revisions grow over restarts');
        lastRevision = Number(revision);
        if (value === '-') expected.delete(key);
        else expected.set(key, value);
      }
      const store = openSqliteStore({ path });
      assert.ok(store.revision >= lastRevision);
      // Only the writes in flight at the kill may be there beyond what was acknowledged.
      const inFlight = new Set<string>();
      const watch = await store.watch('/', { after: lastRevision }, (events) => {
        for (const event of events) inFlight.add(event.key);
      });
      watch.close();
      const found = new Map((await store.list('/')).entries.map((e) => [e.key, e.value]));
      for (const key of inFlight) {
        const value = found.get(key);
        if (value === undefined) expected.delete(key);
        else expected.set(key, value);
      }
      assert.deepEqual([...found].sort(), [...expected].sort(), `round ${round}`);
      lastRevision = store.revision;
      await store.close();
    }
  });
});

it('a folder that cannot be made is a named error', () => {
  assert.throws(() => openSqliteStore({ path: '/dev/null/store.db' }), { code: 'WEFT_STORE_FAILED' });
});
