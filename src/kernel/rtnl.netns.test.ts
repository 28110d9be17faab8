/** What we write is what ip(8) and bridge(8) show; what they write is what we read. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import type { FdbEntry, Link, Route } from '../base/net-objects.ts';
import { routeTo } from './rtnl.ts';
import { bridgeFdb, ip, ipJson, openDescriptors } from './testing/scratch.ts';
import { Workbench } from './testing/workbench.ts';
import type { Op } from './types.ts';

const bench = new Workbench('rtnl');
const { scratch, namespaces } = bench;
after(() => bench.close());

/** What `ip -d -j link` says, in our words. */
function fromIpLink(o: Record<string, unknown>): Partial<Link> {
  const info = (o.linkinfo ?? {}) as { info_kind?: string };
  const group = o.group === 'default' ? 0 : Number(o.group);
  const flags = o.flags as string[];
  return {
    kind: 'link',
    name: String(o.ifname),
    index: Number(o.ifindex),
    up: flags.includes('UP'),
    carrier: flags.includes('LOWER_UP'),
    ...(typeof o.address === 'string' && { mac: o.address }), // a tun has none
    mtu: Number(o.mtu),
    group,
    txqlen: Number(o.txqlen),
    ...(info.info_kind && { type: info.info_kind }),
    ...(typeof o.ifalias === 'string' && { alias: o.ifalias }),
    ...(typeof o.master === 'string' && { master: o.master }),
    ...(o.inet6_addr_gen_mode === 'none' && { addrGenMode: 'none' as const }),
    ...(o.inet6_addr_gen_mode === 'eui64' && { addrGenMode: 'eui64' as const }),
  };
}

/** Fields that `ip -j` gives in a form of its own are compared in their own tests. */
function comparable(l: Link): Partial<Link> {
  const { vxlan, bridge, macvlan, linkIndex, linkNetnsid, peer, ...rest } = l;
  return rest;
}

const mac = '02:57:65:66:74:01';

test('a veth straight into two namespaces, configured in the same program', () => {
  const [host, pod] = [scratch.create(), scratch.create()];
  const result = bench.run(
    {
      ns: host,
      ops: [
        {
          op: 'link.create',
          link: {
            kind: 'link',
            name: 'weft0123456789a',
            type: 'veth',
            mac,
            mtu: 1450,
            group: 0x57e0,
            alias: 'weft:4711/eth0',
            addrGenMode: 'none',
            txqlen: 1000,
            up: true,
            peer: { name: 'eth0', netns: pod, mac: '02:00:00:00:00:07', mtu: 1450, addrGenMode: 'none' },
          },
        },
      ],
    },
    {
      ns: pod,
      ops: [
        { op: 'link.set', link: { name: 'eth0', up: true } },
        { op: 'address.replace', address: { kind: 'address', dev: 'eth0', address: '10.9.0.7/32' } },
        {
          op: 'address.replace',
          address: { kind: 'address', dev: 'eth0', address: 'fd09::7/128', noDad: true },
        },
        { op: 'neighbour.replace', neighbour: { kind: 'neighbour', dev: 'eth0', dst: '169.254.1.1', mac } },
        {
          op: 'route.replace',
          route: { kind: 'route', dst: '0.0.0.0/0', via: '169.254.1.1', dev: 'eth0', onlink: true },
        },
        {
          op: 'route.replace',
          route: { kind: 'route', dst: '::/0', via: 'fe80::1', dev: 'eth0', onlink: true },
        },
      ],
    },
  );
  assert.deepEqual(result, { failures: [], stopped: false });
  for (const [ns, name] of [
    [host, 'weft0123456789a'],
    [pod, 'eth0'],
  ] as const) {
    const shown = ipJson(ns, 'link', 'show', 'dev', name)[0]!;
    assert.deepEqual(comparable(bench.link(ns, name)), fromIpLink(shown));
    assert.equal(shown.mtu, 1450);
    assert.equal(shown.inet6_addr_gen_mode, 'none');
  }
  assert.equal(ipJson(host, 'link', 'show', 'dev', 'weft0123456789a')[0]!.ifalias, 'weft:4711/eth0');
  assert.equal(bench.link(host, 'weft0123456789a').linkIndex, bench.link(pod, 'eth0').index);
  const addresses = ipJson(pod, 'addr', 'show', 'dev', 'eth0')[0]!.addr_info as Array<
    Record<string, unknown>
  >;
  // No link-local address: addrGenMode came before up.
  assert.deepEqual(
    addresses.map((a) => `${a.local}/${a.prefixlen}`),
    ['10.9.0.7/32', 'fd09::7/128'],
  );
  assert.equal(addresses[1]!.tentative, undefined);
  assert.deepEqual(ipJson(pod, 'route', 'show', 'default')[0], {
    type: 'unicast',
    dst: 'default',
    gateway: '169.254.1.1',
    dev: 'eth0',
    protocol: '87',
    scope: 'global',
    flags: ['onlink'],
  });
  assert.equal(routeTo(namespaces.take(pod).route, '192.0.2.1').via, '169.254.1.1');
});

