import assert from 'node:assert/strict';
import { test } from 'node:test';
import { median, pairedRatio, quantile, rotate } from './stats.ts';

test('median', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.ok(Number.isNaN(median([])));
});

test('quantile is a measured value', () => {
  const values = Array.from({ length: 100 }, (_, i) => 100 - i);
  assert.equal(quantile(values, 0.9), 90);
  assert.equal(quantile(values, 0), 1);
  assert.equal(quantile(values, 1), 100);
  assert.equal(quantile([7], 0.5), 7);
  assert.equal(values[0], 100, 'the input keeps its order');
});

test('a paired ratio does not see what slows both down', () => {
  assert.equal(pairedRatio([10, 1, 100], [20, 2, 200]), 0.5);
  assert.throws(() => pairedRatio([1], [1, 2]), RangeError);
});

test('rotate', () => {
  assert.deepEqual(rotate(['a', 'b', 'c'], 1), ['b', 'c', 'a']);
  assert.deepEqual(rotate(['a', 'b', 'c'], 5), ['c', 'a', 'b']);
  assert.deepEqual(rotate([], 3), []);
});
