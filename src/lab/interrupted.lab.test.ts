/** `weft up`, `weft down` and the CNI plugin, killed half-way: what was begun is finished or removed, and nothing is left. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { countTraces } from './destroy.ts';
import { createLab, destroyLab, labReachability, labTraces, renderReachability } from './lab.ts';
import { HOME } from './paths.ts';
import { enterArgs } from './processes.ts';
import { cniCall, makeSandbox, removeSandbox } from './testing/cni-call.ts';
import { attachmentsOf, nothingLeaked } from './testing/leaks.ts';
import { eventually } from './testing/pod-lab.ts';
import { randomOf } from './testing/random.ts';
import { TestLab } from './testing/test-lab.ts';

interface Ended {
  code: number | null;
  output: string;
}

/** The command as a user runs it; `killAfter` milliseconds, or undefined to let it end. */
function weft(args: string[], killAfter?: number): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(`${HOME}/weft`, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let output = '';
    const timer = killAfter === undefined ? undefined : setTimeout(() => child.kill('SIGKILL'), killAfter);
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    child.once('error', reject);
    // Not `close`: what it started may hold its output a little longer.
    child.once('exit', (code) => {
      clearTimeout(timer);
      resolve({ code, output });
    });
  });
}

describe('up and down', { concurrency: false }, () => {
  const lab = `ud${process.pid}`;
  after(async () => {
    assert.ok((await destroyLab(lab)).gone);
  });

  for (const most of [150, 600, 1500, 3000]) {
    test(`up killed within ${most} ms, then down: nothing is left`, async (t) => {
      const wait = Math.round(most * (0.3 + 0.7 * Math.random()));
      t.diagnostic(`killed after ${wait} ms`);
      await weft(['up', '-l', lab, '-n', '2', '--no-verify'], wait);
      const down = await weft(['down', '-l', lab]);
      assert.equal(down.code, 0, down.output);
      assert.match(down.output, /is gone|there was nothing of it/);
      assert.equal(countTraces(labTraces(lab)), 0);
    });
  }

  test('up killed half-way, then up again: the same lab, whole; down killed half-way, then down: nothing is left', async (t) => {
    await weft(['up', '-l', lab, '-n', '2', '--no-verify'], 300 + 1500 * Math.random());
    const up = await weft(['up', '-l', lab, '-n', '2']);
    assert.equal(up.code, 0, up.output);
    const found = await labReachability(lab);
    assert.ok(found.ok, renderReachability(found));
    for (let i = 0; i < 3; i++) {
      const wait = Math.round(150 + 250 * Math.random());
      t.diagnostic(`down killed after ${wait} ms`);
      await weft(['down', '-l', lab], wait);
    }
    const down = await weft(['down', '-l', lab]);
    assert.equal(down.code, 0, down.output);
    assert.equal(countTraces(labTraces(lab)), 0);
  });

  test('down killed half-way, then up: a whole lab again', async () => {
    await createLab({ name: lab, nodes: 2 });
    await weft(['down', '-l', lab], 150 + 250 * Math.random());
    const up = await weft(['up', '-l', lab, '-n', '2']);
    assert.equal(up.code, 0, up.output);
    const down = await weft(['down', '-l', lab]);
    assert.equal(down.code, 0, down.output);
    assert.equal(countTraces(labTraces(lab)), 0);
  });
});

describe('the CNI plugin', { concurrency: false }, () => {
  const NODE = 'node-1';
  let lab: TestLab;
  before(async () => {
    lab = await TestLab.boot('sh', { nodes: 1 });
  });
  after(() => lab?.[Symbol.asyncDispose]());

  /** Kill -9 of the plugin after so many milliseconds, wherever it is by then. */
  function killed(command: 'ADD' | 'DEL', id: string, netns: string, wait: number): Promise<number | null> {
    const variables = [
      `CNI_COMMAND=${command}`,
      `CNI_CONTAINERID=${id}`,
      `CNI_NETNS=${netns}`,
      'CNI_IFNAME=eth0',
      'CNI_PATH=/opt/cni/bin',
    ];
    const argv = [...enterArgs(lab.paths.node(NODE)), 'env', ...variables, '/opt/cni/bin/weft-cni'];
    return new Promise((resolve) => {
      const child = spawn(argv[0]!, argv.slice(1), { stdio: ['pipe', 'ignore', 'ignore'] });
      child.stdin.on('error', () => {});
      child.stdin.end(JSON.stringify({ cniVersion: '1.1.0', name: 'weft', type: 'weft-cni' }));
      setTimeout(() => child.kill('SIGKILL'), wait);
      child.once('exit', (code) => resolve(code));
    });
  }

  test('killed in the middle of ADDs and DELs, with the agent killed too: after DEL nothing is left of any', async (t) => {
    const random = randomOf(t);
    const ids = Array.from({ length: 24 }, (_, i) => `shim-${i}`);
    const sandboxes = new Map(ids.map((id) => [id, makeSandbox(lab, id)]));
    let answered = 0;
    await Promise.all(
      [0, 1, 2, 3].map(async (lane) => {
        for (const id of ids.filter((_, i) => i % 4 === lane)) {
          const netns = sandboxes.get(id)!;
          if ((await killed('ADD', id, netns, 2 + 100 * random())) === 0) answered++;
          if (lane === 0 && random() < 0.5 && lab.process(`agent/${NODE}`)) lab.kill(`agent/${NODE}`);
          if (random() < 0.5) await killed('DEL', id, netns, 2 + 30 * random());
        }
      }),
    );
    t.diagnostic(`${answered} of ${ids.length} ADDs were answered before they were killed`);
    await lab.agentReady(NODE);
    // A runtime whose ADD failed calls DEL; one that was killed itself does so when it comes back.
    for (const id of ids) {
      const { exit, value } = await cniCall(lab, NODE, 'DEL', { id, netns: sandboxes.get(id)! });
      assert.equal(exit, 0, `${id}: ${JSON.stringify(value)}`);
    }
    for (const netns of sandboxes.values()) removeSandbox(netns);
    await nothingLeaked(lab);
  });

  test('sandboxes that go without any DEL: released when the agent starts, and given again', async () => {
    const ids = ['gone-0', 'gone-1'];
    for (const id of ids) {
      const netns = makeSandbox(lab, id);
      assert.equal((await cniCall(lab, NODE, 'ADD', { id, netns })).exit, 0);
      removeSandbox(netns);
    }
    await lab.restartAgent(NODE);
    await eventually<true>('their records to go', 10_000, async () => {
      const left = attachmentsOf(lab, NODE);
      return left.length === 0 ? true : { not: left.map(({ id }) => id) };
    });
    await nothingLeaked(lab);
  });
});
