import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { syncBuiltinESMExports } from 'node:module';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../base/errors.ts';
import type { Link, Route } from '../base/net-objects.ts';
import { encodeAddressDump } from '../wire/rtnetlink/address.ts';
import { encodeFdbDump } from '../wire/rtnetlink/fdb.ts';
import { encodeLinkDump } from '../wire/rtnetlink/link.ts';
import { encodeNeighbourDump } from '../wire/rtnetlink/neighbour.ts';
import { decodeObject } from '../wire/rtnetlink/object.ts';
import { encodeRouteDump } from '../wire/rtnetlink/route.ts';
import { encodeRuleDump } from '../wire/rtnetlink/rule.ts';
import { Workbench } from './testing/workbench.ts';
import type { Op } from './types.ts';

const bench = new Workbench('program');
const { scratch, namespaces } = bench;
after(() => bench.close());

test('a refusal says what failed, where and why', () => {
  const ns = scratch.create();
  const other = scratch.create();
  bench.does(ns, { op: 'link.create', link: { kind: 'link', name: 'taken', type: 'bridge' } });
  const veth: Link = {
    kind: 'link',
    name: 'taken',
    type: 'veth',
    peer: { name: 'eth0', netns: other, addrGenMode: 'none' },
  };
  const { failures, stopped } = bench.run(
    { ns, ops: [{ op: 'link.create', link: veth }] },
    { ns: other, ops: [{ op: 'link.create', link: { kind: 'link', name: 'never', type: 'bridge' } }] },
  );
  assert.equal(stopped, true);
  assert.deepEqual(failures, [
    {
      step: 0,
      op: 0,
      errno: 17,
      errnoName: 'EEXIST',
      code: 'WEFT_NETLINK_REFUSED',
      gone: false,
      message: `cannot create veth taken (peer eth0 in ${other}) in ${ns}: EEXIST: File exists`,
    },
  ]);
  assert.ok(!bench.dump(other, 'link').some((l) => l.kind === 'link' && l.name !== 'lo'));
  const message = (op: Op): string => bench.run({ ns, ops: [op] }).failures[0]?.message ?? 'no failure';
  assert.match(
    message({
      op: 'route.replace',
      route: { kind: 'route', dst: '10.0.0.0/8', via: '10.9.9.9', dev: 'taken' },
    }),
    /^cannot set route 10\.0\.0\.0\/8 via 10\.9\.9\.9 dev taken in .*: (ENETDOWN|ENETUNREACH): .*$/,
  );
  assert.match(
    message({
      op: 'link.create',
      link: { kind: 'link', name: 'nine', type: 'vxlan', vxlan: { id: 2 ** 24, port: 1 } },
    }),
    /ERANGE: .*VXLAN_ID|ERANGE: .*\(.*IFLA_INFO_DATA.*\)/,
  );
  assert.match(message({ op: 'link.set', link: { name: 'nobody', up: true } }), /ENODEV.*no link nobody/);
  assert.match(
    message({ op: 'link.create', link: { kind: 'link', name: 'w', type: 'nosuch' } }),
    /EOPNOTSUPP.*no nosuch/,
  );
  assert.match(
    message({ op: 'address.replace', address: { kind: 'address', dev: 'taken', address: '10.0.0.300/8' } }),
    /"10\.0\.0\.300" is not an IPv4 address/,
  );
  assert.match(message({ op: 'sysctl.write', path: 'net/ipv4/conf/nobody/rp_filter', value: 1 }), /ENOENT/);
});

test('what stops a program, and what does not', () => {
  const ns = scratch.create();
  const create = (name: string): Op => ({ op: 'link.create', link: { kind: 'link', name, type: 'bridge' } });
  const bad: Op = { op: 'link.set', link: { name: 'nobody', up: true } };
  const gone: Op = { op: 'link.delete', name: 'nobody' };
  const names = (): string[] =>
    bench
      .dump(ns, 'link')
      .map((l) => (l.kind === 'link' ? l.name : ''))
      .sort();
  const first = bench.run(
    { ns, ops: [gone, create('b1')] },
    { ns, ops: [bad, create('b2')] },
    { ns, ops: [create('b3')] },
  );
  assert.deepEqual(
    [first.stopped, first.failures.map((f) => [f.step, f.op, f.gone])],
    [
      true,
      [
        [0, 0, true],
        [1, 0, false],
      ],
    ],
  );
  assert.deepEqual(names(), ['b1', 'lo']);
  const second = bench.run(
    { ns, ops: [bad, create('b2')], continueOnError: true },
    { ns, ops: [create('b3')] },
  );
  assert.deepEqual([second.stopped, second.failures.length], [false, 1]);
  assert.deepEqual(names(), ['b1', 'b2', 'b3', 'lo']);
  const missing = bench.run(
    { ns: `${ns}-gone`, ops: [gone] },
    { ns, ops: [{ op: 'link.delete', name: 'b1' }] },
  );
  assert.deepEqual(
    [missing.stopped, missing.failures[0]?.gone, missing.failures[0]?.code],
    [false, true, 'WEFT_NETNS_NOT_FOUND'],
  );
  assert.deepEqual(names(), ['b2', 'b3', 'lo']);
  const elsewhere = bench.run({ ns: `${ns}-gone`, ops: [create('x')] });
  assert.deepEqual([elsewhere.stopped, elsewhere.failures[0]?.gone], [true, false]);
});

