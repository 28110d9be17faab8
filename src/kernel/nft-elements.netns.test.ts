/** Elements by raw nfnetlink against what the nft program says of the same sets, both ways. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { isWeftError } from '../base/errors.ts';
import { parseIp } from '../base/ip.ts';
import { NETLINK_NETFILTER, NetlinkSocket } from './netlink-socket.ts';
import { withNetns } from './netns.ts';
import { applyElementChanges, dumpElements } from './nft-elements.ts';
import { ScratchNamespaces } from './testing/scratch.ts';
import type { NftElement, NftElementChange } from './types.ts';

const scratch = new ScratchNamespaces('nftelem');
let ns: string;
let socket: NetlinkSocket;
before(() => {
  ns = scratch.create();
  socket = withNetns(ns, () => new NetlinkSocket(NETLINK_NETFILTER));
  nft('add table inet t; add chain inet t c1; add chain inet t c2');
});
after(() => {
  socket.close();
  scratch.remove();
});

function nft(command: string): string {
  return execFileSync('ip', ['netns', 'exec', path.basename(ns), 'nft', '-j', command], { encoding: 'utf8' });
}

const of = (set: string, action: NftElementChange['action'], elements?: NftElement[]): NftElementChange => ({
  family: 'inet',
  table: 't',
  set,
  action,
  ...(elements && { elements }),
});
const apply = (...changes: NftElementChange[]): void => applyElementChanges(socket, changes);
const dump = (set: string): NftElement[] => dumpElements(socket, 'inet', 't', set);

/** What nft lists of a set, without times that run. */
function listed(kind: 'set' | 'map', name: string): unknown[] {
  const { nftables } = JSON.parse(nft(`list ${kind} inet t ${name}`)) as {
    nftables: Array<Record<string, { elem?: unknown[] }>>;
  };
  const elements = nftables.find((entry) => kind in entry)?.[kind]?.elem ?? [];
  return JSON.parse(JSON.stringify(elements, (key, value) => (key === 'expires' ? undefined : value)));
}

/** Order is the kernel's. */
const sorted = (elements: NftElement[]): NftElement[] =>
  elements
    .map(({ expires: _, ...element }) => element)
    .sort(
      (a, b) =>
        Buffer.compare(a.key, b.key) || Number(b.intervalEnd ?? false) - Number(a.intervalEnd ?? false),
    );

const ip = parseIp;
const join = (...parts: Uint8Array[]): Uint8Array =>
  Buffer.concat(parts.map((p) => Buffer.concat([p, Buffer.alloc(-p.length & 3)])));
const u8 = (n: number): Uint8Array => Uint8Array.of(n);
const port = (n: number): Uint8Array => Uint8Array.of(n >> 8, n & 255);
const plain = (elements: NftElement[]): unknown =>
  elements.map((e) => ({
    ...e,
    key: Buffer.from(e.key).toString('hex'),
    keyEnd: e.keyEnd && Buffer.from(e.keyEnd).toString('hex'),
    data: e.data instanceof Uint8Array ? Buffer.from(e.data).toString('hex') : e.data,
  }));

interface Case {
  spec: string;
  kind: 'set' | 'map';
  /** As nft takes it. */
  text: string;
  raw: NftElement[];
}

