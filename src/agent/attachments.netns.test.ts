import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { ip, ipJson, until } from '../kernel/testing/scratch.ts';
import { CniNode } from './testing/cni-node.ts';

let node: CniNode;
before(async () => {
  node = new CniNode('cni');
  await node.start();
});
after(() => node.close());

function pings(ns: string, address: string): boolean {
  return (
    spawnSync('ip', ['netns', 'exec', path.basename(ns), 'ping', '-c1', '-W2', '-n', address]).status === 0
  );
}
const hostLinks = (): string[] =>
  ipJson(node.ns, 'link')
    .map((link) => String(link.ifname))
    .filter((name) => name.startsWith('weft'));
const ipsOf = (result: { ips: Array<{ address: string }> }): string[] =>
  result.ips.map((entry) => entry.address.split('/')[0]!);

test('ADD, traffic, CHECK, DEL twice, as a runtime does it', async () => {
  const [a, b] = [node.scratch.create(), node.scratch.create()];
  const first = await node.add('a', a);
  const second = await node.add('b', b);
  assert.equal(first.interfaces[1].sandbox, a);
  assert.match(first.interfaces[1].mac, /^[0-9a-f:]{17}$/);
  assert.deepEqual(first.routes, [
    { dst: '0.0.0.0/0', gw: '169.254.1.1' },
    { dst: '::/0', gw: 'fe80::1' },
  ]);
  for (const address of ipsOf(second)) assert.ok(pings(a, address), address);
  const check = () => node.exec('CHECK', node.env('a', a), { prevResult: first });
  assert.equal((await check()).code, 0);
  ip(a, 'route', 'del', 'default');
  const differs = await check();
  assert.deepEqual([differs.code, differs.output.code], [1, 104]);
  assert.match(differs.output.msg, /route 0\.0\.0\.0\/0 dev eth0 is missing/);
  assert.deepEqual((await node.exec('CHECK', node.env('nobody', a), { prevResult: first })).output.code, 3);
  assert.ok(existsSync(`${node.socket}.attached`));
  await node.del('a', a);
  await node.del('a', '');
  await node.del('b', b);
  await until('the links are gone', () => hostLinks().length === 0);
  assert.deepEqual(
    ipJson(a, 'link').map((link) => link.ifname),
    ['lo'],
  );
  assert.ok(!existsSync(`${node.socket}.attached`));
});

test('addresses and MAC as asked for; what cannot be given is told by its code', async () => {
  const ns = node.scratch.create();
  const conf = { runtimeConfig: { ips: ['10.88.7.7/16', 'fd88::77'], mac: '02:11:22:33:44:55' } };
  const result = await node.add('asked', ns, conf);
  assert.deepEqual(ipsOf(result), ['10.88.7.7', 'fd88::77']);
  assert.equal(result.interfaces[1].mac, '02:11:22:33:44:55');
  assert.equal(ipJson(ns, 'link', 'show', 'eth0')[0]!.address, '02:11:22:33:44:55');
  const other = node.scratch.create();
  for (const [ips, code] of [
    [['10.88.7.7'], 101],
    [['192.0.2.1'], 102],
    [['10.88.0.0'], 102],
  ] as const) {
    const { output } = await node.exec('ADD', node.env('other', other), { runtimeConfig: { ips } });
    assert.equal(output.code, code, JSON.stringify(output));
  }
  assert.deepEqual(ipJson(other, 'link').length, 1, 'nothing was made for the refused');
  await node.del('asked', ns);
});

test('ADD again: the same sandbox gets the same answer, repaired; another sandbox is a new attachment', async () => {
  const ns = node.scratch.create();
  const first = await node.add('again', ns);
  ip(ns, 'addr', 'flush', 'dev', 'eth0');
  assert.deepEqual(await node.add('again', ns), first);
  assert.equal((await node.exec('CHECK', node.env('again', ns), { prevResult: first })).code, 0);
  const elsewhere = node.scratch.create();
  const moved = await node.add('again', elsewhere);
  assert.notDeepEqual(ipsOf(moved), ipsOf(first));
  await until('the old link is gone', () => ipJson(ns, 'link').length === 1);
  await node.del('again', elsewhere);
});