test('bridge, vxlan and macvlan, ours as ip shows them and theirs as we read them', () => {
  const ns = scratch.create();
  ip(ns, 'link', 'add', 'under', 'type', 'veth', 'peer', 'name', 'over');
  ip(ns, 'link', 'set', 'under', 'up');
  const vxlan = {
    id: 77,
    port: 8472,
    local: '10.0.0.1',
    dev: 'under',
    learning: false,
    udpCsum: true,
    udp6ZeroCsumTx: true,
    udp6ZeroCsumRx: true,
    ttl: 9,
    srcPortRange: [4000, 5000] as [number, number],
  };
  bench.does(
    ns,
    {
      op: 'link.create',
      link: {
        kind: 'link',
        name: 'br0',
        type: 'bridge',
        up: true,
        bridge: { forwardDelay: 0, ageingTime: 12300 },
      },
    },
    { op: 'link.create', link: { kind: 'link', name: 'vx0', type: 'vxlan', master: 'br0', vxlan, up: true } },
    {
      op: 'link.create',
      link: { kind: 'link', name: 'mv0', type: 'macvlan', macvlan: { dev: 'under', mode: 'bridge' } },
    },
  );
  const shown = Object.fromEntries(ipJson(ns, 'link').map((o) => [o.ifname, o]));
  const data = (name: string): Record<string, unknown> =>
    (shown[name] as { linkinfo: { info_data: Record<string, unknown> } }).linkinfo.info_data;
  assert.equal(data('br0').forward_delay, 0);
  assert.equal(data('br0').ageing_time, 12300);
  assert.equal((shown.vx0 as { master: string }).master, 'br0');
  assert.equal(data('mv0').mode, 'bridge');
  const v = data('vx0');
  assert.deepEqual(
    [
      v.id,
      v.port,
      v.local,
      v.link,
      v.learning,
      v.udp_csum,
      v.udp_zero_csum6_tx,
      v.udp_zero_csum6_rx,
      v.ttl,
      v.port_range,
    ],
    [77, 8472, '10.0.0.1', 'under', false, true, true, true, 9, { low: 4000, high: 5000 }],
  );
  assert.deepEqual(bench.link(ns, 'vx0').vxlan, vxlan);
  assert.deepEqual(bench.link(ns, 'br0').bridge, {
    vlanFiltering: false,
    forwardDelay: 0,
    ageingTime: 12300,
  });
  // The other way round.
  ip(ns, 'link', 'add', 'br1', 'type', 'bridge', 'forward_delay', '400');
  ip(
    ns,
    'link',
    'add',
    'vx1',
    'type',
    'vxlan',
    'id',
    '5',
    'dstport',
    '4789',
    'local',
    'fd00::1',
    'udp6zerocsumtx',
  );
  ip(ns, 'link', 'add', 'mv1', 'link', 'under', 'type', 'macvlan', 'mode', 'private');
  ip(ns, 'tuntap', 'add', 'tun0', 'mode', 'tun');
  ip(ns, 'link', 'set', 'vx1', 'alias', 'weft:x', 'group', '9', 'mtu', '1300');
  for (const o of ipJson(ns, 'link'))
    assert.deepEqual(comparable(bench.link(ns, String(o.ifname))), fromIpLink(o));
  assert.equal(bench.link(ns, 'br1').bridge?.forwardDelay, 400);
  assert.deepEqual(
    [
      bench.link(ns, 'vx1').vxlan?.id,
      bench.link(ns, 'vx1').vxlan?.port,
      bench.link(ns, 'vx1').vxlan?.local,
      bench.link(ns, 'vx1').vxlan?.udp6ZeroCsumTx,
    ],
    [5, 4789, 'fd00::1', true],
  );
  assert.deepEqual(bench.link(ns, 'mv1').macvlan, { dev: 'under', mode: 'private' });
  assert.equal(bench.link(ns, 'tun0').type, 'tun');
  // Options of a kind can be changed later, and a link leaves its bridge.
  bench.does(
    ns,
    { op: 'link.set', link: { name: 'br1', type: 'bridge', bridge: { forwardDelay: 1500 } } },
    { op: 'link.set', link: { name: 'vx0', master: '' } },
    { op: 'link.set', link: { name: 'mv1', mtu: 1400 }, rename: 'mv2' },
    { op: 'link.set', link: { name: 'mv2', up: true } },
  );
  assert.equal(bench.link(ns, 'br1').bridge?.forwardDelay, 1500);
  assert.equal(bench.link(ns, 'vx0').master, undefined);
  assert.deepEqual([bench.link(ns, 'mv2').mtu, bench.link(ns, 'mv2').up], [1400, true]);
});

