import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { attachmentId, hostIfnameOf, macOf } from '../attach/names.ts';
import { planAttachment } from '../attach/plan-attachment.ts';
import { ManualClock } from '../base/clock.ts';
import { KeyedMutex } from '../base/keyed-mutex.ts';
import { silentLogger } from '../base/log.ts';
import { POD_LINK_GROUP } from '../base/net-objects.ts';
import { attach } from '../datapath/attach/attach.ts';
import type { Kernel } from '../kernel/types.ts';
import type { Attachment } from '../state/attachment.ts';
import { MemoryTable } from '../state/memory-table.ts';
import { AttachmentRepair, type Drift } from './attachment-repair.ts';
import { Life, mortalKernel, World } from './testing/mortal-world.ts';

async function setUp(t: { after: (fn: () => Promise<void>) => void }) {
  const world = new World();
  const inner = mortalKernel(world, new Life());
  const asked = { dumps: 0, reads: 0 };
  /** Programs that touch this link are refused. */
  const refused = new Set<string>();
  const kernel = {
    ...inner,
    dump: (...args: Parameters<Kernel['dump']>) => {
      asked.dumps++;
      return inner.dump(...args);
    },
    sysctlRead: (...args: Parameters<Kernel['sysctlRead']>) => {
      asked.reads++;
      return inner.sysctlRead(...args);
    },
    run: (async (steps) => {
      const text = JSON.stringify(steps);
      if (![...refused].some((name) => text.includes(name))) return await inner.run(steps);
      const failure = { step: 0, op: 0, errno: 1, errnoName: 'EPERM', message: 'not permitted', gone: false };
      return { failures: [failure], stopped: true };
    }) satisfies Kernel['run'],
  } as Kernel;
  const table = new MemoryTable<Attachment>('attachments', (a) => a.id);
  const clock = new ManualClock(1_000_000);
  const drifts: Drift[] = [];
  const removed: string[] = [];
  const repair = new AttachmentRepair({
    kernel,
    table,
    mutex: new KeyedMutex(),
    clock,
    logger: silentLogger,
    onDrift: (drift) => drifts.push(drift),
    removeLinks: async (names) => void removed.push(...names),
  });
  t.after(() => repair.close());
  /** As ADD does it: the row, and then the kernel. */
  const add = async (containerId: string): Promise<Attachment> => {
    const id = attachmentId(containerId, 'eth0');
    const netns = `/run/netns/${containerId}`;
    world.createSandbox(netns);
    const attachment: Attachment = {
      id,
      containerId,
      ifname: 'eth0',
      network: 'weft',
      netns,
      netnsInode: world.sandboxes.get(netns)!,
      ips: [`10.5.0.${table.size + 1}/32`],
      mac: macOf(id),
      hostIfname: hostIfnameOf(id),
      mtu: 1450,
      createdAt: '2026-01-01T00:00:00.000Z',
    };
    table.upsert(attachment);
    await attach(kernel, planAttachment(attachment));
    return attachment;
  };
  const touch = ({ hostIfname }: Attachment): void => {
    world.apply('', { op: 'link.set', link: { name: hostIfname, up: false } });
  };
  const tell = ({ hostIfname: dev, mac }: Attachment, pid = 7): void =>
    repair.handleKernelEvents([
      {
        type: 'delete',
        object: { kind: 'neighbour', dev, dst: '10.5.0.1', mac },
        by: { pid, name: 'ip' },
        own: false,
      },
    ]);
  const isUp = ({ hostIfname }: Attachment): boolean =>
    world.host().some((o) => o.kind === 'link' && o.name === hostIfname && o.up === true);
  return { world, kernel, table, clock, repair, drifts, removed, asked, refused, add, touch, tell, isUp };
}

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const end = Date.now() + 5000; !holds(); await turn()) assert.ok(Date.now() < end, what);
}

test('what ADD attaches and DEL detaches costs no look at the kernel, and has a status', async (t) => {
  const { repair, table, asked, add } = await setUp(t);
  await repair.start();
  asked.dumps = asked.reads = 0;
  const rows = [await add('a'), await add('b')];
  await until(
    'both are done',
    () => [...repair.statuses.values()].filter((s) => s.state === 'done').length === 2,
  );
  for (const { id } of rows) table.delete(id);
  await until('both are forgotten', () => repair.statuses.size === 0);
  assert.deepEqual(asked, { dumps: 0, reads: 0 });
});