test('the path of a sandbox that went without DEL is free for the next one, and its addresses too', async () => {
  const ns = node.scratch.create();
  await node.add('lost', ns);
  ip(ns, 'link', 'del', 'eth0'); // as if the namespace were another one: the kernel gives inode numbers again
  ip(node.ns, 'link');
  await node.stop('SIGKILL');
  spawnSync('ip', ['netns', 'del', path.basename(ns)]);
  spawnSync('ip', ['netns', 'add', path.basename(ns)]);
  await node.start();
  const result = await node.add('fresh', ns);
  const { output } = await node.exec('CHECK', node.env('lost', ns), { prevResult: result });
  assert.equal(output.code, 3, 'its record is gone');
  await node.del('fresh', ns);
});

test('errors of the sandbox: not there, the node itself, an interface of that name', async () => {
  const gone = await node.exec('ADD', node.env('x', '/run/netns/weft-no-such'));
  assert.deepEqual([gone.code, gone.output.code], [1, 3]);
  const own = await node.exec('ADD', node.env('x', node.ns));
  assert.deepEqual([own.code, own.output.code], [1, 7], JSON.stringify(own.output));
  const ns = node.scratch.create();
  ip(ns, 'link', 'add', 'eth0', 'type', 'bridge');
  const taken = await node.exec('ADD', node.env('x', ns));
  assert.deepEqual([taken.code, taken.output.code], [1, 103], JSON.stringify(taken.output));
  assert.deepEqual(hostLinks(), []);
});

test('a second interface of a sandbox routes the cluster only; a DEL of the wrong network is ignored', async () => {
  const ns = node.scratch.create();
  await node.add('multi', ns);
  const second = await node.add('multi', ns, { name: 'weft2' }, { CNI_IFNAME: 'net1' });
  assert.deepEqual(
    second.routes.map((route: { dst: string }) => route.dst),
    ['10.88.0.0/14', 'fd88::/48'],
  );
  const wrong = await node.exec('DEL', node.env('multi', ns, 'net1'));
  assert.equal(wrong.code, 0);
  assert.equal(ipJson(ns, 'link').length, 3, 'net1 belongs to weft2');
  assert.equal((await node.exec('DEL', node.env('multi', ns, 'net1'), { name: 'weft2' })).code, 0);
  await node.del('multi', ns);
});

test('without an agent DEL is kept; with one again it is done, before an ADD of the same container', async () => {
  const ns = node.scratch.create();
  const before = await node.add('kept', ns);
  await node.stop('SIGKILL');
  assert.equal((await node.exec('STATUS', {})).output.code, 51);
  await node.del('kept', ns);
  assert.equal(readdirSync(node.spool).length, 1);
  await node.start();
  assert.equal(readdirSync(node.spool).length, 0);
  await until('the link is gone', () => hostLinks().length === 0);
  const again = await node.add('kept', ns);
  assert.notDeepEqual(ipsOf(again), ipsOf(before), 'released addresses go to the end');
  await node.del('kept', ns);
});

test('GC removes what is not named, and what has no sandbox', async () => {
  const [a, b, c] = [node.scratch.create(), node.scratch.create(), node.scratch.create()];
  await node.add('stays', a);
  await node.add('goes', b);
  await node.add('foreign', c, { name: 'weft2' });
  const { code } = await node.exec(
    'GC',
    {},
    {
      'cni.dev/valid-attachments': [{ containerID: 'stays', ifname: 'eth0' }],
    },
  );
  assert.equal(code, 0);
  await until('only two are left', () => hostLinks().length === 2);
  assert.equal(ipJson(a, 'link').length, 2);
  assert.equal(ipJson(c, 'link').length, 2, 'another network is not concerned');
  await node.exec('GC', {}, { 'cni.dev/valid-attachments': [] });
  await node.exec('GC', {}, { name: 'weft2', 'cni.dev/valid-attachments': [] });
  await until('none is left', () => hostLinks().length === 0);
});

