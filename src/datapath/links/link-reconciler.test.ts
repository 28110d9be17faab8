import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ManualClock } from '../../base/clock.ts';
import { silentLogger } from '../../base/log.ts';
import { type NetObject, netObjectKey, type Route } from '../../base/net-objects.ts';
import { compileFabric } from '../../fabric/plan.ts';
import { vtepMac } from '../../fabric/vxlan/tunnel.ts';
import type { FabricNode, FabricPlan } from '../../state/fabric-plan.ts';
import { type Drift, type Failure, LinkReconciler } from './link-reconciler.ts';
import { FakeKernel } from './testing/fake-kernel.ts';

const node = (i: number, subnet = '192.0.2'): FabricNode => ({
  name: `n${i}`,
  nodeIPs: [`${subnet}.${i}`],
  podCIDRs: [`10.244.${i}.0/24`, `fd00:10:244:${i}::/64`],
  vtepMac: vtepMac(`n${i}`),
});

const planOf = (backend: 'auto' | 'vxlan', others: FabricNode[], self = node(1), vni = 1): FabricPlan =>
  compileFabric(self, others, [{ dev: 'eth0', mtu: 1500, onLink: ['192.0.2.0/24'] }], {
    clusterCIDRs: ['10.244.0.0/16'],
    fabric: { backend, vxlanVni: vni, vxlanPort: 8472, mtu: 0 },
    masquerade: { enabled: true, exclude: [] },
  });

/** Things of others, some of which look like ours at first sight. */
const foreign: NetObject[] = [
  { kind: 'link', name: 'eth0', up: true, mtu: 1500, index: 2 },
  { kind: 'link', name: 'vxlan9', type: 'vxlan', up: true, vxlan: { id: 9, port: 4789 }, index: 3 },
  {
    kind: 'link',
    name: 'weft0123456789a',
    type: 'veth',
    up: true,
    group: 0x57e0,
    alias: 'weft:c/eth0',
    index: 4,
  },
  { kind: 'address', dev: 'eth0', address: '192.0.2.1/24', scope: 'global' },
  { kind: 'route', dst: '0.0.0.0/0', via: '192.0.2.254', dev: 'eth0', protocol: 3, table: 254 },
  { kind: 'route', dst: '10.244.1.7/32', dev: 'weft0123456789a', protocol: 87, table: 254, scope: 'link' },
  // A pod whose link appeared after the links were read.
  { kind: 'route', dst: '10.244.1.8/32', dev: 'weftba987654321', protocol: 87, table: 254, scope: 'link' },
  { kind: 'route', dst: '10.244.9.0/24', dev: 'eth0', protocol: 4, table: 254, metric: 1087 },
  { kind: 'rule', family: 4, priority: 32766, table: 254, protocol: 2 },
  {
    kind: 'neighbour',
    dev: 'weft0123456789a',
    dst: '10.244.1.7',
    mac: '02:00:00:00:00:07',
    state: 'permanent',
    protocol: 87,
  },
  { kind: 'neighbour', dev: 'eth0', dst: '192.0.2.2', mac: '02:00:00:00:00:02', state: 'reachable' },
  {
    kind: 'fdb',
    dev: 'vxlan9',
    mac: '02:00:00:00:00:09',
    dst: '192.0.2.9',
    state: 'permanent',
    flags: ['self'],
  },
];

function setUp(): {
  kernel: FakeKernel;
  clock: ManualClock;
  drifts: Drift[];
  statuses: Failure[][];
  make: () => LinkReconciler;
} {
  const kernel = new FakeKernel();
  kernel.objects = structuredClone(foreign);
  for (const path of ['net/ipv4/ip_forward', 'net/ipv6/conf/all/forwarding']) kernel.sysctls.set(path, '0');
  kernel.sysctls.set('net/ipv6/conf/eth0/accept_ra', '1');
  const clock = new ManualClock();
  const drifts: Drift[] = [];
  const statuses: Failure[][] = [];
  const make = (): LinkReconciler =>
    new LinkReconciler({
      kernel,
      ns: '',
      logger: silentLogger,
      clock,
      random: () => 0.5,
      onDrift: (found) => drifts.push(...found),
      onStatus: (failures) => statuses.push(failures),
    });
  return { kernel, clock, drifts, statuses, make };
}