test('a link moves to another namespace', () => {
  const [from, to] = [scratch.create(), scratch.create()];
  const before = openDescriptors();
  bench.does(
    from,
    { op: 'link.create', link: { kind: 'link', name: 'v0', type: 'veth', peer: { name: 'v1' } } },
    { op: 'link.set', link: { name: 'v0' }, rename: 'v9', netns: to },
  );
  assert.equal(bench.link(to, 'v9').linkIndex, bench.link(from, 'v1').index);
  assert.deepEqual(
    bench.dump(from, 'link').map((l) => l.kind === 'link' && l.name),
    ['lo', 'v1'],
  );
  assert.equal(openDescriptors(), before);
});

test('addresses', () => {
  const ns = scratch.create();
  bench.addPair(ns);
  bench.does(
    ns,
    { op: 'address.replace', address: { kind: 'address', dev: 'a', address: '10.0.0.1/24' } }, // twice is once
    {
      op: 'address.replace',
      address: { kind: 'address', dev: 'b', address: '192.0.2.1/32', peer: '192.0.2.2', scope: 'link' },
    },
    {
      op: 'address.replace',
      address: { kind: 'address', dev: 'b', address: 'fd01::1/128', noDad: true, noPrefixRoute: true },
    },
  );
  ip(ns, 'addr', 'add', '10.0.0.2/24', 'dev', 'a');
  ip(ns, 'addr', 'add', 'fd00::2/64', 'dev', 'a', 'nodad', 'noprefixroute');
  const shown = ipJson(ns, 'addr').flatMap((o) =>
    (o.addr_info as Array<Record<string, unknown>>).map((a) => ({
      dev: o.ifname,
      address: `${a.local}/${a.prefixlen}`,
      peer: a.address,
      scope: a.scope,
      noDad: a.nodad,
      noPrefixRoute: a.noprefixroute,
    })),
  );
  const ours = bench.dump(ns, 'address').map((a) => {
    assert.ok(a.kind === 'address');
    const { dev, address, peer, scope, noDad, noPrefixRoute } = a;
    return { dev, address, peer, scope, noDad, noPrefixRoute };
  });
  const order = (x: { address: string }, y: { address: string }): number => (x.address < y.address ? -1 : 1);
  assert.deepEqual(ours.sort(order), shown.sort(order));
  assert.equal(bench.dump(ns, 'address', { family: 6 }).length, 4);
  const gone: Op = { op: 'address.delete', address: { kind: 'address', dev: 'a', address: '10.0.0.2/24' } };
  bench.does(ns, gone);
  const [failure] = bench.run({ ns, ops: [gone] }).failures;
  assert.deepEqual([failure?.errnoName, failure?.gone], ['EADDRNOTAVAIL', true]);
});

/** One line per route, as `ip -j route` says it. */
function fromIpRoute(o: Record<string, unknown>, family: 4 | 6): Record<string, unknown> {
  const whole = family === 4 ? '0.0.0.0/0' : '::/0';
  const dst = o.dst === 'default' ? whole : String(o.dst);
  const via = (o.gateway ?? (o.via as { host: string } | undefined)?.host) as string | undefined;
  const flags = (o.flags ?? []) as string[];
  return {
    dst: dst.includes('/') ? dst : `${dst}/${family === 4 ? 32 : 128}`,
    type: o.type === 'unicast' ? undefined : o.type,
    scope: o.scope === 'global' ? undefined : o.scope,
    via,
    dev: o.dev,
    metric: o.metric,
    src: o.prefsrc,
    mtu: (o.metrics as Array<{ mtu?: number }> | undefined)?.[0]?.mtu,
    onlink: flags.includes('onlink') || undefined,
    nexthops: (o.nexthops as Array<Record<string, unknown>> | undefined)?.map((h) => ({
      via: h.gateway ?? (h.via as { host: string } | undefined)?.host,
      dev: h.dev,
      weight: h.weight,
      onlink: (h.flags as string[]).includes('onlink') || undefined,
    })),
  };
}

