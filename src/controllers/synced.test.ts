import assert from 'node:assert/strict';
import { test } from 'node:test';
import { syncedOrClosed } from './synced.ts';

test('it waits for all sources, and for none that was closed or when the signal aborts', async () => {
  const first = Promise.withResolvers<void>();
  const second = Promise.withResolvers<void>();
  const sources = [{ synced: first.promise }, { synced: second.promise }];
  let done = false;
  const waiting = syncedOrClosed(sources, new AbortController().signal).then(() => {
    done = true;
  });
  first.resolve();
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(done, false);
  second.reject(new Error('closed'));
  await waiting;

  const abort = new AbortController();
  const never = [{ synced: new Promise<void>(() => {}) }];
  const aborted = syncedOrClosed(never, abort.signal);
  abort.abort();
  await aborted;
  await syncedOrClosed(never, abort.signal);
});