test('what an event names is put right and told with who it was; the others are not looked at', async (t) => {
  const { repair, drifts, add, touch, tell, isUp } = await setUp(t);
  await repair.start();
  const [a, b] = [await add('a'), await add('b')];
  touch(a);
  touch(b);
  tell(a);
  await until('a is repaired', () => drifts.length > 0);
  assert.deepEqual([drifts[0]!.attachment.id, drifts[0]!.by], ['a/eth0', { pid: 7, name: 'ip' }]);
  assert.deepEqual([isUp(a), isUp(b)], [true, false]);
});

test('what was detached before its event is looked at is forgotten, and is no suspect when it comes again', async (t) => {
  const { repair, table, asked, add, tell, touch } = await setUp(t);
  await repair.start();
  const [a, b] = [await add('a'), await add('b')];
  await until('both are done', () => repair.statuses.size === 2);
  tell(a);
  table.delete(a.id);
  await until('it is forgotten', () => repair.statuses.size === 1);
  const before = asked.dumps;
  touch(b);
  tell(b);
  await until('the others are looked at', () => asked.dumps >= before + 2);
  const looked = asked.dumps;
  table.upsert({ ...a, mtu: 1400 });
  await until('it is back', () => repair.statuses.get(a.id)?.state === 'done');
  assert.equal(asked.dumps, looked);
});

test('the audit finds what no event told of, sysctls included, and links that nobody has', async (t) => {
  const { world, repair, clock, drifts, removed, asked, add, touch, isUp } = await setUp(t);
  const [a, b, c] = [await add('a'), await add('b'), await add('c')];
  await repair.start();
  assert.deepEqual([drifts.length, asked.reads], [0, 0], 'at start no sysctl is read');
  touch(a);
  const path = `net/ipv4/conf/${b.hostIfname}/forwarding`;
  world.apply('', { op: 'sysctl.write', path, value: '0' });
  const lost = {
    ...planAttachment(c).link,
    name: 'weft0lost',
    alias: 'weft:lost/eth0',
    group: POD_LINK_GROUP,
  };
  world.apply('', { op: 'link.create', link: { ...lost, peer: { name: 'eth1', netns: c.netns } } });
  await clock.advance(50_000);
  assert.equal(drifts.length, 0);
  await clock.advance(20_000);
  await until('both are repaired', () => drifts.length === 2);
  assert.ok(isUp(a));
  assert.equal(world.sysctl('', path), '1');
  assert.deepEqual(
    drifts[1]!.differences.map((d) => d.text),
    [`sysctl ${path} is 0 instead of 1`],
  );
  assert.deepEqual(removed, ['weft0lost']);
});

test('what cannot be put right is broken after its second failure, alone, and until it is right', async (t) => {
  const { repair, table, clock, drifts, refused, add, touch, tell, isUp } = await setUp(t);
  await repair.start();
  const [a, b] = [await add('a'), await add('b')];
  refused.add(a.hostIfname);
  touch(a);
  touch(b);
  tell(a);
  tell(b);
  await until('it has failed once', () => repair.statuses.get(a.id)?.attempts === 1);
  await until('the other one is repaired', () => isUp(b));
  assert.equal(repair.broken.size, 0);
  const told: string[] = [];
  using _ = repair.broken.subscribe((changes) => {
    for (const { key, old, new: now } of changes)
      told.push(old ? (now ? '' : `mended ${key}`) : `broken ${key}`);
  });
  for (let i = 0; i < 6; i++) await clock.advance(2000);
  await until('it is broken', () => repair.broken.size === 1);
  assert.match(repair.broken.get(a.id)!.error!.message, /not permitted/);
  refused.clear();
  await clock.advance(20_000);
  await until('it is repaired', () => isUp(a) && repair.broken.size === 0);
  await turn();
  assert.deepEqual(told.filter(Boolean), [`broken ${a.id}`, `mended ${a.id}`]);
  assert.deepEqual(
    drifts.map((d) => [d.attachment.id, d.by?.pid]),
    [
      [b.id, 7],
      [a.id, 7],
    ],
    'who did it is remembered over the failures',
  );
  // A row that goes is nobody's trouble any more.
  refused.add(a.hostIfname);
  touch(a);
  tell(a);
  await until('it has failed', () => repair.statuses.get(a.id)?.attempts === 1);
  table.delete(a.id);
  await until('it is forgotten', () => !repair.statuses.has(a.id));
});
