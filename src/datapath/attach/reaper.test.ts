import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
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

/** As if its time had come: the timer is faked. */
function due(t: TestContext, reaper: Reaper, addresses: string[]): void {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  reaper.schedule(addresses);
  t.mock.timers.tick(2000);
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const addresses = Array.from({ length: 600 }, (_, i) => `fd00::${(i + 1).toString(16)}`);

test('many addresses are purged in batches, and one that is needed does not wait for all of them', async (t) => {
  const { kernel, programs } = heldKernel();
  const reaper = new Reaper(kernel, assert.ifError);
  due(t, reaper, addresses);
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
  await turn();
  assert.equal(programs.length, 4);
  assert.deepEqual(new Set(programs.flatMap(({ purged }) => purged)), new Set(addresses));
  await reaper.purged(addresses);
  assert.equal(programs.length, 4, 'nothing is left to do');
});

test('what a batch could not purge is still to be purged', async (t) => {
  const { kernel, programs } = heldKernel();
  const errors: unknown[] = [];
  const reaper = new Reaper(kernel, (error) => errors.push(error));
  due(t, reaper, ['192.0.2.1']);
  await turn();
  const waiting = reaper.purged(['192.0.2.1']);
  programs[0]!.end(new Error('not now'));
  await turn();
  assert.deepEqual(programs[1]!.purged, ['192.0.2.1'], 'whoever needs it tries at once');
  programs[1]!.end();
  await waiting;
  assert.equal(errors.length, 1);
});

test('closing waits for the batch under way, and begins no other', async (t) => {
  const { kernel, programs } = heldKernel();
  const reaper = new Reaper(kernel, assert.ifError);
  due(t, reaper, addresses);
  await turn();
  reaper.schedule(['192.0.2.1']);
  const closed = reaper.close();
  programs[0]!.end();
  await closed;
  t.mock.timers.tick(10_000);
  await turn();
  assert.equal(programs.length, 1);
});

test('closing does one batch of what waits: mostly all of it', async () => {
  const { kernel, programs } = heldKernel();
  const reaper = new Reaper(kernel, assert.ifError);
  reaper.schedule(addresses);
  const closed = reaper.close();
  await turn();
  programs[0]!.end();
  await closed;
  await turn();
  assert.deepEqual(
    programs.map(({ purged }) => purged.length),
    [256],
  );
});
