import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as delay, setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { type ApiClient, CONFIGMAPS } from '../api/client.ts';
import { objectKey } from '../api/object-key.ts';
import type { ConfigMap, WatchEvent } from '../api/types.ts';
import { ManualClock, systemClock } from '../base/clock.ts';
import { isWeftError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { MemoryTable } from '../state/memory-table.ts';
import { HttpApiClient } from './http-client.ts';
import { compareVersions, type Reflector, type ReflectorOptions, startReflector } from './reflector.ts';
import { FakeApiServer, type Fault } from './testing/fake-api-server.ts';

interface Row {
  key: string;
  value: string;
}
const map = (object: ConfigMap): Row => ({ key: objectKey(object), value: object.data?.value ?? '' });

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!condition()) {
    if (Date.now() > deadline) assert.fail(`not within 10 s: ${what}`);
    await delay(2);
  }
}

const same = (server: FakeApiServer, table: MemoryTable<Row>): boolean =>
  table.size === server.objects.size &&
  [...server.objects.values()].every((o) => table.get(objectKey(o))?.value === o.data?.value);

async function setUp(more: Partial<ReflectorOptions<ConfigMap, Row>> = {}) {
  const stack = new AsyncDisposableStack();
  const server = stack.adopt(new FakeApiServer(), (s) => s.close());
  const client = stack.adopt(
    new HttpApiClient({ server: await server.listen(), namespace: 'default' }),
    (c) => c.close(),
  );
  const table = new MemoryTable<Row>('rows', (r) => r.key);
  const start = (): Reflector =>
    stack.adopt(
      startReflector({
        client,
        resource: CONFIGMAPS,
        table,
        map,
        clock: systemClock,
        logger: silentLogger,
        backoff: { min: 1, max: 10 },
        ...more,
      }),
      (r) => r.close(),
    );
  return { server, client, table, start, [Symbol.asyncDispose]: () => stack.disposeAsync() };
}

test('lists in pages, then follows the watch', async () => {
  await using t = await setUp({ pageSize: 3 });
  for (let i = 0; i < 8; i++) t.server.put(`c${i}`, 'x');
  const reflector = t.start();
  await reflector.synced;
  assert.equal(t.table.size, 8);
  assert.equal(t.server.requests.length >= 3, true);
  assert.match(t.server.requests[1]!, /limit=3&continue=/);
  await until(() => t.server.watchers === 1, 'watch');
  t.server.put('c1', 'ü→😀');
  t.server.put('new', 'y');
  t.server.remove('c2');
  await until(() => same(t.server, t.table), 'same');
  assert.equal(t.table.get('default/c1')?.value, 'ü→😀');
  assert.equal(reflector.connected, true);
  assert.equal(reflector.counts.lists, 1);
  assert.equal(reflector.resourceVersion, String(t.server.version));
});

test('a cut connection is resumed where it was, and the rows stay meanwhile', async () => {
  await using t = await setUp();
  t.server.put('a', '1');
  const reflector = t.start();
  await until(() => t.server.watchers === 1, 'watch');
  t.server.fault = () => 'reset';
  t.server.cutAll();
  await until(() => reflector.lastError !== undefined, 'failure');
  assert.equal(reflector.connected, false);
  assert.ok(isWeftError(reflector.lastError, 'WEFT_API_UNREACHABLE'));
  assert.equal(t.table.size, 1);
  t.server.put('b', '2');
  t.server.fault = () => undefined;
  await until(() => same(t.server, t.table), 'same');
  assert.equal(reflector.connected, true);
  assert.equal(reflector.counts.lists, 1, 'resumed, not listed again');
});

test('connected again as soon as the server accepts the watch, though nothing happens', async () => {
  await using t = await setUp();
  const reflector = t.start();
  await until(() => t.server.watchers === 1, 'watch');
  t.server.fault = () => 'error';
  t.server.cutAll();
  await until(() => !reflector.connected, 'failure');
  t.server.fault = () => undefined;
  await until(() => reflector.connected, 'connected');
});

test('retryNow ends a wait after a failure; reconnecting is told, once', async () => {
  let reconnects = 0;
  await using t = await setUp({
    backoff: { min: 3_600_000, max: 3_600_000 },
    onReconnect: () => void reconnects++,
  });
  t.server.fault = () => 'reset';
  const reflector = t.start();
  await until(() => reflector.counts.failures === 1, 'failure');
  t.server.fault = () => undefined;
  await delay(20);
  assert.equal(reflector.counts.failures, 1, 'an hour has not passed');
  assert.equal(reconnects, 0);
  reflector.retryNow();
  await until(() => reflector.connected && t.server.watchers === 1, 'connected');
  assert.equal(reconnects, 1);
  reflector.retryNow();
  t.server.put('a', '1');
  await until(() => same(t.server, t.table), 'same');
  assert.deepEqual([reconnects, reflector.counts.lists], [1, 2]);
});