test('an ifindex that is taken: refused when the caller chose it, another one when we did', () => {
  const [ns, far] = [scratch.create(), scratch.create()];
  bench.does(ns, { op: 'link.create', link: { kind: 'link', name: 'b1', type: 'bridge', index: 4711 } });
  const bridge = { kind: 'link', name: 'b2', type: 'bridge', index: 4711 } as const;
  const result = bench.run({ ns, ops: [{ op: 'link.create', link: bridge }] });
  assert.deepEqual(
    result.failures.map((f) => f.errnoName),
    ['EEXIST'],
  );
  const real = crypto.randomInt;
  const numbers = [4711];
  crypto.randomInt = ((from: number, to: number) => numbers.shift() ?? real(from, to)) as typeof real;
  syncBuiltinESMExports();
  try {
    bench.does(
      ns,
      {
        op: 'link.create',
        link: {
          kind: 'link',
          name: 'v0',
          type: 'veth',
          alias: 'weft:x',
          peer: { name: 'v1', netns: far, addrGenMode: 'none' },
        },
      },
      { op: 'link.set', link: { name: 'v0', up: true } },
      { op: 'address.replace', address: { kind: 'address', dev: 'v0', address: '10.0.0.1/24' } },
    );
  } finally {
    crypto.randomInt = real;
    syncBuiltinESMExports();
  }
  assert.deepEqual(numbers, []);
  assert.deepEqual([bench.link(ns, 'b1').alias, bench.link(ns, 'b1').up], [undefined, false]);
  assert.deepEqual([bench.link(ns, 'v0').alias, bench.link(ns, 'v0').up], ['weft:x', true]);
  assert.equal(bench.link(far, 'v1').addrGenMode, 'none');
  assert.equal(bench.dump(ns, 'address', { family: 4 }).length, 2);
});

test('a thousand ops in one step, and all links of a group gone at once', () => {
  const ns = scratch.create();
  const ops: Op[] = [{ op: 'link.create', link: { kind: 'link', name: 'br0', type: 'bridge', up: true } }];
  for (let i = 0; i < 2500; i++) {
    ops.push({
      op: 'route.replace',
      route: { kind: 'route', dst: `10.${i >> 8}.${i & 255}.0/24`, dev: 'br0' },
    });
  }
  bench.does(ns, ...ops);
  assert.equal(bench.routes(ns, { protocol: 87 }).length, 2500);
  // A refusal of each is told of each.
  const refused = bench.run({
    ns,
    ops: ops
      .slice(1)
      .map(
        (op): Op => ({ ...op, op: 'route.delete', route: { ...(op as { route: Route }).route, metric: 9 } }),
      ),
  });
  assert.equal(refused.failures.filter((f) => f.gone).length, 2500);
  const veths = Array.from(
    { length: 20 },
    (_, i): Op => ({
      op: 'link.create',
      link: { kind: 'link', name: `v${i}`, type: 'veth', group: 0x57e0, peer: { name: `w${i}` } },
    }),
  );
  bench.does(ns, ...veths);
  bench.does(ns, { op: 'link.deleteGroup', group: 0x57e0 });
  assert.equal(bench.dump(ns, 'link').length, 2);
});

test('real dumps, damaged, are read or refused', () => {
  const ns = scratch.create();
  bench.addPair(ns);
  bench.does(
    ns,
    {
      op: 'link.create',
      link: { kind: 'link', name: 'vx', type: 'vxlan', vxlan: { id: 3, port: 8472 }, up: true },
    },
    { op: 'route.replace', route: { kind: 'route', dst: 'fd03::/64', via: 'fd00::8', dev: 'a', mtu: 1400 } },
    { op: 'fdb.append', fdb: { kind: 'fdb', dev: 'vx', mac: '00:00:00:00:00:00', dst: '10.0.0.9' } },
  );
  const requests = [
    encodeLinkDump(),
    encodeAddressDump(),
    encodeRouteDump({ family: 4 }),
    encodeRouteDump({ family: 6 }),
    encodeRuleDump(4),
    encodeNeighbourDump(6),
    encodeFdbDump(),
  ];
  const messages = namespaces.use(ns, ({ route }) =>
    requests.flatMap((request) => route.dumpMessages(request)),
  );
  assert.ok(messages.length > 20);
  const damage = fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 6 });
  let read = 0;
  fc.assert(
    fc.property(fc.constantFrom(...messages), damage, fc.nat({ max: 40 }), (message, changes, cut) => {
      const payload = message.payload.slice(0, message.payload.length - (cut > 30 ? cut : 0));
      for (const [at, value] of changes) if (payload.length) payload[at % payload.length] = value;
      try {
        if (decodeObject({ ...message, payload }, String)) read++;
      } catch (error) {
        assert.ok(isWeftError(error, 'WEFT_NETLINK_MALFORMED'), String(error));
      }
    }),
    { numRuns: 3000 },
  );
  assert.ok(read > 300);
});