const cases: Record<string, Case> = {
  'IPv4 addresses': {
    kind: 'set',
    spec: '{ type ipv4_addr; }',
    text: '10.0.0.1, 10.0.0.2',
    raw: [{ key: ip('10.0.0.1') }, { key: ip('10.0.0.2') }],
  },
  'IPv6 addresses': {
    kind: 'set',
    spec: '{ type ipv6_addr; }',
    text: 'fd00::1, fd00::2',
    raw: [{ key: ip('fd00::1') }, { key: ip('fd00::2') }],
  },
  intervals: {
    kind: 'set',
    spec: '{ type ipv4_addr; flags interval; }',
    text: '10.0.0.0/24, 10.1.0.5-10.1.0.9',
    raw: [
      { key: ip('0.0.0.0'), intervalEnd: true },
      { key: ip('10.0.0.0') },
      { key: ip('10.0.1.0'), intervalEnd: true },
      { key: ip('10.1.0.5') },
      { key: ip('10.1.0.10'), intervalEnd: true },
    ],
  },
  timeouts: {
    kind: 'set',
    spec: '{ type ipv4_addr; flags timeout; }',
    text: '10.0.0.1 timeout 1h, 10.0.0.2 timeout 90s',
    raw: [
      { key: ip('10.0.0.1'), timeout: 3_600_000 },
      { key: ip('10.0.0.2'), timeout: 90_000 },
    ],
  },
  concatenations: {
    kind: 'set',
    spec: '{ type ipv4_addr . inet_proto . inet_service; }',
    text: '10.0.0.1 . tcp . 80, 10.0.0.2 . udp . 53',
    raw: [{ key: join(ip('10.0.0.1'), u8(6), port(80)) }, { key: join(ip('10.0.0.2'), u8(17), port(53)) }],
  },
  'concatenated intervals': {
    kind: 'set',
    spec: '{ type ipv6_addr . inet_service; flags interval; }',
    text: 'fd00::/64 . 1000-2000, fd00:1::7 . 80',
    raw: [
      { key: join(ip('fd00::'), port(1000)), keyEnd: join(ip('fd00::ffff:ffff:ffff:ffff'), port(2000)) },
      { key: join(ip('fd00:1::7'), port(80)), keyEnd: join(ip('fd00:1::7'), port(80)) },
    ],
  },
  'a map to verdicts': {
    kind: 'map',
    spec: '{ type ipv4_addr . inet_service : verdict; }',
    text: '10.0.0.1 . 80 : goto c1, 10.0.0.2 . 80 : jump c2, 10.0.0.3 . 80 : drop, 10.0.0.4 . 80 : accept, 10.0.0.5 . 80 : return, 10.0.0.6 . 80 : continue',
    raw: [
      { key: join(ip('10.0.0.1'), port(80)), data: { code: 'goto', chain: 'c1' } },
      { key: join(ip('10.0.0.2'), port(80)), data: { code: 'jump', chain: 'c2' } },
      { key: join(ip('10.0.0.3'), port(80)), data: { code: 'drop' } },
      { key: join(ip('10.0.0.4'), port(80)), data: { code: 'accept' } },
      { key: join(ip('10.0.0.5'), port(80)), data: { code: 'return' } },
      { key: join(ip('10.0.0.6'), port(80)), data: { code: 'continue' } },
    ],
  },
  'a map to addresses and ports': {
    kind: 'map',
    spec: '{ type inet_service : ipv6_addr . inet_service; }',
    text: '80 : fd00::1 . 8080, 443 : fd00::2 . 8443',
    raw: [
      { key: port(80), data: join(ip('fd00::1'), port(8080)) },
      { key: port(443), data: join(ip('fd00::2'), port(8443)) },
    ],
  },
  'a map with a catch-all': {
    kind: 'map',
    spec: '{ type ipv4_addr : verdict; }',
    text: '10.0.0.1 : accept, * : drop',
    raw: [
      { key: ip('10.0.0.1'), data: { code: 'accept' } },
      { key: new Uint8Array(), catchall: true, data: { code: 'drop' } },
    ],
  },
};

Object.entries(cases).forEach(([what, { kind, spec, text, raw }], i) => {
  test(`${what}: ours as nft lists them, nft's as we read them, and ours deleted`, () => {
    const [theirs, ours] = [`theirs${i}`, `ours${i}`];
    for (const name of [theirs, ours]) nft(`add ${kind} inet t ${name} ${spec}`);
    nft(`add element inet t ${theirs} { ${text} }`);
    apply(of(ours, 'add', raw));
    assert.deepEqual(listed(kind, ours), listed(kind, theirs));
    assert.deepEqual(plain(sorted(dump(ours))), plain(sorted(raw)));
    assert.deepEqual(plain(sorted(dump(theirs))), plain(sorted(raw)));
    apply(of(ours, 'add', raw)); // again is no error
    apply(of(theirs, 'delete', raw));
    assert.deepEqual(dump(theirs), []);
    apply(of(ours, 'flush'));
    assert.deepEqual(listed(kind, ours), []);
  });
});

