import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { mapTable } from './derived.ts';
import { structurallyEqual } from './equal.ts';
import { MemoryTable } from './memory-table.ts';
import type { Change } from './table.ts';

interface Row {
  id: string;
  n?: number;
  tags?: string[];
}
const table = (): MemoryTable<Row> => new MemoryTable<Row>('rows', (row) => row.id);

test('an equal row is no change', () => {
  const t = table();
  assert.equal(t.upsert({ id: 'a', tags: ['x'] }), true);
  assert.equal(t.upsert({ tags: ['x'], id: 'a', n: undefined } as Row), false);
  assert.equal(t.revision, 1);
  assert.equal(t.upsert({ id: 'a', tags: ['x', 'y'] }), true);
  assert.equal(t.delete('b'), false);
  assert.equal(t.delete('a'), true);
  assert.equal(t.revision, 3);
  assert.equal(t.size, 0);
});

test('changes of one turn are one batch, coalesced per key, after the turn', async () => {
  const t = table();
  t.upsert({ id: 'kept', n: 0 });
  t.upsert({ id: 'removed', n: 0 });
  const batches: Change<Row>[][] = [];
  t.subscribe((changes) => batches.push(changes));
  t.upsert({ id: 'kept', n: 1 });
  await Promise.resolve(); // microtasks belong to the turn
  t.upsert({ id: 'kept', n: 2 });
  t.upsert({ id: 'new', n: 1 });
  t.upsert({ id: 'fleeting' });
  t.delete('fleeting');
  t.delete('removed');
  assert.deepEqual(batches, []);
  await turn();
  assert.deepEqual(batches, [
    [
      { key: 'kept', old: { id: 'kept', n: 0 }, new: { id: 'kept', n: 2 } },
      { key: 'new', new: { id: 'new', n: 1 } },
      { key: 'removed', old: { id: 'removed', n: 0 } },
    ],
  ]);
});

test('a change that is taken back is told to nobody', async () => {
  const t = table();
  t.upsert({ id: 'a', n: 1 });
  let batches = 0;
  t.subscribe(() => batches++);
  t.upsert({ id: 'a', n: 2 });
  t.upsert({ id: 'a', n: 1 });
  await turn();
  assert.equal(batches, 0);
});

test('initial rows come first, also those written in the same turn; a closed subscriber hears nothing', async () => {
  const t = table();
  t.upsert({ id: 'a' });
  const seen: string[] = [];
  const subscription = t.subscribe((changes) => seen.push(...changes.map((c) => c.key)), { initial: true });
  t.upsert({ id: 'b' });
  await turn();
  assert.deepEqual(seen, ['a', 'b']);
  t.upsert({ id: 'c' });
  subscription[Symbol.dispose]();
  subscription[Symbol.dispose]();
  await turn();
  assert.deepEqual(seen, ['a', 'b']);
});

test('listeners that write to each other take turns and do not starve the loop', async () => {
  const t = table();
  let rounds = 0;
  const subscription = t.subscribe(() => t.upsert({ id: 'a', n: ++rounds }));
  t.upsert({ id: 'a', n: -1 });
  for (let i = 0; i < 5; i++) await turn();
  assert.ok(rounds >= 2 && rounds <= 6, String(rounds));
  subscription[Symbol.dispose]();
  await turn();
});

test('a subscription made inside a delivery, to a table that had its turn, gets its rows in the next one', async () => {
  const t = table();
  const derived = mapTable(t, 'derived', (row) => row);
  const seen: string[] = [];
  derived.subscribe(() =>
    t.subscribe((changes) => seen.push(...changes.map((c) => c.key)), { initial: true }),
  );
  t.upsert({ id: 'a' });
  await turn();
  assert.deepEqual(seen, []);
  await turn();
  assert.deepEqual(seen, ['a']);
});

