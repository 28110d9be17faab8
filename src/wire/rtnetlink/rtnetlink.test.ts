import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../../base/errors.ts';
import { bigIntToIp, canonicalCidr, formatMac } from '../../base/ip.ts';
import type {
  Address,
  FdbEntry,
  Neighbour,
  NetObject,
  NextHop,
  Route,
  Rule,
} from '../../base/net-objects.ts';
import { eachMessage, type NlMessage, NlWriter } from '../netlink.ts';
import { encodeAddress } from './address.ts';
import { encodeFdb } from './fdb.ts';
import { decodeLink, decodeLinkName, encodeLinkCreate, encodeLinkSet } from './link.ts';
import { encodeNeighbour } from './neighbour.ts';
import { attributeName, decodeObject } from './object.ts';
import { encodeRoute } from './route.ts';
import { encodeRule } from './rule.ts';

const devices = ['lo', 'eth0', 'weft0123456789a', 'br-x'];
const indexOf = (name: string): number => devices.indexOf(name) + 1;
const nameOf = (index: number): string => devices[index - 1] ?? `#${index}`;
const messageOf = (bytes: Uint8Array): NlMessage => [...eachMessage(bytes)][0]!;
const decode = (bytes: Uint8Array): NetObject | undefined => decodeObject(messageOf(bytes), nameOf)?.object;

const dev = fc.constantFrom(...devices);
const ip4 = fc.bigInt({ min: 0n, max: (1n << 32n) - 1n }).map((n) => bigIntToIp(n, 4));
const ip6 = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }).map((n) => bigIntToIp(n, 6));
const mac = fc.uint8Array({ minLength: 6, maxLength: 6 }).map(formatMac);
const u32 = fc.integer({ min: 1, max: 0xffffffff });
const cidr = (family: 4 | 6): fc.Arbitrary<string> =>
  fc
    .tuple(family === 4 ? ip4 : ip6, fc.integer({ min: 0, max: family === 4 ? 32 : 128 }))
    .map(([ip, length]) => canonicalCidr(`${ip}/${length}`));
const some = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.option(arbitrary, { nil: undefined });
/** Without the fields that are undefined: absent is absent. */
const compact = <T extends object>(value: T): T => JSON.parse(JSON.stringify(value));

const family = fc.constantFrom(4 as const, 6 as const);

test('addresses', () => {
  const address = family.chain((f) =>
    fc.record({
      kind: fc.constant('address' as const),
      dev,
      address: fc
        .tuple(f === 4 ? ip4 : ip6, fc.integer({ min: 0, max: f === 4 ? 32 : 128 }))
        .map(([ip, length]) => `${ip}/${length}`),
      scope: fc.constantFrom('global', 'link', 'host', 'site'),
      noDad: some(fc.constant(true)),
      noPrefixRoute: some(fc.constant(true)),
    }),
  );
  fc.assert(
    fc.property(address, (value) => {
      const { flags, index, ...read } = decode(
        encodeAddress('replace', value as Address, indexOf),
      ) as Address;
      assert.deepEqual(read, compact(value));
      assert.equal(flags?.includes('nodad') ?? false, value.noDad ?? false);
      assert.equal(index, indexOf(value.dev));
    }),
  );
  const peer: Address = { kind: 'address', dev: 'eth0', address: '10.0.0.1/32', peer: '10.0.0.2' };
  assert.equal((decode(encodeAddress('replace', peer, indexOf)) as Address).peer, '10.0.0.2');
});

test('routes: one next hop or many, in any table, through either family', () => {
  const route = family.chain((f) => {
    const ip = f === 4 ? ip4 : ip6;
    const hop = fc
      .record({
        via: some(ip),
        dev: some(dev),
        weight: fc.integer({ min: 1, max: 256 }),
        onlink: some(fc.constant(true)),
      })
      .map((h) => compact(h) as NextHop);
    const common = {
      kind: fc.constant('route' as const),
      dst: cidr(f),
      table: u32,
      protocol: fc.integer({ min: 0, max: 255 }),
      metric: some(u32),
      src: some(ip),
      mtu: some(fc.integer({ min: 68, max: 65535 })),
      scope: fc.constantFrom('link' as const, 'host' as const, 'nowhere' as const),
      type: some(fc.constantFrom('local', 'blackhole', 'unreachable', 'prohibit', 'throw')),
    };
    return fc.oneof(
      fc.record({ ...common, via: some(fc.oneof(ip4, ip6)), dev, onlink: some(fc.constant(true)) }),
      fc.record({ ...common, nexthops: fc.array(hop, { minLength: 1, maxLength: 5 }) }),
    );
  });
  fc.assert(
    fc.property(route, (value) => {
      assert.deepEqual(decode(encodeRoute('replace', value as Route, indexOf)), compact(value));
    }),
  );
});

