import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Kernel, Step } from '../../kernel/types.ts';
import { Reaper } from './reaper.ts';

/** A kernel that takes programs and ends them when told. */
function heldKernel(): {
  kernel: Kernel;
  programs: Array<{ purged: string[]; end: (error?: Error) => void }>;
} {
  const programs: Array<{ purged: string[]; end: (error?: Error) => void }> = [];
  const must = (steps: Step[]): Promise<void> =>
    new Promise((resolve, reject) => {
      const purged = steps.flatMap(({ ops }) =>
        ops.flatMap((op) => (op.op === 'conntrack.purge' ? op.address : [])),
      );
      programs.push({ purged, end: (error) => (error ? reject(error) : resolve()) });
    });
  return { kernel: { must } as unknown as Kernel, programs };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const addresses = Array.from({ length: 600 }, (_, i) => `fd00::${(i + 1).toString(16)}`);

test('many addresses are purged in batches, and one that is needed does not wait for all of them', async () => {
  const { kernel, programs } = heldKernel();
  const reaper = new Reaper(kernel, assert.ifError);
  reaper.schedule(addresses);
  const flushed = reaper.flush();
  await turn();
  assert.deepEqual(
    programs.map(({ purged }) => purged.length),
    [256],
  );
  let early = false;
  const first = reaper.purged([addresses[0]!]).then(() => {
    early = true;
  });
  const last = reaper.purged([addresses[599]!]);
  await turn();
  assert.deepEqual(programs[1]!.purged, [addresses[599]], 'the last one goes by itself');
  assert.ok(!early);
  programs[0]!.end();
  programs[1]!.end();
  await Promise.all([first, last]);
  for (let i = 2; i < 4; i++) {
    await turn();
    programs[i]!.end();
  }
  await flushed;
  assert.equal(programs.length, 4);
  assert.deepEqual(new Set(programs.flatMap(({ purged }) => purged)), new Set(addresses));
  await reaper.purged(addresses);
  assert.equal(programs.length, 4, 'nothing is left to do');
});

test('what a batch could not purge is still to be purged', async () => {
  const { kernel, programs } = heldKernel();
  const errors: unknown[] = [];
  const reaper = new Reaper(kernel, (error) => errors.push(error));
  reaper.schedule(['192.0.2.1']);
  const flushed = reaper.flush();
  await turn();
  const waiting = reaper.purged(['192.0.2.1']);
  programs[0]!.end(new Error('not now'));
  await flushed;
  await turn();
  assert.deepEqual(programs[1]!.purged, ['192.0.2.1'], 'whoever needs it tries at once');
  programs[1]!.end();
  await waiting;
  assert.equal(errors.length, 1);
});
