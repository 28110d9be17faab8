import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { after, test } from 'node:test';
import { Namespaces } from './namespace.ts';
import { NETLINK_ROUTE, NetlinkSocket } from './netlink-socket.ts';
import {
  createNetns,
  deleteNetns,
  listNetns,
  NETNS_FOLDER,
  netnsInfo,
  netnsInode,
  withNetns,
  withScratchNetns,
} from './netns.ts';
import { dumpObjects } from './rtnl.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';
import { openDescriptors, ScratchNamespaces } from './testing/scratch.ts';

const scratch = new ScratchNamespaces('netns');
after(() => scratch.remove());

const here = (): string => readlinkSync('/proc/thread-self/ns/net');
const start = here();

test('create, look, delete', () => {
  const path = scratch.path();
  const info = createNetns(path);
  assert.deepEqual(netnsInfo(path), info);
  assert.equal(here(), start);
  assert.equal(withNetns(path, here), `net:[${info.inode}]`);
  assert.equal(here(), start);
  assert.ok(listNetns().includes(path.slice(NETNS_FOLDER.length + 1)));
  assert.equal(deleteNetns(path), true);
  assert.equal(deleteNetns(path), false);
  assert.equal(existsSync(path), false);
  assert.throws(() => netnsInfo(path), { code: 'WEFT_NETNS_NOT_FOUND' });
  assert.throws(() => withNetns(path, () => 0), { code: 'WEFT_NETNS_NOT_FOUND' });
});

test('loopback is up in a new namespace', () => {
  const path = scratch.create();
  using socket = withNetns(path, () => new NetlinkSocket(NETLINK_ROUTE));
  const links = dumpObjects(socket, ['link']);
  assert.deepEqual(
    links.map((link) => link.kind === 'link' && [link.name, link.up]),
    [['lo', true]],
  );
});

test('a name that is taken is left as it is', () => {
  const path = scratch.create();
  const { inode } = netnsInfo(path);
  assert.throws(() => createNetns(path), { code: 'WEFT_NETNS_EXISTS' });
  assert.equal(netnsInfo(path).inode, inode);
});

test('a file that is no namespace is none', () => {
  const path = scratch.path();
  writeFileSync(path, '');
  assert.equal(netnsInode(path), undefined);
  assert.throws(() => withNetns(path, () => 0), { code: 'WEFT_NETNS_NOT_FOUND' });
  assert.ok(!listNetns().includes(path.slice(NETNS_FOLDER.length + 1)));
  assert.equal(deleteNetns(path), true); // what a crash between unmount and unlink leaves is removed
});

test('what never was a handle is not removed', () => {
  const path = scratch.path();
  writeFileSync(path, 'text');
  try {
    assert.throws(() => deleteNetns(path), { code: 'WEFT_NETNS_NOT_FOUND' });
    assert.throws(() => deleteNetns(import.meta.dirname), { code: 'WEFT_NETNS_NOT_FOUND' });
    assert.equal(readFileSync(path, 'utf8'), 'text');
  } finally {
    unlinkSync(path);
  }
});

test('a thread that cannot come home takes the process down', () => {
  const path = scratch.create();
  const program = `
    const { withNetns } = await import('${import.meta.dirname}/netns.ts');
    const { libc } = await import('${import.meta.dirname}/ffi.ts');
    try { withNetns('${path}', () => { libc.setns = () => -1; }); } finally { console.log('lost'); }`;
  const child = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
    env: { ...process.env, NODE_COMPILE_CACHE: '' },
  });
  assert.equal(child.signal, 'SIGABRT');
  assert.match(child.stderr, /cannot return from a network namespace/);
  assert.equal(child.stdout, '');
});

test('the thread comes home from an error, and from 400 flips', () => {
  const paths = [scratch.create(), scratch.create()];
  const inodes = paths.map((path) => `net:[${netnsInfo(path).inode}]`);
  assert.throws(
    () =>
      withNetns(paths[0]!, () => {
        throw new RangeError('inside');
      }),
    RangeError,
  );
  assert.equal(here(), start);
  for (let i = 0; i < 400; i++) {
    assert.equal(withNetns(paths[i % 2]!, here), inodes[i % 2]);
    assert.equal(here(), start);
  }
});

test('a scratch namespace has no name and leaves nothing', () => {
  const before = openDescriptors();
  let inside = '';
  withScratchNetns((path) => {
    inside = withNetns(path, here);
    assert.equal(here(), start);
  });
  assert.notEqual(inside, start);
  assert.ok(!listNetns().some((name) => `net:[${netnsInode(`${NETNS_FOLDER}/${name}`)}]` === inside));
  assert.equal(openDescriptors(), before);
});

test('sysctls are those of the namespace', () => {
  const path = scratch.create();
  const key = 'net/ipv4/conf/lo/rp_filter';
  const host = readFileSync(`/proc/sys/${key}`, 'utf8').trimEnd();
  const other = host === '2' ? 1 : 2;
  writeSysctl(path, key, other);
  assert.equal(readSysctl(path, key), String(other));
  assert.equal(readSysctl('', key), host);
  assert.throws(() => readSysctl(path, 'net/../kernel/hostname'), { code: 'WEFT_BAD_CONFIG' });
  assert.throws(() => readSysctl(path, 'net/ipv4/nosuch'), { code: 'WEFT_SYSCALL_FAILED' });
  assert.throws(() => writeSysctl(path, key, 'words'), { code: 'WEFT_SYSCALL_FAILED' });
});

test('a namespace created anew at the same path is not the old one', () => {
  using namespaces = new Namespaces();
  const path = scratch.create();
  const pinned = namespaces.pin(path);
  assert.equal(namespaces.take(path), pinned);
  deleteNetns(path);
  assert.throws(() => namespaces.take(path), { code: 'WEFT_NETNS_NOT_FOUND' });
  const { inode } = createNetns(path);
  const now = namespaces.take(path);
  assert.equal(now.inode, inode);
  assert.notEqual(now, pinned);
  namespaces.release(now);
  namespaces.unpin(pinned);
});

test('200 namespaces created, entered and deleted leave no descriptor', () => {
  using namespaces = new Namespaces();
  namespaces.use('', (namespace) => dumpObjects(namespace.route, ['link']));
  const before = openDescriptors();
  for (let i = 0; i < 200; i++) {
    const path = scratch.create();
    namespaces.use(path, (namespace) => assert.equal(dumpObjects(namespace.route, ['link']).length, 1));
    assert.equal(deleteNetns(path), true);
  }
  assert.equal(openDescriptors(), before);
  assert.equal(here(), start);
});
