import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { after, test } from 'node:test';
import type { NetObject, Route } from '../base/net-objects.ts';
import { actorOf, RouteEvents } from './events.ts';
import { isOwnPort } from './netlink-socket.ts';
import { dumpObjects } from './rtnl.ts';
import { ip } from './testing/scratch.ts';
import { Workbench } from './testing/workbench.ts';
import type { DumpKind, KernelEvent, Op } from './types.ts';

const bench = new Workbench('events');
const { scratch, namespaces } = bench;
after(() => bench.close());
const everything: DumpKind[] = ['link', 'address', 'route', 'rule', 'neighbour', 'fdb'];

/** Everything that waits; the kernel notifies before the request returns. */
function drain(source: RouteEvents): KernelEvent[] {
  const all: KernelEvent[] = [];
  for (;;) {
    const events = source.poll();
    if (events.length === 0) return all;
    all.push(...events);
  }
}

const nameOf = (o: NetObject): string => {
  switch (o.kind) {
    case 'link':
      return o.name;
    case 'address':
      return `${o.dev} ${o.address}`;
    case 'route':
      return o.dst;
    case 'rule':
      return String(o.priority);
    case 'neighbour':
      return o.dst;
    case 'fdb':
      return `${o.mac} ${o.dst ?? ''}`.trim();
  }
};
/** `new route 10.0.0.0/8`, without what the kernel adds by itself. */
const lines = (events: KernelEvent[], kinds: DumpKind[] = everything): string[] =>
  events.flatMap((e) => {
    if (e.type === 'resync' || e.type === 'nft' || e.type === 'sysctl') return [e.type];
    if (!kinds.includes(e.object.kind)) return [];
    return [`${e.type} ${e.object.kind} ${nameOf(e.object)}`];
  });

function open(kinds: DumpKind[] = everything, receiveBuffer?: number): { ns: string; source: RouteEvents } {
  const ns = scratch.create();
  bench.addPair(ns);
  const source = namespaces.use(ns, () => new RouteEvents(namespaces.pin(ns), kinds, receiveBuffer));
  return { ns, source };
}

test('a switch of forwarding for all devices is told, once for each family; new devices are not mistaken for it', () => {
  const { ns, source } = open(['link']);
  using _ = source;
  const sysctl = (assignment: string): string =>
    execFileSync('nsenter', [`--net=${ns}`, 'sysctl', '-qw', assignment], { encoding: 'utf8' });
  sysctl('net.ipv4.ip_forward=1');
  assert.deepEqual(lines(drain(source), []), ['sysctl']);
  sysctl('net.ipv6.conf.all.forwarding=1');
  assert.deepEqual(lines(drain(source), []), ['sysctl']);
  sysctl('net.ipv4.ip_forward=1');
  sysctl('net.ipv4.conf.lo.forwarding=0');
  ip(ns, 'link', 'add', 'na', 'type', 'veth', 'peer', 'name', 'nb');
  assert.deepEqual(lines(drain(source), []), []);
});

test('every kind of object, changed by us: our own', () => {
  const { ns, source } = open();
  using _ = source;
  bench.does(
    ns,
    { op: 'address.replace', address: { kind: 'address', dev: 'b', address: '192.0.2.1/32' } },
    { op: 'route.replace', route: { kind: 'route', dst: '10.1.0.0/16', via: '10.0.0.9', dev: 'a' } },
    { op: 'rule.add', rule: { kind: 'rule', family: 4, priority: 9, table: 9 } },
    {
      op: 'neighbour.replace',
      neighbour: { kind: 'neighbour', dev: 'a', dst: '10.0.0.9', mac: '02:00:00:00:00:09' },
    },
    { op: 'route.delete', route: { kind: 'route', dst: '10.1.0.0/16' } },
  );
  const events = drain(source);
  const told = lines(events).filter((line) => !line.includes('192.0.2.1/32') || line.includes('address'));
  assert.deepEqual(told, [
    'new address b 192.0.2.1/32',
    'new route 10.1.0.0/16',
    'new rule 9',
    'new neighbour 10.0.0.9',
    'delete route 10.1.0.0/16',
  ]);
  for (const e of events) {
    assert.ok(e.type === 'new' || e.type === 'delete');
    if (e.object.kind === 'route' && e.object.protocol !== 87) continue;
    assert.equal(e.own, true);
    assert.equal(e.by?.pid, process.pid);
  }
});

test('changed by another program: who it was', () => {
  const { ns, source } = open(['route']);
  using _ = source;
  ip(ns, 'route', 'add', '10.2.0.0/16', 'via', '10.0.0.9');
  // The kernel's own routes for a new IPv6 address may come late, and among them.
  const event = drain(source).find((e) => 'object' in e && nameOf(e.object) === '10.2.0.0/16');
  assert.ok(event?.type === 'new');
  assert.equal(event.own, false);
  assert.ok(event.by && event.by.pid > 1 && event.by.pid !== process.pid);
  // ip(8) may have ended before we looked; a name, if there is one, is its.
  if (event.by.name !== undefined) assert.equal(event.by.name, 'ip');
});

test('an actor is named while it lives', () => {
  assert.deepEqual(actorOf(process.ppid)?.pid, process.ppid);
  assert.ok(actorOf(process.ppid)?.name);
  assert.equal(actorOf(0), undefined);
  assert.equal(actorOf(0x7fffffff), undefined);
  assert.equal(isOwnPort(process.pid), false);
});

