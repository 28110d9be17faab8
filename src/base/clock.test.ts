import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ManualClock, systemClock } from './clock.ts';

test('a manual clock wakes sleepers in order and only when due', async () => {
  const clock = new ManualClock(1000);
  const woke: string[] = [];
  void clock.sleep(50).then(() => woke.push(`late ${clock.now()}`));
  void clock.sleep(10).then(() => woke.push(`early ${clock.now()}`));
  await clock.advance(9);
  assert.deepEqual(woke, []);
  await clock.advance(1);
  assert.deepEqual(woke, ['early 1010']);
  await clock.advance(100);
  assert.deepEqual(woke, ['early 1010', 'late 1050']);
});

test('both clocks reject an aborted sleep with its reason', async () => {
  for (const clock of [new ManualClock(), systemClock]) {
    const abort = new AbortController();
    const sleeping = clock.sleep(60_000, abort.signal);
    abort.abort(new Error('enough'));
    await assert.rejects(sleeping, /enough/);
    await assert.rejects(clock.sleep(1, abort.signal), /enough/);
  }
});