test('410 leads to a new list, which changes only what differs', async () => {
  await using t = await setUp();
  for (const name of ['same', 'changed', 'removed']) t.server.put(name, '1');
  const reflector = t.start();
  await until(() => t.server.watchers === 1, 'watch');
  t.server.fault = () => 'reset';
  t.server.cutAll();
  await until(() => t.server.watchers === 0, 'cut');
  t.server.put('changed', '2');
  t.server.remove('removed');
  t.server.compact();
  const keys: string[] = [];
  using _ = t.table.subscribe((changes) => keys.push(...changes.map((c) => c.key)));
  t.server.fault = () => 'reorder';
  await until(() => same(t.server, t.table), 'same');
  await turn();
  assert.deepEqual(keys.sort(), ['default/changed', 'default/removed']);
  assert.equal(reflector.counts.lists, 2);
});

test('a bookmark moves the version on, so that an old one does not lead to a list', async () => {
  await using t = await setUp();
  t.server.put('a', '1');
  const reflector = t.start();
  await until(() => t.server.watchers === 1, 'watch');
  t.server.version += 50; // changes elsewhere
  t.server.bookmark();
  await until(() => reflector.resourceVersion === String(t.server.version), 'bookmark');
  t.server.compact();
  t.server.cutAll();
  t.server.put('b', '1');
  await until(() => same(t.server, t.table), 'same');
  assert.equal(reflector.counts.lists, 1);
});

test('Retry-After is waited for', async () => {
  const clock = new ManualClock();
  await using t = await setUp({ clock, backoff: { min: 1, max: 1 } });
  t.server.fault = () => 'too-many';
  t.server.retryAfter = 7;
  const reflector = t.start();
  await until(() => reflector.lastError !== undefined, 'refusal');
  t.server.fault = () => undefined;
  await clock.advance(6900);
  await delay(20);
  assert.equal(t.server.requests.length, 1);
  await clock.advance(200);
  await reflector.synced;
});

test('a watch on which nothing comes any more is taken up again', async () => {
  const clock = new ManualClock();
  await using t = await setUp({ clock, silenceSeconds: 90 });
  const reflector = t.start();
  await until(() => t.server.watchers === 1, 'watch');
  await clock.advance(91_000);
  await until(() => reflector.counts.watches === 2, 'second watch');
  assert.equal(reflector.counts.failures, 0);
  assert.equal(reflector.counts.lists, 1);
});

test('a server that ends every watch at once is not asked in a circle', async () => {
  const clock = new ManualClock();
  const client = {
    list: () =>
      Promise.resolve({ apiVersion: 'v1', kind: 'List', metadata: { resourceVersion: '1' }, items: [] }),
    async *watch() {},
  } as unknown as ApiClient;
  const table = new MemoryTable<Row>('rows', (r) => r.key);
  const reflector = startReflector({ client, resource: CONFIGMAPS, table, map, clock, logger: silentLogger });
  await reflector.synced;
  for (let i = 0; i < 60; i++) await clock.advance(1000);
  assert.ok(
    reflector.counts.watches >= 4 && reflector.counts.watches <= 14,
    String(reflector.counts.watches),
  );
  await reflector.close();
});

test('what the map leaves out is not kept, also when it comes to be left out later', async () => {
  await using t = await setUp({ map: (o) => (o.data?.value === 'hidden' ? undefined : map(o)) });
  t.server.put('a', 'shown');
  t.server.put('b', 'hidden');
  const reflector = t.start();
  await reflector.synced;
  assert.deepEqual([...t.table.keys()], ['default/a']);
  t.server.put('a', 'hidden');
  t.server.put('b', 'shown');
  await until(() => t.table.has('default/b'), 'b');
  assert.deepEqual([...t.table.keys()], ['default/b']);
});

test('an object that the map cannot take is left out; the others are kept', async () => {
  await using t = await setUp({
    map: (o) => {
      if (o.data?.value === 'bad') throw new TypeError('no such field');
      return map(o);
    },
  });
  t.server.put('a', 'good');
  t.server.put('b', 'bad');
  const reflector = t.start();
  await reflector.synced;
  assert.deepEqual([...t.table.keys()], ['default/a']);
  t.server.put('a', 'bad');
  t.server.put('c', 'good');
  await until(() => t.table.has('default/c'), 'c');
  assert.deepEqual([...t.table.keys()], ['default/c']);
});

