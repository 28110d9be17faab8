import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type NetObject, netObjectKey } from '../base/net-objects.ts';
import type { FabricNode, Underlay } from '../state/fabric-plan.ts';
import { FabricCompiler } from './compiler.ts';
import type { FabricConfig, FabricContext } from './context.ts';
import { compileFabric } from './plan.ts';
import { vtepMac } from './vxlan/tunnel.ts';

const eth0: Underlay = { dev: 'eth0', mtu: 1500, onLink: ['192.0.2.0/28', '2001:db8::/124'] };

const config = (backend: FabricConfig['fabric']['backend']): FabricConfig => ({
  clusterCIDRs: ['10.244.0.0/16', 'fd00:10:244::/48'],
  fabric: { backend, vxlanVni: 1, vxlanPort: 8472, mtu: 0 },
  masquerade: { enabled: true, exclude: [] },
});

const self: FabricNode = {
  name: 'c',
  nodeIPs: ['192.0.2.1', '2001:db8::1'],
  podCIDRs: ['10.244.0.0/24', 'fd00:10:244::/64'],
};

/** Few names, few addresses, few CIDRs of several lengths: conflicts are the rule. */
const arbitraryNode: fc.Arbitrary<FabricNode> = fc
  .record({
    name: fc.constantFrom('a', 'b', 'd', 'e', 'f'),
    v4: fc.option(fc.constantFrom('192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.77', '10.244.2.9')),
    v6: fc.option(fc.constantFrom('2001:db8::2', '2001:db8::3', '2001:db8::77', '2001:db8::78')),
    cidr4: fc.option(
      fc.constantFrom('10.244.0.0/24', '10.244.1.0/24', '10.244.2.0/24', '10.244.2.0/23', '192.0.2.64/26'),
    ),
    cidr6: fc.option(
      fc.constantFrom('fd00:10:244:1::/64', 'fd00:10:244:2::/64', 'fd00:10:244::/60', '2001:db8::/64'),
    ),
    mac: fc.constantFrom(undefined, vtepMac('a'), vtepMac('b'), vtepMac('c'), vtepMac('d')),
    createdAt: fc.constantFrom(undefined, '2026-01-01T00:00:00Z', '2026-01-02T00:00:00Z'),
  })
  .map(({ name, v4, v6, cidr4, cidr6, mac, createdAt }) => ({
    name,
    nodeIPs: [v4, v6].filter((ip) => ip !== null),
    podCIDRs: [cidr4, cidr6].filter((cidr) => cidr !== null),
    ...(mac !== undefined && { vtepMac: mac }),
    ...(createdAt !== undefined && { createdAt }),
  }));

type Step = { upsert: FabricNode } | { remove: string } | { mtu: number };
const arbitraryStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: arbitraryNode.map((upsert) => ({ upsert })) },
  { weight: 2, arbitrary: fc.constantFrom('a', 'b', 'd', 'e', 'f').map((remove) => ({ remove })) },
  { weight: 1, arbitrary: fc.constantFrom(1500, 9000).map((mtu) => ({ mtu })) },
);

const arbitraryBackend = fc.constantFrom('auto', 'vxlan', 'host-gw') as fc.Arbitrary<
  FabricConfig['fabric']['backend']
>;

test('any history of changes ends where one full compilation of the same nodes ends', () => {
  fc.assert(
    fc.property(arbitraryBackend, fc.array(arbitraryStep, { maxLength: 25 }), (backend, steps) => {
      let context: FabricContext = { self, underlays: [eth0], config: config(backend) };
      const compiler = new FabricCompiler(context);
      const nodes = new Map<string, FabricNode>();
      const kernel = new Map<string, NetObject>();
      for (const step of steps) {
        if ('upsert' in step) {
          nodes.set(step.upsert.name, step.upsert);
          compiler.upsert(step.upsert);
        } else if ('remove' in step) {
          nodes.delete(step.remove);
          compiler.remove(step.remove);
        } else {
          context = { ...context, underlays: [{ ...eth0, mtu: step.mtu }] };
          compiler.setContext(context);
        }
        // The deltas, applied one after the other, are the whole.
        const { set, unset } = compiler.take();
        for (const object of unset)
          assert.ok(kernel.delete(netObjectKey(object)), 'unset what was never set');
        for (const object of set) kernel.set(netObjectKey(object), object);
        const plan = compiler.plan();
        assert.deepEqual(
          new Map([...kernel].sort()),
          new Map(plan.objects.map((o): [string, NetObject] => [netObjectKey(o), o]).sort()),
        );
      }
      const reversed = [...nodes.values()].reverse();
      assert.deepEqual(compiler.plan(), compileFabric(self, reversed, context.underlays, context.config));
    }),
    { numRuns: 150 },
  );
});