function plainRoute(r: Route): Record<string, unknown> {
  const { dst, type, scope, via, dev, metric, src, mtu, onlink } = r;
  const nexthops = r.nexthops?.map((h) => ({ via: h.via, dev: h.dev, weight: h.weight, onlink: h.onlink }));
  return { dst, type, scope, via, dev, metric, src, mtu, onlink, nexthops };
}

test('routes in any table, with one next hop or several', () => {
  const ns = scratch.create();
  bench.addPair(ns);
  const table = 87_000;
  const route = (r: Omit<Route, 'kind'>): Op => ({
    op: 'route.replace',
    route: { kind: 'route', table, ...r },
  });
  bench.does(
    ns,
    route({ dst: '10.1.0.0/16', via: '10.0.0.9', dev: 'a', mtu: 1400, src: '10.0.0.1', metric: 5 }),
    route({ dst: '10.2.0.0/16', dev: 'b' }),
    route({ dst: '10.3.0.0/16', via: '172.16.0.1', dev: 'a', onlink: true }),
    route({ dst: '10.4.0.0/16', via: 'fd00::9', dev: 'a' }),
    route({ dst: '10.5.0.0/16', type: 'blackhole' }),
    route({
      dst: '10.6.0.0/16',
      nexthops: [
        { via: '10.0.0.8', dev: 'a' },
        { via: '10.0.0.9', dev: 'a', weight: 256 },
      ],
    }),
    route({ dst: '0.0.0.0/0', type: 'unreachable', metric: 4278198272 }),
    route({ dst: 'fd01::/64', via: 'fd00::9', dev: 'a', mtu: 1400 }),
    route({ dst: 'fd02::/64', dev: 'b', metric: 7 }),
    route({
      dst: 'fd03::/64',
      nexthops: [
        { via: 'fd00::8', dev: 'a' },
        { via: 'fd00::9', dev: 'a', weight: 3 },
      ],
    }),
    route({ dst: '::/0', via: 'fe80::1', dev: 'a', onlink: true }),
  );
  ip(
    ns,
    'route',
    'add',
    '10.8.0.0/16',
    'via',
    '10.0.0.3',
    'dev',
    'a',
    'table',
    String(table),
    'proto',
    'static',
  );
  ip(ns, '-6', 'route', 'add', 'prohibit', 'fd08::/64', 'table', String(table));
  for (const family of [4, 6] as const) {
    const shown = ipJson(ns, `-${family}`, 'route', 'show', 'table', String(table)).map((o) =>
      fromIpRoute(o, family),
    );
    const ours = bench.routes(ns, { family, table }).map(plainRoute);
    assert.equal(JSON.stringify(ours), JSON.stringify(shown));
    assert.equal(ours.length, family === 4 ? 8 : 5);
  }
  assert.equal(bench.routes(ns, { table, protocol: 87 }).length, 11);
  assert.equal(bench.routes(ns, { table: 4_000_000 }).length, 0);
  // Replace: same key, other next hop; then deletion of everything of ours, from what the dump said.
  bench.does(ns, route({ dst: '10.6.0.0/16', via: '10.0.0.7', dev: 'a' }));
  assert.deepEqual(
    bench
      .routes(ns, { table, family: 4 })
      .filter((r) => r.dst === '10.6.0.0/16')
      .map((r) => [r.via, r.nexthops]),
    [['10.0.0.7', undefined]],
  );
  bench.does(
    ns,
    ...bench.routes(ns, { table, protocol: 87 }).map((r): Op => ({ op: 'route.delete', route: r })),
  );
  assert.deepEqual(bench.routes(ns, { table, protocol: 87 }), []);
  assert.equal(bench.routes(ns, { table }).length, 2); // not ours
  const foreign: Op = { op: 'route.delete', route: { kind: 'route', dst: '10.8.0.0/16', table } };
  assert.deepEqual(
    bench.run({ ns, ops: [foreign] }).failures.map((f) => [f.errnoName, f.gone]),
    [['ESRCH', true]],
  );
  assert.equal(bench.routes(ns, { table }).length, 2); // without a protocol, only ours are deleted
});