test('routes: what is not given is what ip(8) would give', () => {
  const scopeOf = (route: Omit<Route, 'kind'>): string =>
    (decode(encodeRoute('replace', { kind: 'route', ...route }, indexOf)) as Route).scope ?? 'global';
  assert.equal(scopeOf({ dst: '10.0.0.0/8', dev: 'eth0' }), 'link');
  assert.equal(scopeOf({ dst: '10.0.0.0/8', via: '10.1.1.1' }), 'global');
  assert.equal(scopeOf({ dst: '10.0.0.0/8', type: 'local', dev: 'lo' }), 'host');
  assert.equal(scopeOf({ dst: '10.0.0.0/8', type: 'blackhole' }), 'global');
  assert.equal(scopeOf({ dst: 'fd00::/8', dev: 'eth0' }), 'global');
  const plain = decode(
    encodeRoute('replace', { kind: 'route', dst: '0.0.0.0/0', dev: 'eth0' }, indexOf),
  ) as Route;
  assert.deepEqual([plain.dst, plain.table, plain.protocol], ['0.0.0.0/0', 254, 87]);
});

test('rules', () => {
  const rule = family.chain((f) =>
    fc.record({
      kind: fc.constant('rule' as const),
      family: fc.constant(f),
      priority: u32,
      action: fc.constant('lookup'),
      table: u32,
      src: some(cidr(f).filter((c) => !c.endsWith('/0'))),
      dst: some(cidr(f).filter((c) => !c.endsWith('/0'))),
      iif: some(dev),
      oif: some(dev),
      fwmark: u32,
      fwmask: some(fc.integer({ min: 1, max: 0xfffffffe })),
      invert: some(fc.constant(true)),
      suppressPrefixLength: some(fc.integer({ min: 0, max: 32 })),
      protocol: fc.integer({ min: 1, max: 255 }),
    }),
  );
  fc.assert(
    fc.property(rule, (value) => {
      assert.deepEqual(decode(encodeRule('add', value as Rule)), compact(value));
    }),
  );
  const jump: Rule = { kind: 'rule', family: 4, priority: 5, action: 'goto', goto: 9 };
  assert.deepEqual(decode(encodeRule('add', jump)), { ...jump, protocol: 87 });
  assert.throws(() => encodeRule('add', { kind: 'rule', family: 4, priority: 1, src: 'fd00::/8' }), {
    code: 'WEFT_BAD_CONFIG',
  });
});

test('neighbours and forwarding entries', () => {
  const neighbour = fc.record({
    kind: fc.constant('neighbour' as const),
    dev,
    dst: fc.oneof(ip4, ip6),
    mac,
    state: fc.constantFrom('permanent' as const, 'noarp' as const, 'reachable' as const, 'stale' as const),
    router: some(fc.constant(true)),
    protocol: fc.integer({ min: 1, max: 255 }),
  });
  fc.assert(
    fc.property(neighbour, (value) => {
      const expected = { ...compact(value), index: indexOf(value.dev) };
      assert.deepEqual(decode(encodeNeighbour('replace', value as Neighbour, indexOf)), expected);
    }),
  );
  const proxy: Neighbour = { kind: 'neighbour', dev: 'eth0', dst: '10.0.0.1', proxy: true };
  assert.deepEqual(decode(encodeNeighbour('replace', proxy, indexOf)), { ...proxy, protocol: 87, index: 2 });
  const entry = fc.record({
    kind: fc.constant('fdb' as const),
    dev,
    mac,
    dst: some(fc.oneof(ip4, ip6)),
    port: some(fc.integer({ min: 1, max: 65535 })),
    vni: some(fc.integer({ min: 0, max: 0xffffff })),
    vlan: some(fc.integer({ min: 1, max: 4094 })),
    state: fc.constantFrom('permanent' as const, 'noarp' as const),
    flags: fc
      .subarray(['self', 'master', 'extern_learn', 'router', 'sticky'] as const)
      .filter((flags) => flags.includes('self') || flags.includes('master')),
  });
  fc.assert(
    fc.property(entry, (value) => {
      const expected = { ...compact(value), index: indexOf(value.dev) };
      assert.deepEqual(decode(encodeFdb('append', value as FdbEntry, indexOf)), expected);
    }),
  );
});