/** The sysctl `disable_ipv6` of our device is one that the fake does not make. */
const known = (plan: FabricPlan): FabricPlan['sysctls'] =>
  plan.sysctls.filter((s) => !s.path.endsWith('disable_ipv6'));

function assertForeignUntouched(kernel: FakeKernel): void {
  for (const object of foreign) assert.deepEqual(kernel.get(netObjectKey(object)), object);
}

test('makes what is desired, is idempotent, and a successor adopts it without an operation', async () => {
  const { kernel, drifts, make } = setUp();
  const plan = planOf('vxlan', [node(2), node(3)]);
  const first = make();
  const report = await first.apply(plan.objects, known(plan));
  assert.deepEqual(report.failures, []);
  for (const object of plan.objects) assert.ok(kernel.get(netObjectKey(object)), netObjectKey(object));
  assert.equal(kernel.sysctls.get('net/ipv6/conf/eth0/accept_ra'), '2');
  assert.equal(kernel.sysctls.get('net/ipv4/conf/weft-vxlan/rp_filter'), '2');
  assertForeignUntouched(kernel);
  const asked = kernel.ops.length;
  assert.equal((await first.apply(plan.objects, known(plan))).operations, 0);
  await first.close();
  const second = make();
  assert.equal((await second.apply(structuredClone(plan.objects), known(plan))).operations, 0);
  assert.equal(kernel.ops.length, asked);
  assert.deepEqual(drifts, []);
  await second.close();
});

