import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { ManualClock } from '../base/clock.ts';
import { isWeftError, WeftError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { structurallyEqual } from './equal.ts';
import { MemoryTable } from './memory-table.ts';
import type { Operations, Outcome, PruneReport } from './operations.ts';
import { Reconciler, type ReconcilerOptions } from './reconciler.ts';

interface Row {
  id: string;
  order: number;
  n: number;
}

/** A target in memory whose every call can fail, before or after doing its work. */
class FakeTarget implements Operations<Row> {
  readonly held = new Map<string, Row>();
  readonly calls: string[] = [];
  /** Asked before each single operation: `before`, `after` or nothing. */
  fault: () => 'before' | 'after' | 'throw' | undefined = () => undefined;
  running = 0;
  mostRunning = 0;
  pause: (() => Promise<unknown>) | undefined;

  update(rows: Row[]): Promise<Outcome[]> {
    return this.#each(rows, 'update', (row) => this.held.set(row.id, row));
  }

  delete(rows: Row[]): Promise<Outcome[]> {
    return this.#each(rows, 'delete', (row) => this.held.delete(row.id));
  }

  async #each(rows: Row[], verb: string, act: (row: Row) => void): Promise<Outcome[]> {
    this.calls.push(`${verb} ${rows.map((row) => row.id).join(' ')}`);
    this.mostRunning = Math.max(this.mostRunning, ++this.running);
    await (this.pause?.() ?? turn());
    this.running--;
    return rows.map((row) => {
      const fault = this.fault();
      if (fault === 'throw') throw new WeftError('WEFT_NETLINK_REFUSED', 'the whole batch');
      if (fault !== 'before') act(row);
      return fault ? { error: new WeftError('WEFT_NETLINK_REFUSED', `no ${row.id}`) } : {};
    });
  }

  async prune(desired: ReadonlyMap<string, Row>): Promise<PruneReport> {
    this.calls.push('prune');
    await (this.pause?.() ?? turn());
    const report: PruneReport = { changes: [], errors: [] };
    if (this.fault() === 'throw') throw new WeftError('WEFT_NETLINK_REFUSED', 'no dump');
    for (const key of new Set([...this.held.keys(), ...desired.keys()])) {
      const want = desired.get(key);
      const have = this.held.get(key);
      if (structurallyEqual(want, have)) continue;
      if (this.fault()) report.errors.push({ key, error: new Error(`no ${key}`) });
      else {
        report.changes.push({ key, action: have ? (want ? 'replaced' : 'removed') : 'created' });
        if (want) this.held.set(key, want);
        else this.held.delete(key);
      }
    }
    return report;
  }
}

const set = (...rows: Row[]): Map<string, Row> => new Map(rows.map((row) => [row.id, row]));
const row = (id: string, n = 0, order = 0): Row => ({ id, n, order });

function start(more: Partial<ReconcilerOptions<Row>> = {}) {
  const desired = new MemoryTable<Row>('desired', (r) => r.id);
  const target = new FakeTarget();
  const clock = new ManualClock(1_000_000);
  const make = () =>
    new Reconciler<Row>({
      name: 'test',
      desired,
      operations: target,
      clock,
      logger: silentLogger,
      orderOf: (r) => r.order,
      random: () => 0.5,
      ...more,
    });
  return { desired, target, clock, make };
}

test('the first pass adopts what is there, changes what differs and removes what is not desired', async () => {
  const { desired, target, make } = start();
  for (const r of [row('same'), row('differs', 1), row('stray')]) target.held.set(r.id, r);
  desired.replaceAll([row('same'), row('differs', 2), row('missing')]);
  const reconciler = make();
  await reconciler.ready;
  await turn();
  assert.deepEqual(target.held, set(row('same'), row('differs', 2), row('missing')));
  assert.deepEqual(target.calls, ['prune']);
  assert.deepEqual(
    [...reconciler.statuses.values()].map((s) => s.state),
    ['done', 'done', 'done'],
  );
  assert.equal(reconciler.backlog, 0);
  await reconciler.close();
});