test('rules', () => {
  const ns = scratch.create();
  const op = (o: 'rule.add' | 'rule.delete', priority: number, rest: object, family: 4 | 6 = 4): Op => ({
    op: o,
    rule: { kind: 'rule', family, priority, ...rest },
  });
  const all: Array<[number, object, (4 | 6)?]> = [
    [100, { table: 100, src: '10.0.0.0/8', dst: '10.1.0.0/16', iif: 'lo', oif: 'eth9' }],
    [101, { table: 70000, fwmark: 0x570000, fwmask: 0xff0000, invert: true }],
    [102, { table: 254, suppressPrefixLength: 0 }],
    [103, { action: 'prohibit', dst: '192.0.2.0/24' }],
    [104, { table: 100, src: 'fd00::/8' }, 6],
    [105, { action: 'goto', goto: 32766, fwmark: 7 }],
  ];
  bench.does(ns, ...all.map(([priority, rest, family]) => op('rule.add', priority, rest, family)));
  const shown = [...ipJson(ns, '-4', 'rule'), ...ipJson(ns, '-6', 'rule')].filter((o) => o.protocol === '87');
  assert.deepEqual(
    shown.map((o) => [
      o.priority,
      o.src,
      o.srclen,
      o.dst,
      o.dstlen,
      o.iif,
      o.oif,
      o.fwmark,
      o.fwmask,
      o.table,
      o.not === null,
    ]),
    [
      [100, '10.0.0.0', 8, '10.1.0.0', 16, 'lo', 'eth9', undefined, undefined, '100', false],
      [
        101,
        'all',
        undefined,
        undefined,
        undefined,
        undefined,
        undefined,
        '0x570000',
        '0xff0000',
        '70000',
        true,
      ],
      [
        102,
        'all',
        undefined,
        undefined,
        undefined,
        undefined,
        undefined,
        undefined,
        undefined,
        'main',
        false,
      ],
      [103, 'all', undefined, '192.0.2.0', 24, undefined, undefined, undefined, undefined, undefined, false],
      [105, 'all', undefined, undefined, undefined, undefined, undefined, '0x7', undefined, undefined, false],
      [104, 'fd00::', 8, undefined, undefined, undefined, undefined, undefined, undefined, '100', false],
    ],
  );
  const ours = bench.dump(ns, 'rule', { protocol: 87 });
  assert.deepEqual(
    ours,
    [...all]
      .sort((x, y) => (x[2] ?? 4) - (y[2] ?? 4))
      .map(([priority, rest, family = 4]) => ({
        kind: 'rule',
        family,
        priority,
        action: 'lookup',
        protocol: 87,
        ...rest,
      })),
  );
  const twice = bench.run({ ns, ops: [op('rule.add', 103, { action: 'prohibit', dst: '192.0.2.0/24' })] });
  assert.equal(twice.failures[0]?.errnoName, 'EEXIST');
  bench.does(ns, ...ours.map((rule): Op => ({ op: 'rule.delete', rule: rule as never })));
  assert.deepEqual(bench.dump(ns, 'rule', { protocol: 87 }), []);
});

