import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { NODES } from '../api/client.ts';
import type { Node } from '../api/types.ts';
import { ManualClock } from '../base/clock.ts';
import { isWeftError, WeftError } from '../base/errors.ts';
import { cidrOverlaps } from '../base/ip.ts';
import { silentLogger } from '../base/log.ts';
import { type NodeCidrConfig, NodeCidrController } from './node-cidrs.ts';
import { toNodeRow } from './rows.ts';
import { MemoryApi } from './testing/memory-api.ts';

const node = (name: string, podCIDRs?: string[]): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name },
  spec: podCIDRs ? { podCIDR: podCIDRs[0]!, podCIDRs } : {},
});

function setUp(config: NodeCidrConfig, api = new MemoryApi()) {
  const clock = new ManualClock(1_000_000);
  const said: string[] = [];
  const start = (): NodeCidrController =>
    new NodeCidrController({
      config,
      nodes: api.open({ resource: NODES, map: toNodeRow }),
      client: api,
      events: {
        event: (about, type, reason, message) => said.push(`${type} ${reason} ${about.name}: ${message}`),
      },
      clock,
      logger: silentLogger,
    });
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 4; i++) {
      await clock.advance(70_000);
      for (let j = 0; j < 30; j++) await turn();
    }
  };
  const given = (name: string): string[] | undefined => api.peek(NODES, name)?.spec?.podCIDRs;
  return { api, clock, said, start, settle, given };
}

test('each Node gets one block of each family, in order of the cluster CIDRs', async () => {
  const t = setUp({ clusterCIDRs: ['10.244.0.0/16', 'fd00:10:244::/56'] });
  t.api.put(NODES, node('a'));
  const controller = t.start();
  await t.settle();
  t.api.put(NODES, node('b'));
  await t.settle();
  assert.deepEqual(t.given('a'), ['10.244.0.0/24', 'fd00:10:244::/64']);
  assert.deepEqual(t.given('b'), ['10.244.1.0/24', 'fd00:10:244:1::/64']);
  assert.equal(t.api.peek(NODES, 'b')?.spec?.podCIDR, '10.244.1.0/24');
  assert.deepEqual(t.said, []);
  await controller.close();
});

test('what Nodes have is adopted first, whoever set it, and never given again', async () => {
  const t = setUp({ clusterCIDRs: ['10.0.0.0/22'] });
  t.api.put(NODES, node('new'));
  t.api.put(NODES, node('by-hand', ['10.0.0.0/23']));
  const controller = t.start();
  await t.settle();
  assert.deepEqual(t.given('new'), ['10.0.2.0/24']);
  await controller.close();
});

test('a conflict made by hand is told at the Node, and so are CIDRs outside or malformed', async () => {
  const t = setUp({ clusterCIDRs: ['10.0.0.0/16'] });
  t.api.put(NODES, node('a', ['10.0.1.0/24']));
  const controller = t.start();
  await t.settle();
  t.api.put(NODES, node('b', ['10.0.1.128/25']));
  t.api.put(NODES, node('c', ['192.168.0.0/24']));
  t.api.put(NODES, node('d', ['10.0.0.0/240']));
  await t.settle();
  assert.deepEqual(t.said.slice(0, 2), [
    'Warning CIDRConflict b: pod CIDR 10.0.1.128/25 overlaps that of a',
    'Warning CIDROutsideCluster c: pod CIDR 192.168.0.0/24 lies outside of 10.0.0.0/16',
  ]);
  assert.match(t.said[2]!, /^Warning CIDRMalformed d: .*10\.0\.0\.0\/240/);
  assert.equal(t.said.length, 3);
  await controller.close();
});

test('exhausted: an Event names the cluster CIDR; a Node that goes makes room', async () => {
  const t = setUp({ clusterCIDRs: ['10.0.0.0/16', 'fd00::/63'] });
  for (const name of ['a', 'b', 'c']) t.api.put(NODES, node(name));
  const controller = t.start();
  await t.settle();
  assert.equal(t.given('c'), undefined);
  assert.equal(t.said.length, 1);
  assert.match(
    t.said[0]!,
    /^Warning CIDRNotAvailable c: WEFT_NODE_CIDR_EXHAUSTED: cluster CIDR fd00::\/63 has no \/64 left/,
  );
  t.api.remove(NODES, 'a');
  await t.settle();
  assert.deepEqual(t.given('c'), ['10.0.3.0/24', 'fd00::/64']);
  await controller.close();
});

test('a lost answer does not lead to a second allocation; a conflict is tried again', async () => {
  const t = setUp({ clusterCIDRs: ['10.0.0.0/16'] });
  const faults = [
    { error: new WeftError('WEFT_API_UNREACHABLE', 'before') },
    { error: new WeftError('WEFT_API_UNREACHABLE', 'answer lost'), late: true },
  ];
  t.api.fault = () => faults.shift();
  t.api.put(NODES, node('a'));
  const controller = t.start();
  await t.settle();
  t.api.put(NODES, node('b'));
  await t.settle();
  assert.deepEqual(t.given('a'), ['10.0.0.0/24']);
  assert.deepEqual(t.given('b'), ['10.0.1.0/24']);
  await controller.close();
});