describe('transactions', () => {
  const key = (n: number): NftElement => ({ key: ip(`10.${n >> 16}.${(n >> 8) & 255}.${n & 255}`) });
  before(() => {
    nft('add set inet t plain { type ipv4_addr; }; add map inet t m { type ipv4_addr : ipv4_addr; }');
  });

  test('twenty thousand elements in one, by many messages', () => {
    const many = Array.from({ length: 20_000 }, (_, i) => key(i));
    apply(of('plain', 'add', many));
    assert.equal(dump('plain').length, 20_000);
    apply(of('plain', 'delete', many.slice(1)));
    assert.deepEqual(plain(dump('plain')), plain([key(0)]));
    apply(of('plain', 'flush'));
  });

  test('all or nothing: a refusal names set and element, and the rest is not done either', () => {
    apply(of('m', 'add', [{ ...key(5), data: ip('1.1.1.1') }]));
    const other = [4, 5, 6].map((n) => ({ ...key(n), data: ip('2.2.2.2') }));
    assert.throws(
      () => apply(of('plain', 'add', [key(1)]), of('m', 'add', other)),
      (error) => {
        assert.ok(isWeftError(error, 'WEFT_NFT_REJECTED'));
        assert.match(error.message, /nft set inet t m, element 1 \(key 0a000005\)/);
        assert.equal(error.details.change, 1);
        assert.equal(error.details.element, 1);
        return true;
      },
    );
    assert.deepEqual(dump('plain'), []);
    // Replacing the data of a key is a deletion and an addition in one transaction.
    apply(of('m', 'delete', [key(5)]), of('m', 'add', other));
    assert.equal(dump('m').length, 3);
  });

  test('flush and fill in one: nobody sees the set empty', () => {
    apply(of('plain', 'add', [key(1), key(2)]));
    apply(of('plain', 'flush'), of('plain', 'add', [key(2), key(3)]));
    assert.deepEqual(plain(sorted(dump('plain'))), plain([key(2), key(3)]));
    apply(of('plain', 'flush'));
  });

  test('deleting what is not there is no error, and does not stop what goes with it', () => {
    apply(of('plain', 'add', [key(1), key(2)]));
    apply(
      of('plain', 'delete', [key(9), key(1), key(8)]),
      of('plain', 'add', [key(7)]),
      of('plain', 'delete', [key(7), key(77)]),
    );
    assert.deepEqual(plain(sorted(dump('plain'))), plain([key(2)]));
    apply(of('plain', 'delete', [key(9)]));
    apply();
    apply(of('plain', 'delete', []));
    assert.deepEqual(plain(dump('plain')), plain([key(2)]));
  });

  test('a set or table that is not there', () => {
    for (const change of [
      of('nowhere', 'add', [key(1)]),
      of('nowhere', 'delete', [key(1)]),
      of('nowhere', 'flush'),
      { ...of('plain', 'add', [key(1)]), table: 'nowhere' },
    ]) {
      assert.throws(
        () => apply(change),
        (e) => isWeftError(e, 'WEFT_NFT_REJECTED') && e.details.errnoName === 'ENOENT',
        JSON.stringify(change),
      );
    }
    assert.throws(
      () => dump('nowhere'),
      (e) => isWeftError(e, 'WEFT_NFT_REJECTED') && /inet t nowhere/.test(e.message),
    );
  });

  test('keys of the wrong length are refused by the kernel, with its reason', () => {
    assert.throws(
      () => apply(of('plain', 'add', [key(1), { key: ip('fd00::1') }])),
      (e) => isWeftError(e, 'WEFT_NFT_REJECTED') && e.details.element === 1,
    );
  });
});