test('what others change by hand is back within a second, and named; a pod that ends is no drift', async () => {
  const [a, b] = [node.scratch.create(), node.scratch.create()];
  const first = await node.add('a', a);
  const second = await node.add('b', b);
  const host = first.interfaces[0].name;
  const [v4, v6] = ipsOf(first) as [string, string];
  const hands: Array<[() => unknown, RegExp]> = [
    [() => ip(node.ns, 'route', 'del', v4), /^route .* is missing/],
    [() => ip(node.ns, '-6', 'route', 'del', v6), /^route .* is missing/],
    [() => ip(node.ns, 'neigh', 'del', v4, 'dev', host), /^neighbour .* is missing/],
    [() => ip(node.ns, 'link', 'set', host, 'down'), /is down$/],
    [() => ip(node.ns, 'link', 'del', host), /^link .* is missing/],
    [() => ip(a, 'link', 'del', 'eth0'), /^link .* is missing/],
  ];
  for (const [hand, text] of hands) {
    node.lines = [];
    hand();
    const told = (): boolean =>
      node.lines.some((line) => (line.drift as string[])?.some((d) => text.test(d)));
    await until(`${text} is repaired`, told, 3000);
    assert.equal(node.lines[0]!.id, 'a/eth0');
    assert.equal((await node.exec('CHECK', node.env('a', a), { prevResult: first })).code, 0);
    assert.ok(pings(b, v4) && pings(b, v6), 'and it works');
  }
  // The last hand left the pod without its side's repair being asked for: it was made anew as a whole.
  node.lines = [];
  spawnSync('ip', ['netns', 'del', path.basename(b)]);
  await until('its link is gone', () => !hostLinks().includes(second.interfaces[0].name));
  await node.del('a', a);
  await node.del('b', '');
  assert.deepEqual(node.lines, []);
});

test('forwarding switched off for all devices comes back for those of pods', async () => {
  const ns = node.scratch.create();
  const host = (await node.add('sysctl', ns)).interfaces[0].name;
  const forwarding = (family: string): string =>
    node.inNs(node.ns, 'cat', `/proc/sys/net/${family}/conf/${host}/forwarding`).trim();
  for (const family of ['ipv4', 'ipv6']) {
    node.lines = [];
    node.inNs(node.ns, 'sysctl', '-qw', `net.${family}.conf.all.forwarding=0`);
    await until(`${family} is repaired`, () => node.lines.length > 0, 3000);
    const text = `sysctl net/${family}/conf/${host}/forwarding is 0 instead of 1`;
    assert.deepEqual([node.lines[0]!.id, node.lines[0]!.drift], ['sysctl/eth0', [text]]);
    assert.equal(forwarding(family), '1');
    node.inNs(node.ns, 'sysctl', '-qw', `net.${family}.conf.all.forwarding=1`);
  }
  await node.del('sysctl', ns);
});

test('a restart changes nothing; kill -9 loses nothing', async () => {
  const ns = node.scratch.create();
  const result = await node.add('stay', ns);
  const index = (): unknown => ipJson(node.ns, 'link', 'show', result.interfaces[0].name)[0]!.ifindex;
  const before = [index(), ip(node.ns, 'route'), ip(node.ns, '-6', 'route'), ip(node.ns, 'neigh')];
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    await node.stop(signal);
    assert.ok(pings(ns, '10.99.0.1'), 'traffic goes on without an agent');
    await node.start();
    assert.deepEqual(
      [index(), ip(node.ns, 'route'), ip(node.ns, '-6', 'route'), ip(node.ns, 'neigh')],
      before,
    );
    assert.deepEqual(await node.add('stay', ns), result);
  }
  await node.del('stay', ns);
});

test('at start: records without a sandbox are released, links without a record removed', async () => {
  const [a, b] = [node.scratch.create(), node.scratch.create()];
  await node.add('a', a);
  const kept = await node.add('b', b);
  await node.stop('SIGKILL');
  spawnSync('ip', ['netns', 'del', path.basename(a)]);
  ip(node.ns, 'link', 'add', 'weftdeadbeef000', 'group', '22496', 'type', 'veth', 'peer', 'name', 'stray');
  ip(node.ns, 'link', 'set', 'weftdeadbeef000', 'alias', 'weft:dead/eth0');
  ip(node.ns, 'link', 'add', 'weftforeign', 'type', 'veth', 'peer', 'name', 'users');
  await node.start();
  assert.equal(node.lines[0]!.attachments, 1);
  await until('the stray link is gone', () => !hostLinks().includes('weftdeadbeef000'));
  assert.deepEqual(hostLinks().sort(), ['weftforeign', kept.interfaces[0].name].sort());
  ip(node.ns, 'link', 'del', 'weftforeign');
  await node.del('b', b);
});