test('a Node that comes back under its name is a new one', async () => {
  const t = setUp({ clusterCIDRs: ['10.0.0.0/16'] });
  t.api.put(NODES, node('a'));
  const controller = t.start();
  await t.settle();
  t.api.remove(NODES, 'a');
  t.api.put(NODES, node('a'));
  await t.settle();
  assert.deepEqual(t.given('a'), ['10.0.1.0/24']);
  await controller.close();
});

test('bad configuration is refused', () => {
  const refused = (config: NodeCidrConfig) => {
    const t = setUp(config);
    assert.throws(
      () => t.start(),
      (e) => isWeftError(e, 'WEFT_BAD_CONFIG'),
    );
  };
  refused({ clusterCIDRs: ['10.0.0.0/16', '10.1.0.0/16'] });
  refused({ clusterCIDRs: ['10.0.0.0/26'] });
  refused({ clusterCIDRs: ['10.0.0.0/16'], nodeMaskSizes: { ipv4: 15 } });
});

const arbStep = fc.oneof(
  { weight: 4, arbitrary: fc.nat(9).map((add) => ({ add })) },
  { weight: 2, arbitrary: fc.nat(9).map((remove) => ({ remove })) },
  {
    weight: 1,
    arbitrary: fc.record({ hand: fc.nat(9), block: fc.nat(7), length: fc.integer({ min: 23, max: 26 }) }),
  },
  { weight: 2, arbitrary: fc.nat(4000).map((advance) => ({ advance })) },
  { weight: 3, arbitrary: fc.constant({ turn: true }) },
  { weight: 1, arbitrary: fc.constant({ restart: true }) },
);

test('property: through faults and restarts, what is given never overlaps; in the end every Node has some or none is left', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(arbStep, { maxLength: 40, size: 'max' }),
      fc.array(fc.constantFrom(undefined, undefined, 'early', 'late'), { minLength: 1, maxLength: 8 }),
      async (steps, faults) => {
        const t = setUp({ clusterCIDRs: ['10.0.0.0/21', 'fd00::/61'] });
        let calls = 0;
        t.api.fault = () => {
          const fault = faults[calls++ % faults.length];
          return fault && { error: new WeftError('WEFT_API_UNREACHABLE', fault), late: fault === 'late' };
        };
        const byHand = new Set<string>();
        let controller = t.start();
        for (const step of steps) {
          if ('add' in step) {
            if (!t.api.peek(NODES, `n${step.add}`)) t.api.put(NODES, node(`n${step.add}`));
          } else if ('remove' in step) {
            t.api.remove(NODES, `n${step.remove}`);
            byHand.delete(`n${step.remove}`);
          } else if ('hand' in step) {
            // By hand, but not upon what is taken: such a conflict nobody can mend.
            const cidr = `10.0.${step.block}.0/${step.length}`;
            const taken = t.api.all(NODES).some((n) => n.spec?.podCIDRs?.some((c) => cidrOverlaps(c, cidr)));
            const name = `n${step.hand}`;
            if (!taken && !t.given(name)) {
              t.api.put(NODES, node(name, [cidr]));
              byHand.add(name);
            }
          } else if ('advance' in step) await t.clock.advance(step.advance);
          else if ('restart' in step) {
            await controller.close();
            controller = t.start();
          } else await turn();
        }
        t.api.fault = () => undefined;
        await t.settle();
        await controller.close();
        const nodes = t.api.all(NODES);
        const all = nodes.flatMap((n) =>
          (n.spec?.podCIDRs ?? []).map((cidr) => ({ name: n.metadata.name, cidr })),
        );
        for (const a of all) {
          for (const b of all) {
            // Whoever sets one by hand may be upon a reservation under way: then it is told, not mended.
            if (a !== b && !byHand.has(a.name) && !byHand.has(b.name))
              assert.ok(!cidrOverlaps(a.cidr, b.cidr));
          }
        }
        for (const n of nodes) {
          if (n.spec?.podCIDRs) continue;
          const free4 = [0, 1, 2, 3, 4, 5, 6, 7].filter(
            (i) => !all.some((x) => cidrOverlaps(x.cidr, `10.0.${i}.0/24`)),
          );
          const free6 = [0, 1, 2, 3, 4, 5, 6, 7].filter(
            (i) => !all.some((x) => cidrOverlaps(x.cidr, `fd00:0:0:${i}::/64`)),
          );
          assert.ok(free4.length === 0 || free6.length === 0, `${n.metadata.name} has none`);
        }
      },
    ),
    { numRuns: 100 },
  );
});