test('a throwing listener does not keep others from their batch', async () => {
  const t = table();
  const previous = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  const thrown = new Promise((resolve) => process.once('uncaughtException', resolve));
  let heard = 0;
  using _bad = t.subscribe(() => {
    throw new Error('faulty listener');
  });
  using _good = t.subscribe(() => heard++);
  t.upsert({ id: 'a' });
  assert.match(String(await thrown), /faulty listener/);
  for (const listener of previous) process.on('uncaughtException', listener);
  assert.equal(heard, 1);
});

test('replaceAll changes only what differs', async () => {
  const t = table();
  t.replaceAll([{ id: 'a' }, { id: 'b', n: 1 }, { id: 'c' }]);
  await turn();
  const keys: string[] = [];
  t.subscribe((changes) => keys.push(...changes.map((c) => c.key)));
  assert.equal(t.replaceAll([{ id: 'd' }, { id: 'b', n: 2 }, { id: 'a' }]), 3);
  assert.equal(t.replaceAll([{ id: 'd' }, { id: 'b', n: 2 }, { id: 'a' }]), 0);
  await turn();
  assert.deepEqual(keys.sort(), ['b', 'c', 'd']);
});

const arbRow = fc.record(
  {
    id: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    n: fc.nat(3),
    tags: fc.uniqueArray(fc.constantFrom('x', 'y', 'z')),
  },
  { noNullPrototype: true },
);
type Step =
  | { do: 'upsert'; row: Row }
  | { do: 'delete'; key: string }
  | { do: 'replace'; rows: Row[] }
  | { do: 'turn' };
const arbStep: fc.Arbitrary<Step> = fc.oneof(
  arbRow.map((row) => ({ do: 'upsert' as const, row })),
  fc.constantFrom('a', 'b', 'c', 'd', 'e').map((key) => ({ do: 'delete' as const, key })),
  fc.array(arbRow, { maxLength: 6 }).map((rows) => ({ do: 'replace' as const, rows })),
  fc.constant({ do: 'turn' as const }),
);

test('property: a follower of the batches has the same rows, and an index is what a scan finds', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(arbStep, { maxLength: 60, size: 'max' }), async (steps) => {
      const t = table();
      const byTag = t.index((row) => row.tags);
      const copy = new Map<string, Row>();
      t.subscribe((changes) => {
        for (const { key, old, new: now } of changes) {
          assert.deepEqual(copy.get(key), old);
          assert.ok(!structurallyEqual(old, now));
          if (now === undefined) copy.delete(key);
          else copy.set(key, now);
        }
      });
      for (const step of steps) {
        if (step.do === 'upsert') t.upsert(step.row);
        else if (step.do === 'delete') t.delete(step.key);
        else if (step.do === 'replace') t.replaceAll(step.rows);
        else await turn();
        for (const tag of ['x', 'y', 'z']) {
          const ids = [...byTag.get(tag)].map((row) => row.id).sort();
          const scan = [...t.values()].filter((row) => row.tags?.includes(tag)).map((row) => row.id);
          assert.deepEqual(ids, scan.sort());
          assert.equal(byTag.count(tag), ids.length);
        }
      }
      await turn();
      assert.deepEqual(new Map([...t.keys()].map((key) => [key, t.get(key)])), copy);
    }),
    { numRuns: 150 },
  );
});

test('property: structural equality is equality of JSON, whatever the order of keys', () => {
  const shuffled = (value: unknown): unknown =>
    Array.isArray(value)
      ? value.map(shuffled)
      : value !== null && typeof value === 'object'
        ? Object.fromEntries(
            Object.entries(value)
              .reverse()
              .map(([k, v]) => [k, shuffled(v)]),
          )
        : value;
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
      assert.ok(structurallyEqual(a, shuffled(a)));
      assert.equal(structurallyEqual(a, b), structurallyEqual(b, a));
      if (JSON.stringify(a) === JSON.stringify(b)) assert.ok(structurallyEqual(a, b));
      assert.ok(!structurallyEqual(a, [a]));
      assert.ok(!structurallyEqual({ a, b: 1 }, { a }));
    }),
  );
});