test('no plan sends the underlay through the fabric, and every route has somewhere to go', () => {
  fc.assert(
    fc.property(arbitraryBackend, fc.array(arbitraryNode, { maxLength: 6 }), (backend, nodes) => {
      const { objects } = compileFabric(self, nodes, [eth0], config(backend));
      const keys = objects.map(netObjectKey);
      assert.equal(new Set(keys).size, keys.length);
      const links = new Set(objects.flatMap((o) => (o.kind === 'link' ? [o.name] : [])));
      const neighbours = new Set(
        objects.flatMap((o) => (o.kind === 'neighbour' ? [`${o.dev} ${o.dst}`] : [])),
      );
      const macs = new Set(objects.flatMap((o) => (o.kind === 'fdb' ? [`${o.dev} ${o.mac}`] : [])));
      for (const o of objects) {
        if (o.kind === 'route' && o.dev !== undefined && o.dev !== 'eth0') {
          assert.ok(links.has(o.dev));
          assert.ok(neighbours.has(`${o.dev} ${o.via}`), `nobody knows the MAC of ${o.via}`);
        }
        if (o.kind === 'neighbour') assert.ok(macs.has(`${o.dev} ${o.mac}`), `${o.mac} is nowhere`);
        if (o.kind === 'route' && o.table === undefined) {
          for (const ip of self.nodeIPs) assert.notEqual(o.dst, `${ip}/32`);
        }
      }
    }),
    { numRuns: 150 },
  );
});

test('one node more changes only what concerns it', () => {
  const big = (i: number): FabricNode => ({
    name: `n${i}`,
    nodeIPs: [`198.18.${i >> 8}.${i & 255}`],
    podCIDRs: [`10.${i >> 8}.${i & 255}.0/24`],
    vtepMac: vtepMac(`n${i}`),
  });
  const compiler = new FabricCompiler({ self, underlays: [eth0], config: config('vxlan') });
  for (let i = 1; i < 2000; i++) compiler.upsert(big(i));
  compiler.take();
  compiler.upsert(big(2000));
  assert.deepEqual(
    compiler
      .take()
      .set.map((o) => o.kind)
      .sort(),
    ['fdb', 'neighbour', 'route', 'route'],
  );
  compiler.upsert({ ...big(2000), createdAt: '2026-01-01T00:00:00Z' });
  assert.deepEqual(compiler.take(), { set: [], unset: [] });
  compiler.upsert({ ...big(2000), nodeIPs: ['198.18.99.99'] });
  const moved = compiler.take();
  assert.deepEqual(moved.unset.map((o) => o.kind).sort(), ['fdb', 'route']);
  assert.deepEqual(moved.set.map((o) => o.kind).sort(), ['fdb', 'route']);
  compiler.remove('n2000');
  assert.deepEqual(
    compiler
      .take()
      .unset.map((o) => o.kind)
      .sort(),
    ['fdb', 'neighbour', 'route', 'route'],
  );
});

test("a node address that is a pod's, or a pod CIDR with a machine in it, costs only the node that claims it", () => {
  const compiler = new FabricCompiler({ self, underlays: [eth0], config: config('auto') });
  const sound: FabricNode = {
    name: 'n',
    nodeIPs: ['192.0.2.2'],
    podCIDRs: ['10.244.1.0/24'],
    createdAt: '2026-01-02T00:00:00Z',
  };
  const far: FabricNode = { ...sound, name: 'far', nodeIPs: ['198.51.100.9'], podCIDRs: ['10.244.2.0/24'] };
  for (const node of [sound, far]) compiler.upsert({ ...node, vtepMac: vtepMac(node.name) });
  const before = compiler.plan();
  const old = { createdAt: '2026-01-01T00:00:00Z' };
  const bad: FabricNode[] = [
    { ...old, name: 'x1', nodeIPs: ['10.244.0.1'], podCIDRs: [] }, // a pod of this node
    { ...old, name: 'x2', nodeIPs: ['10.244.1.7'], podCIDRs: [] }, // a pod of another
    { ...old, name: 'x3', nodeIPs: [], podCIDRs: ['198.51.100.0/24'] }, // a machine that is not on this link
  ];
  for (const node of bad) compiler.upsert({ ...node, vtepMac: vtepMac(node.name) });
  const { problems, ...rest } = compiler.plan();
  assert.deepEqual({ ...rest, problems: before.problems }, before);
  assert.deepEqual(
    problems.map(({ message }) => message),
    [
      'the address 10.244.0.1 of node x1 lies in the pod CIDR of node c',
      'the address 10.244.1.7 of node x2 lies in the pod CIDR of node n',
      'pod CIDR 198.51.100.0/24 of node x3 contains the node address 198.51.100.9',
    ],
  );
});