test('deleted links, and the IPv4 routes that the kernel drops without a word', () => {
  const { ns, source } = open(['link', 'route']);
  using _ = source;
  const via = { kind: 'route', via: '10.0.0.9', dev: 'a' } as const;
  bench.does(
    ns,
    { op: 'route.replace', route: { ...via, dst: '10.3.0.0/16' } },
    { op: 'route.replace', route: { kind: 'route', dst: '10.4.0.0/16', dev: 'b' } },
    { op: 'route.replace', route: { kind: 'route', dst: 'fd03::/64', dev: 'a' } },
  );
  drain(source);
  const left = (): string[] =>
    (namespaces.use(ns, (n) => dumpObjects(n.route, ['route'], { protocol: 87 })) as Route[]).map(
      (r) => r.dst,
    );
  bench.does(ns, { op: 'link.set', link: { name: 'a', up: false } });
  const down = lines(drain(source));
  assert.deepEqual(
    down.filter((l) => l.includes('route 10.')),
    ['delete route 10.3.0.0/16'],
  );
  assert.ok(down.includes('delete route fd03::/64')); // of IPv6 the kernel tells

  assert.deepEqual(left(), ['10.4.0.0/16']);
  bench.does(ns, { op: 'link.set', link: { name: 'b' }, rename: 'c' }, { op: 'link.delete', name: 'a' });
  const told = lines(drain(source));
  assert.ok(told.includes('new link c'));
  assert.ok(told.includes('delete link a') && told.includes('delete link c'));
  assert.deepEqual(
    told.filter((l) => l.includes('route 10.4')),
    ['delete route 10.4.0.0/16'],
  );
  assert.deepEqual(left(), []);
});

test('routes go with their preferred source', () => {
  const { ns, source } = open(['route']);
  using _ = source;
  bench.does(
    ns,
    { op: 'address.replace', address: { kind: 'address', dev: 'b', address: '192.0.2.1/32' } },
    { op: 'route.replace', route: { kind: 'route', dst: '10.5.0.0/16', dev: 'a', src: '192.0.2.1' } },
  );
  drain(source);
  ip(ns, 'addr', 'del', '192.0.2.1/32', 'dev', 'b');
  assert.deepEqual(
    lines(drain(source)).filter((l) => l.includes('10.')),
    ['delete route 10.5.0.0/16'],
  );
  assert.deepEqual(
    namespaces.use(ns, (n) => dumpObjects(n.route, ['route'], { protocol: 87 })),
    [],
  );
});

test('neighbours and forwarding entries that traffic makes are not news', () => {
  const { ns, source } = open(['neighbour', 'fdb']);
  using _ = source;
  ip(ns, 'neigh', 'add', '10.0.0.20', 'lladdr', '02:00:00:00:00:20', 'dev', 'a', 'nud', 'reachable');
  ip(ns, 'neigh', 'add', '10.0.0.21', 'lladdr', '02:00:00:00:00:21', 'dev', 'a', 'nud', 'permanent');
  bench.does(
    ns,
    { op: 'link.create', link: { kind: 'link', name: 'vx', type: 'vxlan', vxlan: { id: 3, port: 8472 } } },
    { op: 'fdb.append', fdb: { kind: 'fdb', dev: 'vx', mac: '02:00:00:00:01:01', dst: '10.0.0.9' } },
  );
  assert.deepEqual(lines(drain(source), ['neighbour', 'fdb']), [
    'new neighbour 10.0.0.21',
    'new fdb 02:00:00:00:01:01 10.0.0.9',
  ]);
  bench.does(ns, {
    op: 'fdb.delete',
    fdb: { kind: 'fdb', dev: 'vx', mac: '02:00:00:00:01:01', dst: '10.0.0.9' },
  });
  assert.deepEqual(lines(drain(source)), ['delete fdb 02:00:00:00:01:01 10.0.0.9']);
});

test('our own neighbour, taken away by another: told', () => {
  const { ns, source } = open(['neighbour']);
  using _ = source;
  bench.does(ns, {
    op: 'neighbour.replace',
    neighbour: { kind: 'neighbour', dev: 'a', dst: '10.0.0.9', mac: '02:00:00:00:00:09' },
  });
  drain(source);
  ip(ns, 'neigh', 'del', '10.0.0.9', 'dev', 'a');
  const told = drain(source);
  assert.ok(lines(told).includes('delete neighbour 10.0.0.9'));
  assert.ok(told.some((e) => 'by' in e && e.by !== undefined && e.by.pid !== process.pid));
});

test('a burst that overflows a small buffer ends in resync, and names are right again', () => {
  const { ns, source } = open(['route', 'link'], 4096);
  using _ = source;
  const ops = Array.from(
    { length: 500 },
    (_, i): Op => ({
      op: 'route.replace',
      route: { kind: 'route', dst: `10.${100 + (i >> 8)}.${i & 255}.0/24`, dev: 'a' },
    }),
  );
  bench.does(ns, ...ops, { op: 'link.set', link: { name: 'b' }, rename: 'renamed' });
  const events = drain(source);
  assert.equal(events.filter((e) => e.type === 'resync').length, 1);
  assert.ok(events.length < 500);
  bench.does(ns, { op: 'route.replace', route: { kind: 'route', dst: '10.7.0.0/16', dev: 'renamed' } });
  const next = drain(source).filter((e) => 'object' in e && nameOf(e.object) === '10.7.0.0/16');
  assert.equal(next.length, 1);
  assert.ok(next[0]?.type === 'new' && next[0].object.kind === 'route' && next[0].object.dev === 'renamed');
  // The routes learned by the dump after the loss are known too: they go with their link.
  bench.does(ns, { op: 'link.set', link: { name: 'a', up: false } });
  assert.ok(drain(source).filter((e) => e.type === 'delete').length > 0);
});
