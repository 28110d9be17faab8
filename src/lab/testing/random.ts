/** Chance that can be repeated: WEFT_SEED takes the seed that a failed run has printed. */
import type { TestContext } from 'node:test';

/** Numbers from 0 to 1 (mulberry32), the same for the same seed, which the test tells. */
export function randomOf(t: TestContext): () => number {
  const seed = process.env.WEFT_SEED ? Number(process.env.WEFT_SEED) : Math.floor(Math.random() * 2 ** 31);
  t.diagnostic(`WEFT_SEED=${seed}`);
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
