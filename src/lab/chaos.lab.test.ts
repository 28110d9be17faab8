/** Pods come and go while what looks after them is killed at random moments: in the end all is as the API says, and nothing leaks. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { PODS } from '../api/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../api/errors.ts';
import type { Pod } from '../api/types.ts';
import { isWeftError } from '../base/errors.ts';
import { createLab, labReachability, labReady, renderReachability, startDaemon } from './lab.ts';
import { findProcesses, signal } from './processes.ts';
import { nothingLeaked } from './testing/leaks.ts';
import { eventually, isReadyPod } from './testing/pod-lab.ts';
import { randomOf } from './testing/random.ts';
import { ipsOf, TestLab } from './testing/test-lab.ts';

const ROUNDS = 14;
const OPTIONS = { nodes: 2, subnets: 2 };
const NAMES = Array.from({ length: 8 }, (_, i) => `pod-${i}`);
/** `plugin`: the CNI plugin in the middle of a call, if one is met. */
const VICTIMS = ['daemon', 'apiserver', 'agent/node-1', 'agent/node-2', 'plugin', 'plugin'];
const PLUGIN_PATIENCE_MS = 500;

describe('chaos', { concurrency: false }, () => {
  let lab: TestLab;
  before(async () => {
    lab = await TestLab.boot('tc', OPTIONS);
  });
  after(() => lab?.[Symbol.asyncDispose]());

  async function makeOrDelete(name: string, random: () => number): Promise<void> {
    const ref = { name, namespace: 'default' };
    try {
      if (random() < 0.4) await lab.client.delete(PODS, ref, random() < 0.3 ? { gracePeriodSeconds: 0 } : {});
      else
        await lab.createPod(name, {
          containers: [
            { name: 'main', image: 'pause' },
            { name: 'other', image: 'exec', command: ['sleep', 'infinity'] },
          ],
        });
    } catch (error) {
      // The API server may just be dead; a pod may be there already, or not.
      const expected = [isAlreadyExists, isNotFound, isConflict].some((is) => is(error));
      assert.ok(expected || isWeftError(error, 'WEFT_API_UNREACHABLE'), String(error));
    }
  }

  /** Kill -9; false when there was nothing to kill. */
  async function kill(victim: string): Promise<boolean> {
    const isVictim =
      victim === 'plugin'
        ? ({ command }: { command: string }) => command.endsWith('weft-cni')
        : ({ role }: { role: string }) => role === victim;
    const end = Date.now() + (victim === 'plugin' ? PLUGIN_PATIENCE_MS : 0);
    do {
      const found = findProcesses(lab.name).find(isVictim);
      if (found) return signal(found, 'SIGKILL');
      await new Promise((resolve) => setImmediate(resolve));
    } while (Date.now() < end);
    return false;
  }

  test('pods, and kill -9 of whatever looks after them', async (t) => {
    const random = randomOf(t);
    const any = <T>(of: readonly T[]): T => of[Math.floor(random() * of.length)]!;
    const killed: string[] = [];
    for (let round = 0; round < ROUNDS; round++) {
      const work = NAMES.map((name) => makeOrDelete(name, random));
      await new Promise((resolve) => setTimeout(resolve, random() * 400));
      // Sometimes two at once.
      for (const victim of random() < 0.3 ? [any(VICTIMS), any(VICTIMS)] : [any(VICTIMS)]) {
        if (await kill(victim)) killed.push(victim);
      }
      await Promise.all(work);
      if (!lab.process('daemon')) await startDaemon(lab.name);
    }
    t.diagnostic(`killed: ${killed.join(', ')}`);

    // What `weft up` does again: the lab is taken over, nothing is made anew.
    assert.equal((await createLab({ name: lab.name, ...OPTIONS, readyTimeout: 60_000 })).created, false);
    await labReady(lab.name, 60_000);

    // What the API has is there and works…
    const pods = await eventually<Pod[]>('all pods to be ready', 60_000, async () => {
      const { items } = await lab.client.list(PODS, { namespace: 'default' });
      const odd = items.filter((pod) => pod.metadata.deletionTimestamp || !isReadyPod(pod));
      return odd.length === 0 ? items : { not: odd.map(({ metadata, status }) => ({ metadata, status })) };
    });
    assert.ok(pods.every((pod) => ipsOf(pod).length === 2));
    for (const { name } of lab.topology.nodes) {
      for (const ip of pods.flatMap(ipsOf)) await lab.must(name, 'ping', '-nqc1', '-W2', ip);
    }
    const reached = await labReachability(lab.name);
    assert.ok(reached.ok, renderReachability(reached));
    // …and what it has not is not.
    await nothingLeaked(lab);
  });
});