test('neighbours, proxies and forwarding entries', () => {
  const ns = scratch.create();
  bench.addPair(ns);
  bench.does(
    ns,
    {
      op: 'neighbour.replace',
      neighbour: { kind: 'neighbour', dev: 'a', dst: '10.0.0.9', mac: '02:00:00:00:00:09' },
    },
    {
      op: 'neighbour.replace',
      neighbour: { kind: 'neighbour', dev: 'a', dst: 'fe80::9', mac: '02:00:00:00:00:09', router: true },
    },
    { op: 'neighbour.replace', neighbour: { kind: 'neighbour', dev: 'a', dst: '10.0.0.10', proxy: true } },
    {
      op: 'link.create',
      link: {
        kind: 'link',
        name: 'vx',
        type: 'vxlan',
        vxlan: { id: 3, port: 8472, learning: false },
        up: true,
        addrGenMode: 'none',
      },
    },
    { op: 'link.create', link: { kind: 'link', name: 'br', type: 'bridge', up: true, addrGenMode: 'none' } },
    { op: 'link.set', link: { name: 'b', master: 'br' } },
    { op: 'fdb.replace', fdb: { kind: 'fdb', dev: 'vx', mac: '02:00:00:00:01:01', dst: '10.0.0.9' } },
    {
      op: 'fdb.replace',
      fdb: { kind: 'fdb', dev: 'vx', mac: '02:00:00:00:01:01', dst: '10.0.0.8', port: 4789, vni: 9 },
    },
    { op: 'fdb.append', fdb: { kind: 'fdb', dev: 'vx', mac: '00:00:00:00:00:00', dst: '10.0.0.9' } },
    { op: 'fdb.append', fdb: { kind: 'fdb', dev: 'vx', mac: '00:00:00:00:00:00', dst: '10.0.0.8' } },
    { op: 'fdb.replace', fdb: { kind: 'fdb', dev: 'b', mac: '02:00:00:00:02:02', flags: ['master'] } },
  );
  ip(ns, 'neigh', 'add', '10.0.0.11', 'lladdr', '02:00:00:00:00:0b', 'dev', 'a', 'nud', 'noarp');
  const shown = ipJson(ns, 'neigh', 'show', 'nud', 'all').filter(
    (o) => !(o.state as string[]).includes('NOARP') || o.dst === '10.0.0.11',
  );
  const ours = bench
    .dump(ns, 'neighbour')
    .filter((n) => n.kind === 'neighbour' && !n.proxy && (n.state !== 'noarp' || n.dst === '10.0.0.11'));
  const byDst = (x: { dst?: unknown }, y: { dst?: unknown }): number =>
    String(x.dst) < String(y.dst) ? -1 : 1;
  assert.deepEqual(
    ours
      .map(
        (n) =>
          n.kind === 'neighbour' && {
            dst: n.dst,
            dev: n.dev,
            lladdr: n.mac,
            router: n.router && null,
            state: [n.state?.toUpperCase()],
            protocol: n.protocol && String(n.protocol),
          },
      )
      .sort(byDst as never),
    shown
      .map((o) => ({
        dst: o.dst,
        dev: o.dev,
        lladdr: o.lladdr,
        router: o.router,
        state: o.state,
        protocol: o.protocol,
      }))
      .sort(byDst),
  );
  assert.deepEqual(
    bench
      .dump(ns, 'neighbour')
      .filter((n) => n.kind === 'neighbour' && n.proxy)
      .map((n) => n.kind === 'neighbour' && n.dst),
    ['10.0.0.10'],
  );
  const entry = (o: {
    mac?: unknown;
    dst?: unknown;
    dev?: unknown;
    ifname?: unknown;
    port?: unknown;
    vni?: unknown;
  }): string => [o.mac, o.ifname ?? o.dev, o.dst, o.port, o.vni].filter((x) => x !== undefined).join(' ');
  const fdb = bench.dump(ns, 'fdb') as FdbEntry[];
  // What is learned from traffic may differ between the two looks.
  const fixed = fdb.filter((e) => e.state === 'permanent' || e.state === 'noarp');
  const shownFixed = bridgeFdb(ns).filter((o) => o.state === 'permanent' || o.state === 'static');
  assert.deepEqual(fixed.map(entry).sort(), shownFixed.map(entry).sort());
  assert.ok(fdb.map(entry).includes('02:00:00:00:01:01 vx 10.0.0.8 4789 9'));
  assert.ok(!fdb.map(entry).includes('02:00:00:00:01:01 vx 10.0.0.9'));
  assert.equal(fdb.filter((e) => e.mac === '00:00:00:00:00:00').length, 2);
  assert.deepEqual(fdb.find((e) => e.mac === '02:00:00:00:02:02')?.flags, ['master']);
  bench.does(
    ns,
    ...fdb.filter((e) => e.dev === 'vx').map((e): Op => ({ op: 'fdb.delete', fdb: e })),
    { op: 'fdb.delete', fdb: { kind: 'fdb', dev: 'b', mac: '02:00:00:00:02:02', flags: ['master'] } },
    { op: 'neighbour.delete', neighbour: { kind: 'neighbour', dev: 'a', dst: 'fe80::9' } },
    { op: 'neighbour.delete', neighbour: { kind: 'neighbour', dev: 'a', dst: '10.0.0.10', proxy: true } },
  );
  assert.deepEqual(
    (bench.dump(ns, 'fdb') as FdbEntry[]).filter((e) => e.dev === 'vx'),
    [],
  );
});