test('a server that was set up anew, with versions below ours, is listed', async () => {
  await using t = await setUp();
  t.server.put('old', '1');
  const reflector = t.start();
  await until(() => t.server.watchers === 1, 'watch');
  t.server.reset();
  t.server.cutAll();
  t.server.put('new', '1');
  await until(() => same(t.server, t.table), 'same');
  assert.equal(reflector.resourceVersion, '6');
  t.server.put('newer', '1');
  await until(() => same(t.server, t.table), 'same');
});

test('an old event that comes again does not overwrite a newer row', async () => {
  const object = (rv: string, value: string): ConfigMap => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'a', namespace: 'n', resourceVersion: rv },
    data: { value },
  });
  const script: WatchEvent<ConfigMap>[] = [
    { type: 'ADDED', object: object('9', 'old') },
    { type: 'MODIFIED', object: object('10', 'new') },
    { type: 'ADDED', object: object('9', 'old') },
    { type: 'DELETED', object: object('8', 'older') },
  ];
  const client = {
    list: () =>
      Promise.resolve({ apiVersion: 'v1', kind: 'List', metadata: { resourceVersion: '1' }, items: [] }),
    async *watch(_: unknown, { signal }: { signal: AbortSignal }) {
      yield* script.splice(0);
      await new Promise((resolve) => signal.addEventListener('abort', resolve));
    },
  } as unknown as ApiClient;
  const table = new MemoryTable<Row>('rows', (r) => r.key);
  const clock = new ManualClock();
  const reflector = startReflector({ client, resource: CONFIGMAPS, table, map, clock, logger: silentLogger });
  await until(() => reflector.counts.events === 2, 'events');
  for (let i = 0; i < 5; i++) await turn();
  assert.equal(table.get('n/a')?.value, 'new');
  assert.equal(reflector.resourceVersion, '10');
  await reflector.close();
});

test('closed before it was synced: synced says so, and nobody need listen', async () => {
  await using t = await setUp();
  t.server.mute = true;
  const reflector = t.start();
  await until(() => t.server.requests.length === 1, 'request');
  await reflector.close();
  await assert.rejects(reflector.synced, (e) => isWeftError(e, 'WEFT_CLOSED'));
});

test('versions compare as numbers of any size; others are opaque', () => {
  assert.ok(compareVersions('9', '10') < 0);
  assert.ok(compareVersions('184467440737095516160', '184467440737095516159') > 0);
  assert.equal(compareVersions('12', '12'), 0);
  assert.equal(compareVersions('abc', '12'), 0);
  assert.equal(compareVersions('0', '12'), 0);
});

const arbFault = fc.constantFrom<Fault[]>(
  undefined,
  'error',
  'too-many',
  'reset',
  'gone',
  'cut',
  'duplicate',
  'reorder',
  'end',
  'garbage',
);
const names = ['a', 'b', 'c', 'd'];
const arbStep = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      put: fc.constantFrom(...names),
      value: fc.constantFrom('1', '2', 'ü😀'.repeat(40)),
    }),
  },
  { weight: 3, arbitrary: fc.constantFrom(...names).map((remove) => ({ remove })) },
  { weight: 1, arbitrary: fc.constant({ compact: true }) },
  { weight: 1, arbitrary: fc.constant({ cut: true }) },
  { weight: 1, arbitrary: fc.constant({ bookmark: true }) },
  { weight: 4, arbitrary: fc.integer({ min: 0, max: 3 }).map((wait) => ({ wait })) },
);

test('property: whatever went wrong on the way, in the end the table is what the server has', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(arbStep, { maxLength: 40, size: 'max' }),
      fc.array(arbFault, { minLength: 1, maxLength: 12, size: 'max' }),
      async (steps, faults) => {
        await using t = await setUp({ pageSize: 2 });
        let i = 0;
        t.server.fault = () => faults[i++ % faults.length];
        const copy = new Map<string, Row>();
        using _ = t.table.subscribe((changes) => {
          for (const { key, old, new: now } of changes) {
            assert.deepEqual(copy.get(key), old);
            if (now) copy.set(key, now);
            else copy.delete(key);
          }
        });
        t.start();
        for (const step of steps) {
          if ('put' in step) t.server.put(step.put, step.value);
          else if ('remove' in step) t.server.remove(step.remove);
          else if ('compact' in step) t.server.compact();
          else if ('cut' in step) t.server.cutAll();
          else if ('bookmark' in step) t.server.bookmark();
          else await delay(step.wait);
        }
        t.server.fault = () => undefined;
        t.server.cutAll(); // watches under way may be faulty ones
        t.server.put('last', 'x');
        await until(() => same(t.server, t.table), 'same');
        await turn();
        assert.deepEqual([...copy].sort(), [...t.table.keys()].map((k) => [k, t.table.get(k)]).sort());
      },
    ),
    { numRuns: 25 },
  );
});