test('the device comes up last, after its settings, and routes after what they need', async () => {
  const { kernel, make } = setUp();
  const plan = planOf('vxlan', [node(2)]);
  const reconciler = make();
  await reconciler.apply(plan.objects, known(plan));
  const order = kernel.ops.map((op) =>
    op.op === 'link.set'
      ? op.link.up
        ? 'up'
        : 'set'
      : op.op === 'sysctl.write'
        ? op.path.replace(/.*conf\//, '')
        : op.op,
  );
  const at = (what: string): number => order.indexOf(what);
  assert.ok(at('link.create') < at('set') && at('set') < at('weft-vxlan/rp_filter'));
  assert.ok(at('weft-vxlan/accept_ra') < at('up') && at('up') < at('address.replace'));
  assert.ok(at('address.replace') < at('fdb.replace') && at('fdb.replace') < at('neighbour.replace'));
  assert.ok(at('neighbour.replace') < at('route.replace') && at('route.replace') < at('rule.add'));
  assert.ok(at('eth0/accept_ra') < at('all/forwarding'), 'forwarding first would lose the default route');
  await reconciler.close();
});

test('accept_ra that is off stays off', async () => {
  const { kernel, make } = setUp();
  kernel.sysctls.set('net/ipv6/conf/eth0/accept_ra', '0');
  const plan = planOf('vxlan', [node(2)]);
  const reconciler = make();
  await reconciler.apply(plan.objects, known(plan));
  assert.equal(kernel.sysctls.get('net/ipv6/conf/eth0/accept_ra'), '0');
  await reconciler.close();
});

test('a node that leaves, moves or changes its path: only what concerns it', async () => {
  const { kernel, drifts, make } = setUp();
  const reconciler = make();
  const plans = [
    planOf('auto', [node(2), node(3)]),
    planOf('auto', [node(2), node(3, '198.18.0')]), // moved behind a router
    planOf('auto', [node(2), node(3, '198.18.7')]), // renumbered
    planOf('auto', [node(2)]),
    planOf('auto', []),
  ];
  for (const plan of plans) {
    const before = kernel.ops.length;
    const { failures } = await reconciler.apply(plan.objects, known(plan));
    assert.deepEqual(failures, []);
    assert.equal((await reconciler.verify()).operations, 0);
    const ops = kernel.ops.slice(before);
    if (before > 0) {
      assert.ok(
        !ops.some((op) => op.op === 'route.replace' && op.route.dst.includes('10.244.2.')),
        'node 2 was left alone',
      );
    }
  }
  assertForeignUntouched(kernel);
  assert.deepEqual(
    kernel.objects.filter((o) => o.kind === 'link' && o.name === 'weft-vxlan'),
    [],
  );
  assert.deepEqual(drifts, []);
  await reconciler.apply([]);
  assert.deepEqual(new Set(kernel.objects.map(netObjectKey)), new Set(foreign.map(netObjectKey)));
  await reconciler.close();
});

test('what cannot be changed in place is replaced, with all that stands on it in the same run', async () => {
  for (const changed of [
    planOf('vxlan', [node(2)], node(1), 7),
    planOf('vxlan', [node(2)], { ...node(1), nodeIPs: ['192.0.2.99'] }),
  ]) {
    const { kernel, make, drifts } = setUp();
    kernel.objects.push({ kind: 'address', dev: 'eth0', address: '192.0.2.99/24', scope: 'global' });
    const reconciler = make();
    const before = planOf('vxlan', [node(2)]);
    await reconciler.apply(before.objects, known(before));
    const dumps = kernel.dumps;
    const report = await reconciler.apply(changed.objects, known(changed));
    assert.deepEqual(report.failures, []);
    assert.equal(kernel.dumps, dumps + 1);
    for (const object of changed.objects) assert.ok(kernel.get(netObjectKey(object)), netObjectKey(object));
    assert.equal((await reconciler.verify()).operations, 0);
    assert.deepEqual(drifts, []);
    await reconciler.close();
  }
});

test('leftovers with our mark are pruned on the first apply, and are no drift', async () => {
  const { kernel, drifts, make } = setUp();
  const old = planOf('vxlan', [node(2), node(3)]);
  const before = make();
  await before.apply(old.objects, known(old));
  await before.close();
  const now = planOf('vxlan', [node(2)]);
  const after = make();
  const { operations, failures } = await after.apply(now.objects, known(now));
  assert.deepEqual(failures, []);
  assert.equal(operations, 6); // fdb, two neighbours, two pod routes, one node route
  assert.ok(!kernel.objects.some((o) => JSON.stringify(o).includes('10.244.3.')));
  assert.deepEqual(drifts, []);
  assertForeignUntouched(kernel);
  await after.close();
});

test('what others change is put back within a second, and said with who did it', async () => {
  const { kernel, clock, drifts, make } = setUp();
  const plan = planOf('vxlan', [node(2)]);
  const reconciler = make();
  await reconciler.watch();
  await reconciler.apply(plan.objects, known(plan));
  const route = plan.objects.find((o) => o.kind === 'route' && o.dst === '10.244.2.0/24') as Route;
  const fdb = plan.objects.find((o) => o.kind === 'fdb')!;
  const rule = plan.objects.find((o) => o.kind === 'rule')!;
  const by = { pid: 4711, name: 'ip' };
  const cases: Array<[() => void, RegExp]> = [
    [() => kernel.foreign({ op: 'route.delete', route }, by), /route 10\.244\.2\.0\/24 .*was gone/],
    [
      () =>
        kernel.foreign(
          { op: 'route.replace', route: { ...route, dev: 'eth0', via: '192.0.2.9', protocol: 3 } },
          by,
        ),
      /protocol 3 instead of 87.*hops/,
    ],
    [() => kernel.foreign({ op: 'fdb.delete', fdb: fdb as never }, by), /fdb .*was gone/],
    [() => kernel.foreign({ op: 'rule.delete', rule: rule as never }, by), /rule 87: from .*was gone/],
    [
      () => kernel.foreign({ op: 'link.set', link: { name: 'weft-vxlan', mtu: 1200 } }, by),
      /mtu 1200 instead of 1450/,
    ],
    [
      () => kernel.foreign({ op: 'link.set', link: { name: 'weft-vxlan', up: false } }, by),
      /up false instead of true/,
    ],
    [() => kernel.foreign({ op: 'link.delete', name: 'weft-vxlan' }, by), /link weft-vxlan .*was gone/],
    [
      () =>
        kernel.foreign(
          {
            op: 'fdb.replace',
            fdb: { kind: 'fdb', dev: 'weft-vxlan', mac: '02:66:66:66:66:66', dst: '192.0.2.66' },
          },
          by,
        ),
      /02:66:66:66:66:66 .*nobody wants it/,
    ],
  ];
  for (const [act, message] of cases) {
    drifts.length = 0;
    act();
    await clock.advance(1000);
    assert.ok(
      drifts.some((d) => message.test(d.message)),
      `${message} not in ${drifts.map((d) => d.message).join('\n')}`,
    );
    for (const drift of drifts) assert.deepEqual(drift.by, by, drift.message);
    for (const object of plan.objects) assert.ok(kernel.get(netObjectKey(object)), netObjectKey(object));
    await clock.advance(5000);
    assert.equal((await reconciler.verify()).operations, 0);
  }
  assertForeignUntouched(kernel);
  await reconciler.close();
});

test('events that do not concern us cost nothing', async () => {
  const { kernel, clock, make } = setUp();
  const plan = planOf('vxlan', [node(2)]);
  const reconciler = make();
  await reconciler.watch();
  await reconciler.apply(plan.objects, known(plan));
  const dumps = kernel.dumps;
  for (const object of foreign)
    if (object.kind !== 'link' || object.name !== 'eth0') kernel.send([{ type: 'new', object, own: false }]);
  kernel.send(plan.objects.map((object) => ({ type: 'new', object, own: false }) as const));
  kernel.send(plan.objects.map((object) => ({ type: 'delete', object, own: true }) as const));
  await clock.advance(10_000);
  assert.equal(kernel.dumps, dumps);
  kernel.send([{ type: 'resync' }]);
  await clock.advance(1000);
  assert.equal(kernel.dumps, dumps + 1);
  await reconciler.close();
});

test('somebody who undoes it again and again is answered ever more slowly, but always within a second', async () => {
  const { kernel, clock, make } = setUp();
  const plan = planOf('vxlan', [node(2)]);
  const reconciler = make();
  await reconciler.watch();
  await reconciler.apply(plan.objects, known(plan));
  const route = plan.objects.find((o) => o.kind === 'route' && o.dst === '10.244.2.0/24') as Route;
  const waits: number[] = [];
  for (let i = 0; i < 12; i++) {
    kernel.foreign({ op: 'route.delete', route });
    const from = clock.now();
    while (!kernel.get(netObjectKey(route))) {
      assert.ok(clock.now() - from <= 1000);
      await clock.advance(10);
    }
    waits.push(clock.now() - from);
  }
  assert.ok(waits[0]! <= 30 && waits.at(-1)! >= 500, waits.join(' '));
  await clock.advance(60_000);
  kernel.foreign({ op: 'route.delete', route });
  await clock.advance(30);
  assert.ok(kernel.get(netObjectKey(route)), 'peace again');
  await reconciler.close();
});

test('the underlay flaps: direct routes come back as soon as they can', async () => {
  const { kernel, clock, statuses, make } = setUp();
  const plan = planOf('auto', [node(2)]);
  const reconciler = make();
  await reconciler.watch();
  await reconciler.apply(plan.objects, known(plan));
  kernel.foreign({ op: 'link.set', link: { name: 'eth0', up: false } });
  await clock.advance(500);
  assert.match(statuses.at(-1)![0]!.message, /ENETDOWN/);
  assert.equal(reconciler.statusOf('route 254 10.244.2.0/24 1087')?.state, 'failed');
  await clock.advance(100_000); // far into the slow end of the retries
  kernel.foreign({ op: 'link.set', link: { name: 'eth0', up: true } });
  await clock.advance(1000);
  assert.ok(kernel.get('route 254 10.244.2.0/24 1087'));
  assert.deepEqual(statuses.at(-1), []);
  assert.equal(reconciler.statusOf('route 254 10.244.2.0/24 1087')?.state, 'done');
  await reconciler.close();
});

test('what the kernel does not tell is found by the audit', async () => {
  const { kernel, clock, drifts, make } = setUp();
  const plan = planOf('vxlan', [node(2)]);
  const reconciler = make();
  await reconciler.watch();
  await reconciler.apply(plan.objects, known(plan));
  kernel.sysctls.set('net/ipv4/ip_forward', '0');
  kernel.objects = kernel.objects.filter((o) => !(o.kind === 'route' && o.dst === '10.244.2.0/24'));
  await clock.advance(30_100);
  assert.equal(kernel.sysctls.get('net/ipv4/ip_forward'), '1');
  assert.deepEqual(drifts.map((d) => d.message.replace(/ via.*(?= was)/, '')).sort(), [
    'route 10.244.2.0/24 was gone',
    'sysctl net/ipv4/ip_forward was 0 instead of 1',
  ]);
  await reconciler.close();
});

test('a route of somebody else that takes the traffic of ours is named, not touched', async () => {
  const { kernel, make } = setUp();
  const rival: Route = { kind: 'route', dst: '10.244.2.0/24', dev: 'eth0', protocol: 4, table: 254 };
  kernel.objects.push(rival);
  const plan = planOf('vxlan', [node(2)]);
  const reconciler = make();
  const { shadowed } = await reconciler.apply(plan.objects, known(plan));
  assert.deepEqual(
    shadowed.map(({ by }) => by),
    [rival],
  );
  assert.deepEqual(kernel.get(netObjectKey(rival)), rival);
  await reconciler.close();
});

test('a patch makes just its change, without reading the kernel', async () => {
  const { kernel, make } = setUp();
  const reconciler = make();
  const two = planOf('vxlan', [node(2)]);
  const three = planOf('vxlan', [node(2), node(3)]);
  await reconciler.apply(two.objects, known(two));
  const dumps = kernel.dumps;
  const added = three.objects.filter(
    (o) => !two.objects.some((other) => netObjectKey(other) === netObjectKey(o)),
  );
  assert.equal((await reconciler.patch({ set: added, unset: [] })).operations, added.length);
  assert.equal((await reconciler.patch({ set: [], unset: added })).operations, added.length);
  assert.equal((await reconciler.patch({ set: added, unset: [] })).operations, added.length);
  assert.equal(kernel.dumps, dumps);
  assert.equal((await reconciler.verify()).operations, 0);
  await reconciler.close();
});

test('from any state of the kernel, one apply ends in the desired state and leaves the rest alone', async () => {
  const pool = [
    ...planOf('vxlan', [node(2), node(3)]).objects,
    ...planOf('auto', [node(2), node(3, '198.18.0')]).objects,
    ...planOf('vxlan', [node(2)], node(1), 9).objects,
    ...planOf('vxlan', [{ ...node(2), nodeIPs: ['192.0.2.77'] }]).objects,
  ];
  const plans = [
    planOf('vxlan', [node(2)]),
    planOf('auto', [node(2)]),
    planOf('auto', [node(2), node(3, '198.18.0')]),
  ];
  await fc.assert(
    fc.asyncProperty(fc.shuffledSubarray(pool), fc.constantFrom(...plans), async (leftovers, plan) => {
      const { kernel, make } = setUp();
      const seen = new Set(kernel.objects.map(netObjectKey));
      const links = new Set(leftovers.flatMap((o) => (o.kind === 'link' ? [o.name] : [])));
      for (const object of leftovers) {
        const key = netObjectKey(object);
        const dev = object.kind === 'link' || object.kind === 'rule' ? undefined : object.dev;
        if (seen.has(key) || (dev?.startsWith('weft-') && !links.has(dev))) continue;
        seen.add(key);
        kernel.place(object);
      }
      const reconciler = make();
      const { failures } = await reconciler.apply(plan.objects, known(plan));
      assert.deepEqual(failures, []);
      assert.deepEqual(
        new Set(kernel.objects.map(netObjectKey)),
        new Set([...foreign, ...plan.objects].map(netObjectKey)),
      );
      assert.equal((await reconciler.verify()).operations, 0);
      assertForeignUntouched(kernel);
      await reconciler.close();
    }),
    { numRuns: 150 },
  );
});
