import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, test } from 'node:test';
import type { Attachment } from '../state/attachment.ts';
import { SqliteAttachmentStore } from './attachment-store.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'weft-attachments-'));
after(() => rmSync(folder, { recursive: true }));
let files = 0;
const fresh = (): string => path.join(folder, `deep/${files++}.db`);

const attachment = (id: string, ...ips: string[]): Attachment => ({
  id,
  containerId: id.split('/')[0]!,
  ifname: 'eth0',
  network: 'weft',
  netns: `/run/netns/${id}`,
  netnsInode: 4026532000,
  ips,
  mac: '02:00:00:00:00:01',
  hostIfname: 'weft0123456789a',
  mtu: 1450,
  createdAt: '2026-01-01T00:00:00.000Z',
});

test('what was put is there after opening again, in one piece', () => {
  const file = fresh();
  const a = attachment('a/eth0', '10.0.0.1/32', 'fd00::1/128');
  {
    using store = new SqliteAttachmentStore(file);
    assert.deepEqual(store.load(), { attachments: [], released: [] });
    store.setBootId('boot-1');
    store.put(a);
    store.put(attachment('b/eth0', '10.0.0.2/32'));
    store.put({ ...a, mtu: 1400 });
  }
  using store = new SqliteAttachmentStore(file);
  const state = store.load();
  assert.equal(state.bootId, 'boot-1');
  assert.deepEqual(
    state.attachments.map((r) => [r.id, r.mtu, r.ips]),
    [
      ['a/eth0', 1400, ['10.0.0.1/32', 'fd00::1/128']],
      ['b/eth0', 1450, ['10.0.0.2/32']],
    ],
  );
  assert.deepEqual(state.released, []);
});

test('nobody but the owner reads the file and its log; one made open to all is closed', () => {
  const file = fresh();
  const modes = (): number[] =>
    [file, `${file}-wal`].filter((name) => existsSync(name)).map((name) => statSync(name).mode & 0o777);
  const before = process.umask(0o022);
  try {
    {
      using store = new SqliteAttachmentStore(file);
      store.put(attachment('a/eth0', '10.0.0.1/32'));
      assert.deepEqual(modes(), [0o600, 0o600]);
      assert.equal(process.umask(), 0o022);
    }
    chmodSync(file, 0o644);
    using store = new SqliteAttachmentStore(file);
    store.put(attachment('b/eth0', '10.0.0.2/32'));
    assert.deepEqual(modes(), [0o600, 0o600]);
  } finally {
    process.umask(before);
  }
});

test('released addresses are in order of their release, until they are given again', () => {
  using store = new SqliteAttachmentStore(fresh());
  for (const n of [1, 2, 3]) store.put(attachment(`p${n}/eth0`, `10.0.0.${n}/32`));
  store.release(['p2/eth0', 'never/seen'], 1000);
  store.release(['p3/eth0', 'p1/eth0'], 2000);
  store.release(['p2/eth0'], 9000);
  assert.deepEqual(store.load(), {
    attachments: [],
    released: [
      { ip: '10.0.0.2', releasedAt: 1000 },
      { ip: '10.0.0.3', releasedAt: 2000 },
      { ip: '10.0.0.1', releasedAt: 2000 },
    ],
  });
  store.put(attachment('q/eth0', '10.0.0.3/32'));
  assert.deepEqual(
    store.load().released.map((r) => r.ip),
    ['10.0.0.2', '10.0.0.1'],
  );
});

test('a second agent, a foreign file and a damaged one are told apart', () => {
  const file = fresh();
  using store = new SqliteAttachmentStore(file);
  for (let n = 0; n < 200; n++) store.put(attachment(`p${n}/eth0`, `10.0.1.${n}/32`));
  assert.throws(() => new SqliteAttachmentStore(file), { code: 'WEFT_STORE_LOCKED' });
  store.close();
  assert.throws(() => store.load(), { code: 'WEFT_STORE_FAILED' });

  writeFileSync(
    path.join(folder, 'text.db'),
    'this is no database, and long enough to be read as a header'.repeat(20),
  );
  assert.throws(() => new SqliteAttachmentStore(path.join(folder, 'text.db')), {
    code: 'WEFT_STORE_CORRUPT',
  });

  const foreign = new DatabaseSync(path.join(folder, 'foreign.db'));
  foreign.exec('CREATE TABLE t (x)');
  foreign.close();
  assert.throws(() => new SqliteAttachmentStore(path.join(folder, 'foreign.db')), {
    code: 'WEFT_STORE_CORRUPT',
  });

  const newer = fresh();
  new SqliteAttachmentStore(newer).close();
  const db = new DatabaseSync(newer);
  db.exec('PRAGMA user_version = 9');
  db.close();
  assert.throws(() => new SqliteAttachmentStore(newer), { code: 'WEFT_STORE_VERSION' });

  truncateSync(file, statSync(file).size / 2);
  assert.throws(() => new SqliteAttachmentStore(file), { code: 'WEFT_STORE_CORRUPT' });
});
