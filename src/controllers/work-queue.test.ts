import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { ApiError } from '../api/errors.ts';
import type { Status } from '../api/types.ts';
import { ManualClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { WorkQueue } from './work-queue.ts';

function setUp(handle: (key: string) => Promise<void>, concurrency = 2, logger = silentLogger) {
  const clock = new ManualClock();
  const retry = { min: 100, max: 400 };
  const queue = new WorkQueue({ handle, clock, logger, concurrency, retry, random: () => 0.5 });
  return { clock, queue };
}
const turns = async (): Promise<void> => {
  for (let i = 0; i < 5; i++) await turn();
};

test('a key is handled by one at a time, and again if it was added meanwhile', async () => {
  const gates: Array<() => void> = [];
  const handled: string[] = [];
  const { queue } = setUp(async (key) => {
    handled.push(key);
    await new Promise<void>((resolve) => gates.push(resolve));
  });
  queue.add('a');
  queue.add('a');
  await turns();
  assert.deepEqual(handled, ['a']);
  queue.add('a');
  queue.add('a');
  queue.add('b');
  queue.add('c');
  await turns();
  assert.deepEqual(handled, ['a', 'b'], 'two at once');
  assert.equal(queue.size, 3);
  for (let i = 0; i < 4; i++) {
    gates.shift()?.();
    await turns();
  }
  assert.deepEqual(handled.sort(), ['a', 'a', 'b', 'c']);
  assert.equal(queue.size, 0);
  await queue.close();
});

test('a failure is tried again with growing delays; success begins anew', async () => {
  const times: number[] = [];
  let failing = true;
  const { clock, queue } = setUp(async () => {
    times.push(clock.now());
    if (failing) throw new Error('no');
  });
  queue.add('a');
  await turns();
  for (let i = 0; i < 155; i++) await clock.advance(10);
  assert.deepEqual(times, [0, 100, 300, 700, 1100, 1500]);
  failing = false;
  await clock.advance(400);
  failing = true;
  queue.add('a', 50);
  const before = clock.now();
  for (let i = 0; i < 20; i++) await clock.advance(10);
  assert.deepEqual(times.slice(-2), [before + 50, before + 150]);
  await queue.close();
});

test('the earlier of two times counts', async () => {
  const times: number[] = [];
  const { clock, queue } = setUp(async () => void times.push(clock.now()));
  queue.add('a', 500);
  queue.add('b', 900);
  queue.add('a', 100);
  queue.add('a', 300);
  for (let i = 0; i < 100; i++) await clock.advance(10);
  assert.deepEqual(times, [100, 900]);
  await queue.close();
});

test('close waits for what is being handled, and starts nothing', async () => {
  const gate = Promise.withResolvers<void>();
  const handled: string[] = [];
  const { queue } = setUp(async (key) => {
    handled.push(key);
    await gate.promise;
  }, 1);
  queue.add('a');
  queue.add('b');
  await turns();
  let closed = false;
  const closing = queue.close().then(() => {
    closed = true;
  });
  await turns();
  assert.equal(closed, false);
  gate.resolve();
  await closing;
  queue.add('c');
  await turns();
  assert.deepEqual(handled, ['a']);
});

test('failing is warned of once, a Conflict only when it persists', async () => {
  const warnings: unknown[] = [];
  const logger = Object.assign(Object.create(silentLogger) as typeof silentLogger, {
    warn: (fields: unknown) => warnings.push(fields),
  });
  let error: Error = new ApiError({ code: 409, reason: 'Conflict', message: 'another was faster' } as Status);
  let failures = 7;
  let handled = 0;
  const { clock, queue } = setUp(
    async () => {
      handled++;
      if (failures-- > 0) throw error;
    },
    2,
    logger,
  );
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 40; i++) await clock.advance(100);
  };
  queue.add('a');
  await settle();
  assert.deepEqual([handled, warnings], [8, []], 'seven conflicts are settled quietly');
  failures = 9;
  queue.add('a');
  await settle();
  assert.deepEqual(warnings, [{ key: 'a', attempts: 8, error: 'another was faster' }]);
  error = new Error('no');
  failures = 5;
  queue.add('a');
  await settle();
  assert.deepEqual(warnings.slice(1), [{ key: 'a', attempts: 3, error: 'no' }]);
  await queue.close();
});
