import assert from 'node:assert/strict';
import { test } from 'node:test';
import { KeyedMutex } from './keyed-mutex.ts';

test('one at a time per key, in order, past failures; keys do not wait for each other', async () => {
  const mutex = new KeyedMutex();
  const log: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = mutex.run('a', async () => {
    log.push('a1 begins');
    await gate.promise;
    log.push('a1 ends');
    throw new Error('a1');
  });
  const second = mutex.run('a', async () => {
    log.push('a2');
    return 2;
  });
  await mutex.run('b', async () => void log.push('b'));
  assert.deepEqual(log, ['a1 begins', 'b']);
  gate.resolve();
  await assert.rejects(first, /a1/);
  assert.equal(await second, 2);
  assert.deepEqual(log, ['a1 begins', 'b', 'a1 ends', 'a2']);
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(mutex.size, 0, 'nothing is remembered of keys that are idle');
});
