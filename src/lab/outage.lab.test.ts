/** The agent is away; the API is away: what goes on, what is refused and how, and what is made good afterwards. */
import assert from 'node:assert/strict';
import { readdirSync, readlinkSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { Pod } from '../api/types.ts';
import { labReady, startDaemon } from './lab.ts';
import { HOME } from './paths.ts';
import { enterArgs, spawnDetached } from './processes.ts';
import { cniCall, ipsIn, makeSandbox, removeSandbox } from './testing/cni-call.ts';
import { attachmentsOf, nothingLeaked } from './testing/leaks.ts';
import { nodeState } from './testing/node-state.ts';
import { eventually } from './testing/pod-lab.ts';
import { ipsOf, TestLab } from './testing/test-lab.ts';

describe('outages', { concurrency: false }, () => {
  let lab: TestLab;
  let pods: Pod[];
  before(async () => {
    lab = await TestLab.boot('ou', { nodes: 3, subnets: 2 });
    pods = await Promise.all(['node-1', 'node-2'].map((node) => lab.pod(`on-${node}`, { nodeName: node })));
  });
  after(() => lab?.[Symbol.asyncDispose]());

  /** Kill -9 them all, the daemon first: nobody starts the others again. */
  async function killForGood(...roles: string[]): Promise<void> {
    for (const role of ['daemon', ...roles]) if (lab.process(role)) lab.kill(role);
    await eventually<true>(`the end of ${roles}`, 10_000, async () => {
      const left = roles.filter((role) => lab.process(role));
      return left.length === 0 ? true : { not: left };
    });
  }
  async function daemonAgain(): Promise<void> {
    await startDaemon(lab.name);
    await labReady(lab.name, 60_000);
  }
  async function podsTalk(): Promise<void> {
    for (const from of pods) {
      for (const to of pods) {
        for (const ip of ipsOf(to))
          await lab.must(
            from.spec.nodeName!,
            'nsenter',
            `--net=${lab.netnsOf(from)}`,
            'ping',
            '-nqc1',
            '-W2',
            ip,
          );
      }
    }
  }

  describe('without an agent', { concurrency: false }, () => {
    const container = { id: 'by-hand', netns: '' };
    before(async () => {
      container.netns = makeSandbox(lab, 'byhand');
      const added = await cniCall(lab, 'node-1', 'ADD', container);
      assert.equal(added.exit, 0, JSON.stringify(added.value));
      assert.equal(ipsIn(added).length, 2);
      await killForGood('agent/node-1', 'agent/node-3');
    });

    test('STATUS is 51 where pods are attached, 50 where there are none, and 0 where there is an agent', async () => {
      for (const [node, code] of [
        ['node-1', 51],
        ['node-3', 50],
      ] as const) {
        const { exit, value } = await cniCall(lab, node, 'STATUS');
        assert.deepEqual([exit, value.code], [1, code], JSON.stringify(value));
      }
      assert.equal((await cniCall(lab, 'node-2', 'STATUS')).exit, 0);
    });

    test('ADD and CHECK are refused at once with code 11; VERSION needs nobody', async (t) => {
      const other = { id: 'another', netns: makeSandbox(lab, 'another') };
      for (const [command, who] of [
        ['ADD', other],
        ['CHECK', container],
      ] as const) {
        const { exit, value, took } = await cniCall(lab, 'node-1', command, who, {
          prevResult: { cniVersion: '1.1.0', ips: [], interfaces: [] },
        });
        assert.deepEqual([exit, value.code], [1, 11], JSON.stringify(value));
        t.diagnostic(`${command}: ${Math.round(took)} ms`);
        assert.ok(took < 5000, `${command} took ${took} ms`);
      }
      assert.ok((await cniCall(lab, 'node-1', 'VERSION')).value.supportedVersions?.includes('1.1.0'));
      removeSandbox(other.netns);
    });

    test('pods go on talking', podsTalk);

    test('DEL succeeds, is on record, and carried out when there is an agent again, before it answers', async () => {
      for (let i = 0; i < 2; i++) {
        const { exit, value } = await cniCall(lab, 'node-1', 'DEL', container);
        assert.equal(exit, 0, JSON.stringify(value));
      }
      removeSandbox(container.netns);
      assert.ok(readdirSync(`${lab.paths.node('node-1').state}/cni-spool`).length > 0);
      assert.ok(attachmentsOf(lab, 'node-1').some(({ containerId }) => containerId === 'by-hand'));
      await daemonAgain();
      await eventually<true>('an agent', 20_000, async () =>
        (await cniCall(lab, 'node-1', 'STATUS')).exit === 0 ? true : { not: 'yet' },
      );
      assert.ok(!attachmentsOf(lab, 'node-1').some(({ containerId }) => containerId === 'by-hand'));
      await nothingLeaked(lab);
    });
  });

  describe('without an API server', { concurrency: false }, () => {
    const container = { id: 'meanwhile', netns: '' };
    const nodes = ['node-1', 'node-2', 'node-3'];
    /** As the daemon does it, which finds it again by its role. */
    function startAgent(node: string): void {
      const main = `${HOME}/src/cli/main.ts`;
      spawnDetached(
        [
          ...enterArgs(lab.paths.node(node)),
          process.execPath,
          '--disable-warning=ExperimentalWarning',
          main,
          'agent',
          '--config',
          '/var/lib/weft/agent.json',
        ],
        { lab: lab.name, role: `agent/${node}`, log: `${lab.paths.logs}/agent-${node}.log` },
      );
    }

    before(async () => {
      container.netns = makeSandbox(lab, 'meanwhile');
    });

    test('agents that are started meanwhile change nothing in the kernel, and pods go on talking', async () => {
      const before = await Promise.all(nodes.map((node) => nodeState(lab, node)));
      await killForGood('apiserver', ...nodes.map((node) => `agent/${node}`));
      await podsTalk();
      for (const node of nodes) startAgent(node);
      for (const node of nodes) {
        await eventually<true>(`the agent of ${node} to answer`, 20_000, async () =>
          (await cniCall(lab, node, 'STATUS')).exit === 0 ? true : { not: 'yet' },
        );
      }
      assert.deepEqual(await Promise.all(nodes.map((node) => nodeState(lab, node))), before);
      await podsTalk();
    });

    test('a pod is attached from what the node remembers, and reached from other nodes', async () => {
      const added = await cniCall(lab, 'node-1', 'ADD', container);
      assert.equal(added.exit, 0, JSON.stringify(added.value));
      for (const ip of ipsIn(added)) await lab.must('node-2', 'ping', '-nqc1', '-W2', ip);
      assert.equal((await cniCall(lab, 'node-1', 'CHECK', container, { prevResult: added.value })).exit, 0);
    });

    test('afterwards all is as if nothing had been', async () => {
      await daemonAgain();
      for (const node of nodes) await lab.agentReady(node);
      await podsTalk();
      assert.equal((await cniCall(lab, 'node-1', 'DEL', container)).exit, 0);
      removeSandbox(container.netns);
      await lab.pod('later', { nodeName: 'node-3' });
      await nothingLeaked(lab);
    });
  });

  test('pods that come and go leave no descriptor behind, in no process', async () => {
    const daemons = ['daemon', 'apiserver', 'agent/node-1', 'agent/node-2'];
    // Connections are kept for a while, and how many is a matter of timing: far fewer than there are pods in a round.
    const open = (role: string): { sockets: number; others: number } => {
      const folder = `/proc/${lab.process(role)!.pid}/fd`;
      const targets = readdirSync(folder).map((fd) => {
        try {
          return readlinkSync(`${folder}/${fd}`);
        } catch {
          return 'socket: closed meanwhile';
        }
      });
      const sockets = targets.filter((target) => target.startsWith('socket:')).length;
      return { sockets, others: targets.length - sockets };
    };
    const round = async (): Promise<void> => {
      const names = Array.from({ length: 12 }, (_, i) => `passing-${i}`);
      await Promise.all(names.map((name, i) => lab.pod(name, { nodeName: `node-${1 + (i % 2)}` })));
      await Promise.all(names.map((name) => lab.deletePod(name)));
      await nothingLeaked(lab);
    };
    await round();
    const before = new Map(daemons.map((role) => [role, open(role)]));
    await round();
    await round();
    await eventually<true>('no more descriptors than before', 10_000, async () => {
      const more = daemons
        .map((role) => ({ role, was: before.get(role)!, is: open(role) }))
        .filter(({ was, is }) => is.others > was.others || is.sockets > was.sockets + 8);
      return more.length === 0 ? true : { not: more };
    });
  });
});
