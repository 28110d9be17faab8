/** Entries made by real packets, against what the conntrack program says of them. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { after, before, beforeEach, test } from 'node:test';
import { isWeftError } from '../base/errors.ts';
import { canonicalIp } from '../base/ip.ts';
import { deleteConntrack, listConntrack, purgeAddresses, purgeByDump } from './conntrack.ts';
import * as ffi from './ffi.ts';
import { Namespace } from './namespace.ts';
import { applyRuleset } from './nft.ts';
import { connectTcp, listenTcp } from './tcp-sockets.ts';
import { ip, ScratchNamespaces, until } from './testing/scratch.ts';
import { udpFrame, Wire } from './testing/wire.ts';
import type { Conntrack } from './types.ts';

const scratch = new ScratchNamespaces('ct');
let router: Namespace;
let left: string;
let wire: Wire;
let routerMac: string;

before(() => {
  router = new Namespace(scratch.create());
  left = scratch.create();
  ip(
    router.path,
    'link',
    'add',
    'eth0',
    'type',
    'veth',
    'peer',
    'name',
    'eth0',
    'netns',
    path.basename(left),
  );
  for (const [ns, n] of [
    [router.path, 1],
    [left, 2],
  ] as const) {
    ip(ns, 'address', 'add', `10.8.0.${n}/24`, 'dev', 'eth0');
    ip(ns, 'address', 'add', `fd08::${n}/64`, 'dev', 'eth0', 'nodad');
    ip(ns, 'link', 'set', 'eth0', 'up');
  }
  ip(router.path, 'address', 'add', '10.8.0.3/32', 'dev', 'lo');
  // A rule on connections is what switches tracking on; 10.8.0.100 stands for 10.8.0.1, and port 7000 has a zone of its own.
  applyRuleset(
    router.path,
    `add table inet t {
      chain zones { type filter hook prerouting priority raw; udp dport 7000 ct zone set 5; }
      chain nat { type nat hook prerouting priority dstnat; ip daddr 10.8.0.100 dnat ip to 10.8.0.1; }
      chain marks { type filter hook input priority 0; udp dport 5353 ct mark set 0x1234; ct state new accept; }
    }`,
  );
  ip(
    left,
    'neighbour',
    'replace',
    '10.8.0.100',
    'lladdr',
    mac(router.path),
    'dev',
    'eth0',
    'nud',
    'permanent',
  );
  wire = new Wire(left, 'eth0');
  routerMac = mac(router.path);
});
after(() => {
  wire[Symbol.dispose]();
  router.close();
  scratch.remove();
});
beforeEach(() => {
  execFileSync('ip', ['netns', 'exec', path.basename(router.path), 'conntrack', '-F'], { stdio: 'ignore' });
});

function mac(ns: string): string {
  return /link\/ether (\S+)/.exec(ip(ns, 'link', 'show', 'eth0'))![1]!;
}

const list = (filter = {}): Conntrack[] => listConntrack(router.netfilter, filter);

/** By real packets: UDP with a mark, UDP in a zone, ICMP, ICMPv6, UDP over IPv6, UDP through DNAT. */
async function traffic(): Promise<void> {
  for (const [src, dst, dport] of [
    ['10.8.0.2', '10.8.0.1', 5353],
    ['10.8.0.2', '10.8.0.1', 7000],
    ['fd08::2', 'fd08::1', 53],
    ['10.8.0.2', '10.8.0.100', 53],
    ['10.8.0.2', '10.8.0.3', 53],
  ] as const) {
    wire.send(udpFrame(routerMac, wire.mac, { src, dst, sport: 40000, dport, data: 'x' }));
  }
  for (const to of ['10.8.0.1', 'fd08::1']) {
    execFileSync('ip', ['netns', 'exec', path.basename(left), 'ping', '-c1', '-W2', to], { stdio: 'ignore' });
  }
  await until('all packets have an entry', () => list().length === 7);
}