test('links: options of each kind', () => {
  const vxlan = {
    id: 7,
    port: 8472,
    local: '10.0.0.1',
    dev: 'eth0',
    learning: false,
    udpCsum: true,
    udp6ZeroCsumTx: false,
    udp6ZeroCsumRx: true,
    ttl: 16,
    srcPortRange: [1000, 2000] as [number, number],
  };
  const one = decodeLink(
    messageOf(
      encodeLinkCreate(
        {
          kind: 'link',
          name: 'weft-vxlan',
          type: 'vxlan',
          mtu: 1450,
          group: 9,
          txqlen: 5,
          master: 'br-x',
          vxlan,
        },
        { indexOf, index: 77 },
      ),
    ).payload,
    nameOf,
  );
  assert.deepEqual(one, {
    kind: 'link',
    name: 'weft-vxlan',
    index: 77,
    up: false,
    carrier: false,
    mtu: 1450,
    group: 9,
    txqlen: 5,
    master: 'br-x',
    type: 'vxlan',
    vxlan,
  });
  const bridge = { vlanFiltering: true, forwardDelay: 200, ageingTime: 30000 };
  const two = messageOf(encodeLinkCreate({ kind: 'link', name: 'b', type: 'bridge', bridge }, { indexOf }));
  assert.deepEqual(decodeLink(two.payload, nameOf)?.bridge, bridge);
  const set = messageOf(
    encodeLinkSet(
      3,
      { up: true, addrGenMode: 'none', alias: 'weft:é', mac: '02:00:00:00:00:01' },
      { indexOf, rename: 'n' },
    ),
  );
  const changed = decodeLink(set.payload, nameOf);
  assert.deepEqual(
    [changed?.name, changed?.up, changed?.addrGenMode, changed?.alias, changed?.mac],
    ['n', true, 'none', 'weft:é', '02:00:00:00:00:01'],
  );
  assert.throws(() => encodeLinkSet(3, { name: 'x', alias: 'é'.repeat(128) }, { indexOf }), {
    code: 'WEFT_BAD_CONFIG',
  });
});

/** Messages of every kind, to be broken. */
const samples: Uint8Array[] = [
  encodeLinkCreate(
    {
      kind: 'link',
      name: 'v',
      type: 'vxlan',
      mac: '02:00:00:00:00:01',
      vxlan: { id: 1, port: 2, srcPortRange: [1, 2] },
    },
    { indexOf },
  ),
  encodeLinkCreate({ kind: 'link', name: 'v', type: 'veth', peer: { name: 'p' } }, { indexOf }),
  encodeLinkSet(3, { addrGenMode: 'none', alias: 'x' }, { indexOf }),
  encodeAddress('replace', { kind: 'address', dev: 'lo', address: 'fd00::1/64', noDad: true }, indexOf),
  encodeRoute(
    'replace',
    {
      kind: 'route',
      dst: '10.0.0.0/8',
      mtu: 1400,
      nexthops: [{ via: '10.1.1.1' }, { via: 'fe80::1', dev: 'lo' }],
    },
    indexOf,
  ),
  encodeRoute(
    'replace',
    { kind: 'route', dst: 'fd00::/8', via: 'fe80::1', dev: 'lo', src: 'fd00::1' },
    indexOf,
  ),
  encodeRule('add', { kind: 'rule', family: 6, priority: 1, src: 'fd00::/8', iif: 'lo', fwmark: 1 }),
  encodeNeighbour(
    'replace',
    { kind: 'neighbour', dev: 'lo', dst: '10.0.0.1', mac: '02:00:00:00:00:01' },
    indexOf,
  ),
  encodeFdb('replace', { kind: 'fdb', dev: 'lo', mac: '02:00:00:00:00:01', dst: 'fd00::1', vni: 3 }, indexOf),
];

test('broken bytes give an object, nothing, or WEFT_NETLINK_MALFORMED', () => {
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), {
    minLength: 1,
    maxLength: 8,
  });
  fc.assert(
    fc.property(fc.constantFrom(...samples), damage, fc.option(fc.nat()), (sample, changes, cut) => {
      const bytes = sample.slice(16, cut === null ? sample.length : 16 + (cut % (sample.length - 16)));
      for (const [at, value] of changes) if (bytes.length) bytes[at % bytes.length] = value;
      const message = { ...messageOf(sample), payload: bytes };
      try {
        decodeObject(message, nameOf);
        decodeLinkName(bytes);
      } catch (error) {
        assert.ok(
          isWeftError(error, 'WEFT_NETLINK_MALFORMED'),
          error instanceof Error ? error.stack : String(error),
        );
      }
    }),
    { numRuns: 5000 },
  );
});

test('attributes have names', () => {
  assert.equal(attributeName(16, [3]), 'IFLA_IFNAME');
  assert.equal(attributeName(16, [18, 2, 15]), 'IFLA_INFO_DATA.15');
  assert.equal(attributeName(24, [5]), 'RTA_GATEWAY');
  assert.equal(attributeName(24, [99]), 'attribute 99');
  assert.equal(attributeName(24, []), undefined);
  assert.equal(decodeObject(messageOf(new NlWriter(99, 0).u32(0).finish()), nameOf), undefined);
});