test('nothing is touched before the desired table is complete', async () => {
  const synced = Promise.withResolvers<void>();
  const { desired, target, clock, make } = start({ synced: synced.promise });
  target.held.set('old', row('old'));
  const reconciler = make();
  desired.upsert(row('a'));
  await clock.advance(300_000);
  assert.deepEqual(target.calls, []);
  assert.equal(reconciler.statuses.get('a')?.state, 'pending');
  assert.equal(reconciler.isReady, false);
  desired.upsert(row('old'));
  synced.resolve();
  await reconciler.ready;
  assert.deepEqual(target.held, set(row('a'), row('old')));
  await reconciler.close();
});

test('deletes go first and downwards, updates upwards by order class', async () => {
  const { desired, target, make } = start();
  desired.replaceAll([row('link1', 0, 0), row('addr1', 0, 1), row('route1', 0, 2)]);
  const reconciler = make();
  await reconciler.ready;
  target.calls.length = 0;
  desired.replaceAll([row('route2', 0, 2), row('link2', 0, 0), row('addr2', 0, 1), row('link3', 0, 0)]);
  while (reconciler.backlog > 0 || target.calls.length === 0) await turn();
  assert.deepEqual(target.calls, [
    'delete route1',
    'delete addr1',
    'delete link1',
    'update link2 link3',
    'update addr2',
    'update route2',
  ]);
  await reconciler.close();
});

test('a failure is told with its code, tried again with growing delays, and forgotten on success', async () => {
  const { desired, target, clock, make } = start({
    retry: { min: 100, max: 1000 },
    pruneIntervalMs: Infinity,
  });
  const reconciler = make();
  await reconciler.ready;
  target.calls.length = 0;
  target.fault = () => 'before';
  desired.upsert(row('a'));
  const times: number[] = [];
  const from = clock.now();
  for (let ms = 0; ms < 5000; ms += 50) {
    const before = target.calls.length;
    await clock.advance(50);
    await turn();
    await turn();
    if (target.calls.length > before) times.push(clock.now() - from);
  }
  assert.deepEqual(times.slice(0, 6), [50, 150, 350, 750, 1550, 2550]);
  const status = reconciler.statuses.get('a')!;
  assert.equal(status.state, 'error');
  assert.equal(status.error?.code, 'WEFT_NETLINK_REFUSED');
  assert.equal(status.error?.message, 'no a');
  assert.ok(status.attempts >= 6 && status.since <= from + 50);
  assert.equal(reconciler.errorCount, 1);
  target.fault = () => undefined;
  desired.upsert(row('a', 1)); // a change does not wait for the retry
  while (reconciler.backlog > 0 || !target.held.has('a')) await turn();
  assert.equal(reconciler.statuses.get('a')?.state, 'done');
  assert.equal(reconciler.statuses.get('a')?.error, undefined);
  assert.equal(reconciler.errorCount, 0);
  await reconciler.close();
});

test('a row that is being deleted has a status until it is gone', async () => {
  const { desired, target, clock, make } = start({ pruneIntervalMs: Infinity });
  desired.upsert(row('a'));
  const reconciler = make();
  await reconciler.ready;
  target.fault = () => 'before';
  desired.delete('a');
  while (reconciler.statuses.get('a')?.state !== 'error') await turn();
  assert.equal(reconciler.statuses.get('a')?.deleting, true);
  target.fault = () => undefined;
  await clock.advance(1000);
  while (reconciler.backlog > 0) await turn();
  assert.equal(reconciler.statuses.size, 0);
  assert.equal(target.held.size, 0);
  await reconciler.close();
});