/** `conntrack -L -o xml` of a family, reduced to what we know. */
function theirs(family: 'ipv4' | 'ipv6'): string[] {
  const xml = execFileSync(
    'ip',
    ['netns', 'exec', path.basename(router.path), 'conntrack', '-L', '-f', family, '-o', 'xml,id'],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const tag = (text: string, name: string): string | undefined =>
    new RegExp(`<${name}>([^<]*)</${name}>`).exec(text)?.[1];
  return [...xml.matchAll(/<flow>(.*?)<\/flow>/gs)]
    .map(([, flow = '']) => {
      const meta = (direction: string): string =>
        new RegExp(`<meta direction="${direction}">(.*?)</meta>`, 's').exec(flow)?.[1] ?? '';
      const side = (direction: string): string[] => {
        const text = meta(direction);
        return [
          canonicalIp(tag(text, 'src') ?? ''),
          canonicalIp(tag(text, 'dst') ?? ''),
          ...['sport', 'dport'].map((name) => tag(text, name) ?? '-'),
          /<layer4 protonum="(\d+)"/.exec(text)?.[1] ?? '',
        ];
      };
      const own = meta('independent');
      return [
        ...side('original'),
        ...side('reply'),
        tag(own, 'id'),
        tag(own, 'mark') ?? '0',
        tag(own, 'zone') ?? '-',
      ].join(' ');
    })
    .sort();
}

function ours(entries: Conntrack[]): string[] {
  const side = (t: Conntrack['original']): unknown[] => [
    t.src,
    t.dst,
    t.sport ?? '-',
    t.dport ?? '-',
    t.protocol,
  ];
  return entries
    .map((e) => [...side(e.original), ...side(e.reply), e.id, e.mark ?? 0, e.zone ?? '-'].join(' '))
    .sort();
}

test('UDP, ICMP and TCP over IPv4 and IPv6 are listed as the conntrack program lists them', async () => {
  await traffic();
  const listener = listenTcp(router.path, '10.8.0.1', 9999);
  const client = connectTcp(left, '10.8.0.1', 9999);
  await until('TCP is established', () => list({ protocol: 6 }).some(({ status = 0 }) => status & 4));
  assert.deepEqual(ours(list().filter(({ family }) => family === 4)), theirs('ipv4'));
  assert.deepEqual(ours(list().filter(({ family }) => family === 6)), theirs('ipv6'));
  const byPort = (dport: number): Conntrack | undefined =>
    list().find(({ original }) => original.dport === dport);
  assert.equal(byPort(5353)?.mark, 0x1234);
  assert.equal(byPort(7000)?.zone, 5);
  const [icmp] = list({ protocol: 1 });
  assert.deepEqual([icmp?.original.icmp?.type, icmp?.reply.icmp?.type], [8, 0]);
  const [icmp6] = list({ protocol: 58 });
  assert.deepEqual([icmp6?.original.icmp?.type, icmp6?.reply.icmp?.type], [128, 129]);
  assert.ok(byPort(5353)!.timeout! > 0 && byPort(5353)!.timeout! <= 120);
  ffi.libc.close(client);
  ffi.libc.close(listener);
});

test('by address: source or destination, of the original or of the reply', async () => {
  await traffic();
  const ports = (address: string): unknown[] =>
    list({ address })
      .map(({ original }) => original.dport ?? 'icmp')
      .sort();
  assert.deepEqual(ports('10.8.0.100'), [53]);
  assert.deepEqual(ports('10.8.0.1'), [53, 5353, 7000, 'icmp'], 'through DNAT as well');
  assert.deepEqual(ports('fd08:0::2'), [53, 'icmp']);
  assert.deepEqual(ports('10.8.0.9'), []);
  assert.throws(
    () => list({ address: 'x' }),
    (e) => isWeftError(e, 'WEFT_BAD_ADDRESS'),
  );
});

test('exactly the entries given are deleted, whatever their protocol; again is none', async () => {
  await traffic();
  const all = list();
  for (const entry of all) {
    const old = list();
    assert.equal(deleteConntrack(router.netfilter, [entry]), 1, JSON.stringify(entry));
    assert.equal(list().length, old.length - 1);
    assert.ok(!list().some(({ id }) => id === entry.id));
  }
  assert.equal(deleteConntrack(router.netfilter, all), 0);
});

test('the zone and the id are part of what an entry is', async () => {
  await traffic();
  const entry = list().find(({ zone }) => zone === 5)!;
  const { zone: _, id: __, ...elsewhere } = entry;
  assert.equal(deleteConntrack(router.netfilter, [elsewhere]), 0, 'the same tuple in zone 0 is another');
  assert.equal(
    deleteConntrack(router.netfilter, [{ ...entry, id: (entry.id! ^ 1) >>> 0 }]),
    0,
    'an older entry with this tuple',
  );
  const { id: ___, ...anyId } = entry;
  assert.equal(deleteConntrack(router.netfilter, [anyId]), 1);
});

for (const [how, purge] of [
  ['by the kernel', purgeAddresses],
  ['by reading the table', purgeByDump],
] as const) {
  test(`addresses are purged from every entry and every zone, and the others stay: ${how}`, async () => {
    await traffic();
    purge(router.netfilter, ['10.8.0.1', '10.8.0.77']);
    assert.deepEqual(list({ address: '10.8.0.1' }), []);
    assert.equal(list().length, 3);
    purge(router.netfilter, ['fd08:0::2', '10.8.0.2']);
    assert.deepEqual(list(), []);
    purge(router.netfilter, ['10.8.0.1']);
    purge(router.netfilter, []);
    assert.throws(
      () => purge(router.netfilter, ['x']),
      (e) => isWeftError(e, 'WEFT_BAD_ADDRESS'),
    );
  });
}
