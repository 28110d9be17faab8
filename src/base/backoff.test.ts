import assert from 'node:assert/strict';
import { test } from 'node:test';
import { backoffDelay } from './backoff.ts';

test('delays double from min to max', () => {
  const options = { min: 100, max: 1000, random: () => 0.5 };
  assert.deepEqual(
    [1, 2, 3, 4, 5, 1000].map((n) => backoffDelay(n, options)),
    [100, 200, 400, 800, 1000, 1000],
  );
});

test('jitter stays within half and one and a half of the delay', () => {
  for (let i = 0; i < 200; i++) {
    const delay = backoffDelay(3, { min: 100, max: 1000 });
    assert.ok(delay >= 200 && delay < 600, String(delay));
  }
});
