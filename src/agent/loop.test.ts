import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock } from '../base/clock.ts';
import { Loop } from './loop.ts';

const turns = async (n = 5): Promise<void> => {
  for (let i = 0; i < n; i++) await new Promise((resolve) => setImmediate(resolve));
};

test('triggers during a pass are one more pass, and next() waits for one begun after it', async () => {
  const clock = new ManualClock();
  let release: (() => void) | undefined;
  let begun = 0;
  const loop = new Loop({
    clock,
    onError: () => assert.fail(),
    pass: () => {
      begun++;
      return new Promise((resolve) => {
        release = resolve;
      });
    },
  });
  loop.start();
  loop.trigger();
  await turns();
  assert.equal(begun, 1);
  loop.trigger();
  loop.trigger();
  let passed = false;
  const next = loop.next().then(() => {
    passed = true;
  });
  release?.();
  await turns();
  assert.equal(begun, 2);
  assert.equal(passed, false, 'the first pass had begun before');
  release?.();
  await next;
  await turns();
  assert.equal(begun, 2);
  await loop.close();
});

test('a failed pass is tried again after 100, 200, 400 ms; the error is told, and forgotten on success', async () => {
  const clock = new ManualClock();
  const at: number[] = [];
  const loop = new Loop({
    clock,
    onError: (_, attempt) => assert.equal(attempt, at.length),
    pass: async () => {
      at.push(clock.now());
      if (at.length < 4) throw new Error(`no ${at.length}`);
    },
  });
  loop.start();
  loop.trigger();
  await turns();
  assert.equal(loop.lastError, 'no 1');
  for (let i = 0; i < 8; i++) await clock.advance(100);
  assert.deepEqual(at, [0, 100, 300, 700]);
  assert.equal(loop.lastError, undefined);
  assert.equal(loop.passes, 1);
  await loop.close();
});

test('retryNow ends the wait after a failure, and the waits begin anew; without a failure it does nothing', async () => {
  const clock = new ManualClock();
  const at: number[] = [];
  let well = true;
  const loop = new Loop({
    clock,
    onError: () => {},
    pass: async () => {
      at.push(clock.now());
      if (!well) throw new Error('away');
    },
  });
  loop.start();
  loop.trigger();
  await turns();
  loop.retryNow();
  await turns();
  assert.deepEqual(at, [0]);
  well = false;
  loop.trigger();
  await turns();
  for (let i = 0; i < 10; i++) await clock.advance(100);
  assert.deepEqual(at, [0, 0, 100, 300, 700], 'the next is due at 1500');
  loop.trigger();
  await turns();
  assert.equal(at.length, 5, 'a trigger alone is no reason to hope');
  loop.retryNow();
  await turns();
  assert.equal(at.at(-1), 1000);
  await clock.advance(100);
  assert.equal(at.at(-1), 1100, 'the wait is the first again');
  well = true;
  loop.retryNow();
  await turns();
  assert.equal(loop.lastError, undefined);
  assert.equal(at.length, 8);
  await loop.close();
});

test('retryNow while a pass runs: should it fail, the wait is the first again', async () => {
  const clock = new ManualClock();
  const passes: PromiseWithResolvers<void>[] = [];
  const attempts: number[] = [];
  const loop = new Loop({
    clock,
    onError: (_, attempt) => attempts.push(attempt),
    pass: () => {
      passes.push(Promise.withResolvers<void>());
      return passes.at(-1)!.promise;
    },
  });
  loop.start();
  loop.trigger();
  for (const wait of [100, 200]) {
    await turns();
    passes.at(-1)!.reject(new Error('away'));
    await turns();
    await clock.advance(wait);
    await turns();
  }
  loop.retryNow();
  passes.at(-1)!.reject(new Error('cut'));
  await turns();
  await clock.advance(100);
  await turns();
  assert.deepEqual(attempts, [1, 2, 1]);
  assert.equal(passes.length, 4);
  passes.at(-1)!.resolve();
  await loop.close();
});

test('the period runs a pass unasked; closing ends everything, waiters too', async () => {
  const clock = new ManualClock();
  let passes = 0;
  const loop = new Loop({
    clock,
    periodMs: 1000,
    onError: () => {},
    pass: async () => {
      if (++passes > 2) throw new Error('stays broken');
    },
  });
  loop.start();
  await turns();
  await clock.advance(1000);
  await turns();
  await clock.advance(1000);
  assert.equal(passes, 2);
  const next = loop.next();
  await turns();
  await loop.close();
  await next;
  await loop.next();
});