test('prune comes by itself, on request (together for several), and tells what it found', async () => {
  const reports: PruneReport[] = [];
  const { desired, target, clock, make } = start({
    onPruned: (r) => reports.push(r),
    pruneIntervalMs: 60_000,
  });
  desired.replaceAll([row('a'), row('b')]);
  const reconciler = make();
  await reconciler.ready;
  reports.length = 0;
  target.held.delete('a');
  await clock.advance(61_000);
  await turn();
  assert.deepEqual(reports, [{ changes: [{ key: 'a', action: 'created' }], errors: [] }]);
  target.held.set('b', row('b', 9));
  target.calls.length = 0;
  const [one, two] = await Promise.all([reconciler.pruneNow(), reconciler.pruneNow()]);
  assert.equal(one, two);
  assert.deepEqual(one.changes, [{ key: 'b', action: 'replaced' }]);
  assert.deepEqual(target.calls, ['prune']);
  target.fault = () => 'throw';
  await assert.rejects(reconciler.pruneNow(), (e) => isWeftError(e, 'WEFT_NETLINK_REFUSED'));
  await reconciler.close();
  await assert.rejects(reconciler.pruneNow(), (e) => isWeftError(e, 'WEFT_CLOSED'));
});

test('repair applies a row again, without a change', async () => {
  const { desired, target, make } = start();
  desired.replaceAll([row('a'), row('b')]);
  const reconciler = make();
  await reconciler.ready;
  await turn();
  target.held.clear();
  reconciler.repair(['a', 'unknown']);
  while (reconciler.backlog > 0) await turn();
  assert.deepEqual(target.held, set(row('a')));
  await reconciler.close();
});

test('what somebody changes while it is applied or compared is applied once more', async () => {
  const { desired, target, make } = start({ pruneIntervalMs: Infinity });
  const reconciler = make();
  await reconciler.ready;
  desired.upsert(row('a'));
  while (reconciler.backlog > 0 || target.held.size === 0) await turn();
  for (const call of ['update', 'prune'] as const) {
    const gate = Promise.withResolvers<void>();
    const begun = target.calls.length;
    target.pause = () => gate.promise.then(() => target.held.set('a', row('a')));
    if (call === 'update') reconciler.repair(['a']);
    else void reconciler.pruneNow();
    while (target.calls.length === begun) await turn();
    target.pause = undefined;
    reconciler.repair(['a']);
    await turn();
    gate.resolve();
    while (target.calls.length < begun + 2 || reconciler.backlog > 0) await turn();
    assert.deepEqual(
      target.calls.slice(begun).map((c) => c.split(' ')[0]),
      [call, 'update'],
    );
    assert.equal(reconciler.statuses.get('a')!.state, 'done');
  }
  await reconciler.close();
});

test('batches are bounded, and so is how many are under way', async () => {
  const { desired, target, make } = start({ batchSize: 10, concurrency: 3 });
  const reconciler = make();
  await reconciler.ready;
  for (let i = 0; i < 95; i++) desired.upsert(row(`r${i}`));
  while (target.held.size < 95) await turn();
  assert.equal(target.mostRunning, 3);
  assert.equal(target.calls.filter((c) => c.startsWith('update')).length, 10);
  await reconciler.close();
});

test('a row put back while its deletion is under way comes back', async () => {
  const { desired, target, make } = start({ pruneIntervalMs: Infinity });
  const a = row('a');
  desired.upsert(a);
  const reconciler = make();
  await reconciler.ready;
  await turn();
  const gate = Promise.withResolvers<void>();
  target.pause = () => gate.promise;
  desired.delete('a');
  while (target.running === 0) await turn();
  desired.upsert(a);
  await turn();
  await turn();
  gate.resolve();
  while (reconciler.backlog > 0 || target.running > 0) await turn();
  await turn();
  assert.deepEqual(target.held, set(a));
  await reconciler.close();
});

