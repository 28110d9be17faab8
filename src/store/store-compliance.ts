/** What every Store must do, whatever keeps the bytes. Each implementation's test calls {@link testStoreCompliance}. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../base/errors.ts';
import type { Store, StoreEntry, StoreEvent, WriteResult } from './store.ts';

const coded = (code: Parameters<typeof isWeftError>[1]) => (e: unknown) => isWeftError(e, code);

function written(result: WriteResult): StoreEntry {
  assert.ok(result.ok, 'the write should have been accepted');
  return result.entry;
}

/** `open` gives an empty store each time it is called. */
export function testStoreCompliance(name: string, open: () => Promise<Store>): void {
  const withStore = (run: (store: Store) => Promise<void>) => async () => {
    const store = await open();
    try {
      await run(store);
    } finally {
      await store.close();
    }
  };

  describe(`${name}: store compliance`, () => {
    it(
      'gives each write the next revision',
      withStore(async (store) => {
        const start = store.revision;
        const a = written(await store.create('/a', '1'));
        const b = written(await store.create('/b', '1'));
        assert.equal(a.revision, start + 1);
        assert.equal(b.revision, start + 2);
        const a2 = written(await store.update('/a', '2', a.revision));
        assert.deepEqual(a2, { key: '/a', value: '2', createRevision: a.revision, revision: start + 3 });
        assert.deepEqual(await store.get('/a'), a2);
        assert.equal(store.revision, start + 3);
      }),
    );

    it(
      'refuses a write whose expectation is wrong, and says what is there',
      withStore(async (store) => {
        const a = written(await store.create('/a', '1'));
        assert.deepEqual(await store.create('/a', 'x'), { ok: false, current: a });
        assert.deepEqual(await store.update('/a', 'x', a.revision + 1), { ok: false, current: a });
        assert.deepEqual(await store.update('/b', 'x', 5), { ok: false, current: undefined });
        assert.deepEqual(await store.delete('/a', a.revision - 1), { ok: false, current: a });
        assert.deepEqual(await store.delete('/b', 1), { ok: false, current: undefined });
        assert.equal(store.revision, a.revision, 'a refusal takes no revision');
      }),
    );

    it(
      'lets exactly one of many concurrent writers win',
      withStore(async (store) => {
        const a = written(await store.create('/a', '0'));
        const results = await Promise.all(
          Array.from({ length: 20 }, (_, i) => store.update('/a', String(i), a.revision)),
        );
        assert.equal(results.filter((r) => r.ok).length, 1);
        const creates = await Promise.all(Array.from({ length: 20 }, () => store.create('/c', 'x')));
        assert.equal(creates.filter((r) => r.ok).length, 1);
      }),
    );

    it(
      'lists by prefix, in order, in pages, and as it was',
      withStore(async (store) => {
        for (const key of ['/p/b', '/p/a', '/p/c', '/q/a', '/o/z', '/p', '/p0'])
          written(await store.create(key, key));
        const then = store.revision;
        const b = (await store.get('/p/b')) as StoreEntry;
        written(await store.delete('/p/b', b.revision));
        written(await store.create('/p/d', 'd'));
        const keys = async (options?: Parameters<Store['list']>[1]) => {
          const { entries, remaining } = await store.list('/p/', options);
          return [entries.map((e) => e.key).join(' '), remaining];
        };
        assert.deepEqual(await keys(), ['/p/a /p/c /p/d', 0]);
        assert.deepEqual(await keys({ limit: 2 }), ['/p/a /p/c', 1]);
        assert.deepEqual(await keys({ limit: 2, after: '/p/c' }), ['/p/d', 0]);
        assert.deepEqual(await keys({ revision: then }), ['/p/a /p/b /p/c', 0]);
        assert.deepEqual(await keys({ revision: then, limit: 1 }), ['/p/a', 2]);
        assert.deepEqual(await keys({ revision: then, limit: 1, after: '/p/a' }), ['/p/b', 1]);
        assert.equal((await store.list('/p/', { revision: then })).revision, then);
        assert.equal((await store.list('/none/')).revision, store.revision);
        await assert.rejects(store.list('/p/', { revision: store.revision + 1 }), coded('WEFT_STORE_FUTURE'));
      }),
    );

    it(
      'watches from a revision without gap or repetition, and shares event objects',
      withStore(async (store) => {
        const start = store.revision;
        const a = written(await store.create('/w/a', '1'));
        written(await store.create('/other', '1'));
        const first: StoreEvent[] = [];
        const second: StoreEvent[] = [];
        const w1 = await store.watch('/w/', { after: start }, (events) => first.push(...events));
        const a2 = written(await store.update('/w/a', '2', a.revision));
        const w2 = await store.watch('/w/', {}, (events) => second.push(...events));
        const gone = await store.delete('/w/a', a2.revision);
        assert.ok(gone.ok);
        written(await store.create('/w/a', '3'));
        await settle(store, w1, first, 4);
        assert.deepEqual(
          first.map((e) => [e.type, e.entry?.value, e.previous?.value]),
          [
            ['put', '1', undefined],
            ['put', '2', '1'],
            ['delete', undefined, '2'],
            ['put', '3', undefined],
          ],
        );
        assert.deepEqual(
          first.map((e) => e.revision),
          [a.revision, a2.revision, gone.revision, gone.revision + 1],
        );
        assert.equal(second.length, 2);
        assert.equal(second[0], first[2], 'the same object for every watcher');
        w1.close();
        w2.close();
        w2.close();
        written(await store.create('/w/b', '1'));
        assert.equal(first.length, 4);
      }),
    );

    it(
      'forgets what was compacted, keeps what is live, and says so',
      withStore(async (store) => {
        const start = store.revision;
        let a = written(await store.create('/a', '0'));
        written(await store.create('/b', 'b'));
        for (let i = 1; i <= 5; i++) a = written(await store.update('/a', String(i), a.revision));
        const mid = store.revision;
        const c = written(await store.create('/c', 'c'));
        written(await store.delete('/c', c.revision));
        await store.compact(mid);
        assert.equal(store.compactedRevision, mid);
        await assert.rejects(store.list('/', { revision: mid - 1 }), coded('WEFT_STORE_COMPACTED'));
        await assert.rejects(
          store.watch('/', { after: start }, () => {}),
          coded('WEFT_STORE_COMPACTED'),
        );
        const at = await store.list('/', { revision: mid });
        assert.deepEqual(
          at.entries.map((e) => [e.key, e.value]),
          [
            ['/a', '5'],
            ['/b', 'b'],
          ],
        );
        const seen: StoreEvent[] = [];
        const watch = await store.watch('/', { after: mid }, (events) => seen.push(...events));
        await settle(store, watch, seen, 2);
        assert.deepEqual(
          seen.map((e) => [e.type, e.key]),
          [
            ['put', '/c'],
            ['delete', '/c'],
          ],
        );
        await store.compact(store.revision);
        assert.equal((await store.list('/')).entries.length, 2);
        watch.close();
      }),
    );

    it(
      'equals a map with a log of changes, whatever is done',
      withStore(async (store) => {
        const operation = fc.record({
          kind: fc.constantFrom('create', 'update', 'delete', 'stale'),
          key: fc.constantFrom('/m/a', '/m/b', '/m/c'),
          value: fc.string({ maxLength: 5, unit: 'grapheme' }),
        });
        await fc.assert(
          fc.asyncProperty(fc.array(operation, { maxLength: 25 }), async (operations) => {
            const model = new Map((await store.list('/m/')).entries.map((e) => [e.key, e]));
            const start = store.revision;
            const snapshots = new Map<number, string>();
            for (const { kind, key, value } of operations) {
              const current = model.get(key);
              const expected = current?.revision ?? 0;
              if (kind === 'create') {
                const result = await store.create(key, value);
                assert.equal(result.ok, current === undefined);
                if (result.ok) model.set(key, result.entry);
              } else if (kind === 'update') {
                const result = await store.update(key, value, expected);
                assert.equal(result.ok, current !== undefined);
                if (result.ok) model.set(key, result.entry);
              } else if (kind === 'delete') {
                const result = await store.delete(key, expected);
                assert.equal(result.ok, current !== undefined);
                model.delete(key);
              } else assert.equal((await store.update(key, value, expected + 1)).ok, false);
              snapshots.set(store.revision, show(model));
            }
            for (const [revision, expected] of snapshots) {
              const { entries } = await store.list('/m/', { revision });
              assert.equal(show(new Map(entries.map((e) => [e.key, e]))), expected);
            }
            const replayed = new Map<string, StoreEntry>();
            for (const entry of (await store.list('/m/', { revision: start })).entries)
              replayed.set(entry.key, entry);
            const watch = await store.watch('/m/', { after: start }, (events) => {
              for (const event of events) {
                assert.deepEqual(event.previous, replayed.get(event.key));
                if (event.entry) replayed.set(event.key, event.entry);
                else replayed.delete(event.key);
              }
            });
            await until(() => watch.revision >= store.revision);
            watch.close();
            assert.equal(show(replayed), show(model));
          }),
          { numRuns: 20 },
        );
      }),
    );

    it('refuses to work once closed, and closes twice', async () => {
      const store = await open();
      const inFlight = store.create('/a', '1');
      await store.close();
      await store.close();
      assert.ok((await inFlight).ok, 'an accepted write is settled by close');
      await assert.rejects(store.get('/a'), coded('WEFT_STORE_CLOSED'));
      await assert.rejects(store.create('/b', '1'), coded('WEFT_STORE_CLOSED'));
    });
  });
}

const show = (entries: Map<string, StoreEntry>): string =>
  JSON.stringify([...entries.values()].sort((x, y) => (x.key < y.key ? -1 : 1)));

async function settle(
  store: Store,
  watch: { revision: number },
  seen: StoreEvent[],
  count: number,
): Promise<void> {
  await until(() => watch.revision >= store.revision && seen.length >= count);
  assert.equal(seen.length, count);
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 5000;
  while (!condition()) {
    assert.ok(Date.now() < deadline, 'waited 5 s');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
