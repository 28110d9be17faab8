import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { filterTable, flatMapTable, joinTables, mapTable } from './derived.ts';
import { MemoryTable } from './memory-table.ts';
import type { ReadTable } from './table.ts';

interface Pod {
  id: string;
  node?: string;
  ips: string[];
}
interface Node {
  id: string;
  zone: string;
}
const rowsOf = <T>(t: ReadTable<T>): Array<[string, T]> =>
  [...t.keys()].sort().map((key): [string, T] => [key, t.get(key)!]);

/** Everything derived in one go: what the incremental tables must equal. */
function build(pods: MemoryTable<Pod>, nodes: MemoryTable<Node>) {
  const bound = filterTable(pods, 'bound', (p) => p.node !== undefined);
  const sizes = mapTable(pods, 'sizes', (p) => (p.ips.length === 0 ? undefined : { size: p.ips.length }));
  const addresses = flatMapTable(pods, 'addresses', (p) => p.ips.map((ip) => [ip, { ip, pod: p.id }]));
  const placed = joinTables(bound, nodes, 'placed', {
    on: (p) => p.node,
    by: (_, key) => key,
    join: (p, [node]) => node && { id: p.id, zone: node.zone },
  });
  const shared = joinTables(nodes, addresses, 'shared', {
    on: (n) => [n.zone, n.id],
    by: (a) => [a.pod, a.ip],
    join: (n, found) => ({ id: n.id, found: found.map((a) => a.ip) }),
  });
  const diamond = joinTables(bound, sizes, 'diamond', {
    on: (p) => p.id,
    by: (_, key) => key,
    join: (p, [s]) => ({ ips: p.ips.length, size: s?.size ?? 0 }),
  });
  return { bound, sizes, addresses, placed, shared, diamond };
}

const ids = ['a', 'b', 'c', 'd'];
const arbPod: fc.Arbitrary<Pod> = fc.record(
  {
    id: fc.constantFrom(...ids),
    node: fc.constantFrom('a', 'm', 'n'),
    ips: fc.uniqueArray(fc.constantFrom('a', 'b', '1', '2'), { maxLength: 3 }),
  },
  { requiredKeys: ['id', 'ips'], noNullPrototype: true },
);
const arbNode: fc.Arbitrary<Node> = fc.record({
  id: fc.constantFrom('a', 'm', 'n'),
  zone: fc.constantFrom('a', 'b', '1', 'z'),
});
const arbStep = fc.oneof(
  { weight: 4, arbitrary: arbPod.map((pod) => ({ pod })) },
  { weight: 2, arbitrary: arbNode.map((node) => ({ node })) },
  fc.constantFrom(...ids).map((noPod) => ({ noPod })),
  fc.constantFrom('a', 'm', 'n').map((noNode) => ({ noNode })),
  { weight: 3, arbitrary: fc.constant({ turn: true }) },
);

test('property: any order of changes in any batches ends in what one full computation gives', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(arbStep, { maxLength: 60, size: 'max' }), async (steps) => {
      const pods = new MemoryTable<Pod>('pods', (p) => p.id);
      const nodes = new MemoryTable<Node>('nodes', (n) => n.id);
      const incremental = build(pods, nodes);
      // A join of two tables derived from the same one never shows a mixture.
      incremental.diamond.subscribe((changes) => {
        for (const { new: row } of changes) if (row) assert.equal(row.ips, row.size);
      });
      for (const step of steps) {
        if ('pod' in step) pods.upsert(step.pod);
        else if ('node' in step) nodes.upsert(step.node);
        else if ('noPod' in step) pods.delete(step.noPod);
        else if ('noNode' in step) nodes.delete(step.noNode);
        else await turn();
      }
      await turn();
      const full = build(pods, nodes);
      await turn();
      for (const name of Object.keys(full) as Array<keyof typeof full>) {
        assert.deepEqual(rowsOf<unknown>(incremental[name]), rowsOf<unknown>(full[name]), name);
      }
      const owners = new Map<string, string>();
      for (const p of [...pods.values()].sort((x, y) => (x.id < y.id ? -1 : 1))) {
        for (const ip of p.ips) if (!owners.has(ip)) owners.set(ip, p.id);
      }
      assert.deepEqual(new Map([...full.addresses.values()].map((a) => [a.ip, a.pod])), owners);
    }),
    { numRuns: 300 },
  );
});

test('a change costs in proportion to what it affects', async () => {
  const pods = new MemoryTable<Pod>('pods', (p) => p.id);
  const nodes = new MemoryTable<Node>('nodes', (n) => n.id);
  for (let i = 0; i < 1000; i++) pods.upsert({ id: `p${i}`, node: `n${i % 100}`, ips: [] });
  for (let i = 0; i < 100; i++) nodes.upsert({ id: `n${i}`, zone: 'z' });
  let joins = 0;
  using placed = joinTables(pods, nodes, 'placed', {
    on: (p) => p.node,
    by: (n) => n.id,
    join: (p, [node]) => {
      joins++;
      return { id: p.id, zone: node?.zone };
    },
  });
  await turn();
  assert.equal(placed.size, 1000);
  joins = 0;
  nodes.upsert({ id: 'n7', zone: 'y' });
  await turn();
  assert.equal(joins, 10);
  pods.upsert({ id: 'p7', node: 'n8', ips: [] });
  await turn();
  assert.equal(joins, 11);
});

test('a disposed table no longer follows', async () => {
  const pods = new MemoryTable<Pod>('pods', (p) => p.id);
  const nodes = new MemoryTable<Node>('nodes', (n) => n.id);
  const { bound } = build(pods, nodes);
  pods.upsert({ id: 'a', node: 'n', ips: [] });
  await turn();
  bound[Symbol.dispose]();
  pods.delete('a');
  await turn();
  assert.equal(bound.size, 1);
});