test('close ends after the call under way and starts no other', async () => {
  const { desired, target, make } = start({ batchSize: 1 });
  const reconciler = make();
  await reconciler.ready;
  const gate = Promise.withResolvers<void>();
  target.pause = () => gate.promise;
  desired.replaceAll([row('a'), row('b')]);
  while (target.running === 0) await turn();
  const closing = reconciler.close();
  let closed = false;
  void closing.then(() => {
    closed = true;
  });
  await turn();
  assert.equal(closed, false);
  gate.resolve();
  await closing;
  await reconciler.close();
  assert.deepEqual(target.held, set(row('a')));
});

test('closed before it was ready: ready says so, and nobody need listen', async () => {
  const { make } = start({ synced: new Promise(() => {}) });
  const reconciler = make();
  await reconciler.close();
  await assert.rejects(reconciler.ready, (e) => isWeftError(e, 'WEFT_CLOSED'));
});

// The same objects again and again: a row that comes back may be the very one that was applied before.
const pool = ['a', 'b', 'c', 'd', 'e'].flatMap((id) => [0, 1, 2].map((n) => row(id, n, n)));
const arbRow = fc.constantFrom(...pool);
const arbStep = fc.oneof(
  { weight: 4, arbitrary: arbRow.map((upsert) => ({ upsert })) },
  { weight: 2, arbitrary: fc.constantFrom('a', 'b', 'c', 'd', 'e').map((remove) => ({ remove })) },
  { weight: 5, arbitrary: fc.constant({ turn: true }) },
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 40_000 }).map((advance) => ({ advance })) },
  { weight: 1, arbitrary: arbRow.map((drift) => ({ drift })) },
  { weight: 1, arbitrary: fc.constantFrom('a', 'b', 'c').map((drop) => ({ drop })) },
  { weight: 1, arbitrary: fc.constant({ prune: true }) },
);
const arbFault = fc.constantFrom(undefined, undefined, 'before' as const, 'after' as const, 'throw' as const);

async function play(
  steps: Array<typeof arbStep extends fc.Arbitrary<infer S> ? S : never>,
  fault: FakeTarget['fault'],
  drifts: boolean,
) {
  const { desired, target, clock, make } = start({
    pruneIntervalMs: drifts ? 20_000 : Infinity,
    batchSize: 2,
    concurrency: 2,
  });
  target.held.set('stray', row('stray'));
  desired.upsert(row('a', 7));
  target.fault = fault;
  let calls = 0;
  target.pause = async () => {
    for (let i = (calls++ * 5) % 7; i > 0; i--) await turn(); // long enough for changes to arrive meanwhile
  };
  const reconciler = make();
  for (const step of steps) {
    if ('upsert' in step) desired.upsert(step.upsert);
    else if ('remove' in step) desired.delete(step.remove);
    else if ('advance' in step) await clock.advance(step.advance);
    else if ('drift' in step) drifts && target.held.set(step.drift.id, step.drift);
    else if ('drop' in step) drifts && target.held.delete(step.drop);
    else if ('prune' in step) reconciler.pruneNow().catch(() => {});
    else await turn();
  }
  target.fault = () => undefined;
  for (let i = 0; i < 6; i++) await clock.advance(20_000);
  for (let i = 0; i < 100 || reconciler.backlog > 0; i++) await turn();
  assert.deepEqual([...target.held].sort(), [...desired.keys()].map((k) => [k, desired.get(k)]).sort());
  assert.deepEqual([...reconciler.statuses.keys()].sort(), [...desired.keys()].sort());
  for (const status of reconciler.statuses.values()) assert.equal(status.state, 'done');
  assert.equal(reconciler.errorCount, 0);
  await reconciler.close();
}

test('property: whatever fails on the way, the end is as desired', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(arbStep, { maxLength: 60, size: 'max' }),
      fc.array(arbFault, { maxLength: 12 }),
      fc.boolean(),
      async (steps, faults, drifts) => {
        let i = 0;
        await play(steps, () => faults[i++ % Math.max(1, faults.length)], drifts);
      },
    ),
    { numRuns: 400 },
  );
});
