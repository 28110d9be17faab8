/** Whole labs, made and broken. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { after, describe, test } from 'node:test';
import { PODS } from '../api/client.ts';
import type { Pod } from '../api/types.ts';
import { isWeftError } from '../base/errors.ts';
import { openKernel } from '../kernel/kernel.ts';
import { countTraces } from './destroy.ts';
import {
  addNode,
  createLab,
  destroyLab,
  execInPod,
  labClient,
  labReachability,
  labReady,
  labStatus,
  labTraces,
  listLabs,
  nodeExec,
  outsideExec,
  podLogs,
  removeNode,
  renderReachability,
  replaceNode,
  startDaemon,
} from './lab.ts';
import { mountPoints, unbindBelow } from './namespaces.ts';
import { labPaths } from './paths.ts';
import { findProcesses, killAll, netnsOf, signal } from './processes.ts';
import { eventually, isReadyPod } from './testing/pod-lab.ts';

const name = (suffix: string): string => `t${suffix}${process.pid}`;
const roles = (lab: string): string[] =>
  findProcesses(lab)
    .map(({ role }) => role)
    .filter((role) => role !== '' && !role.startsWith('pod/'))
    .sort();
const pidOf = (lab: string, role: string): number | undefined =>
  findProcesses(lab).find((each) => each.role === role)?.pid;

async function kill(lab: string, role: string): Promise<void> {
  const found = findProcesses(lab).find((each) => each.role === role);
  assert.ok(found, `${role} does not run`);
  signal(found, 'SIGKILL');
}

async function reachable(lab: string): Promise<void> {
  const found = await labReachability(lab);
  assert.ok(found.ok, renderReachability(found));
}

describe('a lab', { concurrency: false }, () => {
  const lab = name('l');
  after(async () => {
    const { gone, left } = await destroyLab(lab);
    assert.ok(gone, JSON.stringify(left));
    assert.equal(countTraces(labTraces(lab)), 0);
  });
  const makePod = async (podName: string, more: Partial<Pod['spec']> = {}): Promise<void> => {
    const client = await labClient(lab);
    await client.create(PODS, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: podName, namespace: 'default' },
      spec: { terminationGracePeriodSeconds: 1, containers: [{ name: 'main', image: 'agnhost' }], ...more },
    });
    await eventually<true>(podName, 20_000, async () => {
      const pod = await client.get(PODS, { name: podName, namespace: 'default' });
      return isReadyPod(pod) ? true : { not: pod.status ?? {} };
    });
    await client.close();
  };

  test('comes up, is reachable in every direction, and is the same when made again', async () => {
    const lines: string[] = [];
    const made = await createLab({ name: lab, nodes: 2, subnets: 2, probe: true }, (text) =>
      lines.push(text),
    );
    assert.equal(made.created, true);
    assert.ok(
      lines.some((line) => line.startsWith('nodes ready: node-1, node-2')),
      lines.join('\n'),
    );
    await reachable(lab);
    assert.equal((await createLab({ name: lab, nodes: 2, subnets: 2 })).created, false);
    await assert.rejects(createLab({ name: lab, nodes: 3 }), (error) =>
      isWeftError(error, 'WEFT_LAB_DIFFERS'),
    );
    assert.ok(listLabs().includes(lab));
    assert.deepEqual(roles(lab), ['agent/node-1', 'agent/node-2', 'apiserver', 'daemon', 'outside']);
  });

  test('programs run in pods, on nodes and outside; logs are read', async () => {
    await makePod('one');
    await makePod('two');
    const { pods = [] } = await labStatus(lab);
    const mine = pods.filter(({ metadata }) => metadata.namespace === 'default');
    assert.deepEqual(mine.map(({ spec }) => spec.nodeName).sort(), ['node-1', 'node-2']);
    const address = await execInPod(lab, 'one', ['ip', '-4', '-o', 'addr', 'show', 'eth0']);
    const ip = mine.find(({ metadata }) => metadata.name === 'one')?.status?.podIP;
    assert.match(address.stdout, new RegExp(` ${ip}/32 `));
    assert.equal((await execInPod(lab, 'one', ['hostname'])).stdout, 'one\n');
    assert.equal((await execInPod(lab, 'one', ['sh', '-c', 'exit 9'])).code, 9);
    assert.equal((await nodeExec(lab, 'node-2', ['hostname'])).stdout, 'node-2\n');
    assert.match((await outsideExec(lab, ['ip', '-4', '-o', 'addr'])).stdout, /198\.51\.100\.2/);
    const log = await eventually<string>('its log', 5000, async () => {
      let text = '';
      for await (const piece of podLogs(lab, 'one')) text += piece;
      return text || { not: text };
    });
    assert.match(log, /^netexec on one: http 8080/);
    await assert.rejects(execInPod(lab, 'nobody', ['true']), (error) =>
      isWeftError(error, 'WEFT_POD_NOT_RUNNING'),
    );
    await assert.rejects(execInPod(lab, 'one', ['true'], { container: 'x' }), (error) =>
      isWeftError(error, 'WEFT_BAD_CONFIG'),
    );
  });

  test('kill -9 of the daemon leaves all else running; the next one takes it over', async () => {
    const before = roles(lab).map((role) => [role, pidOf(lab, role)]);
    await kill(lab, 'daemon');
    await eventually<true>('its end', 5000, async () =>
      pidOf(lab, 'daemon') === undefined ? true : { not: '' },
    );
    const { pods = [] } = await labStatus(lab);
    const two = pods.find(({ metadata }) => metadata.name === 'two')?.status?.podIP;
    const program = `const r = await fetch('http://${two}:8080/hostname'); console.log(await r.text())`;
    const answer = await execInPod(lab, 'one', [process.execPath, '--input-type=module', '-e', program]);
    assert.equal(answer.stdout, 'two\n', answer.stderr);
    await startDaemon(lab);
    await labReady(lab);
    for (const [role, pid] of before)
      if (role !== 'daemon') assert.equal(pidOf(lab, role as string), pid, `${role} was restarted`);
    const { daemon, pods: now = [] } = await labStatus(lab);
    assert.ok(daemon?.processes.every(({ restarts }) => restarts === 0));
    assert.ok(
      now.every((pod) => pod.status?.containerStatuses?.every(({ restartCount }) => restartCount === 0)),
    );
    await reachable(lab);
  });

  test('kill -9 of API server and agent: they come back, and the network is as it was', async () => {
    for (const role of ['apiserver', 'agent/node-1']) await kill(lab, role);
    await eventually<true>('both', 20_000, async () =>
      pidOf(lab, 'apiserver') && pidOf(lab, 'agent/node-1') ? true : { not: roles(lab) },
    );
    await makePod('after', { nodeSelector: { 'kubernetes.io/hostname': 'node-1' } });
    await reachable(lab);
  });

  test('nodes are replaced, added and removed', async () => {
    await replaceNode(lab, 'node-2');
    await labReady(lab);
    const { nodes = [], pods = [] } = await labStatus(lab);
    assert.deepEqual(nodes.map(({ metadata }) => metadata.name).sort(), ['node-1', 'node-2']);
    assert.ok(
      !pods.some(({ spec, metadata }) => spec.nodeName === 'node-2' && metadata.namespace === 'default'),
    );
    await addNode(lab, 'node-3');
    await labReady(lab);
    await reachable(lab);
    await removeNode(lab, 'node-3');
    assert.ok(!netnsOf(lab).includes(`weft-${lab}-node-3`));
    assert.ok(!existsSync(labPaths(lab).node('node-3').state));
    await assert.rejects(removeNode(lab, 'node-3'), (error) => isWeftError(error, 'WEFT_BAD_CONFIG'));
    await reachable(lab);
  });
});

test('two labs with the same addresses do not meet, and one survives a reboot', async () => {
  const [a, b] = [name('a'), name('b')];
  try {
    await Promise.all([a, b].map((lab) => createLab({ name: lab, nodes: 1, probe: true })));
    await Promise.all([a, b].map(reachable));
    assert.notEqual((await labStatus(a)).record.hostPort, (await labStatus(b)).record.hostPort);
    await destroyLab(b);
    await reachable(a);
    const { pods: before = [], daemon } = await labStatus(a);

    // What a reboot leaves: the disk. The daemon goes first: on a machine that stops, nobody sees containers end and starts
    // them once more.
    const paths = labPaths(a);
    process.kill(daemon!.pid, 'SIGKILL');
    await eventually('the daemon to be gone', 5_000, async () =>
      (await labStatus(a)).daemon === undefined ? true : { not: 'yet' },
    );
    assert.deepEqual(await killAll(a, 5000), []);
    await unbindBelow(paths.run);
    const kernel = await openKernel();
    for (const each of netnsOf(a)) await kernel.netnsDelete(`/run/netns/${each}`);
    await kernel[Symbol.asyncDispose]();
    rmSync(paths.run, { recursive: true });

    assert.equal((await createLab({ name: a, nodes: 1 })).created, false);
    await reachable(a);
    const { pods: now = [] } = await labStatus(a);
    assert.deepEqual(
      now.map(({ metadata }) => metadata.uid).sort(),
      before.map(({ metadata }) => metadata.uid).sort(),
    );
    assert.ok(now.every(({ status }) => status?.containerStatuses?.[0]?.restartCount === 1));
  } finally {
    for (const lab of [a, b]) assert.ok((await destroyLab(lab)).gone);
  }
});

test('labs killed while they are made are removed without a trace', async () => {
  for (let round = 0; round < 5; round++) {
    const lab = name(`k${round}`);
    const making = createLab({ name: lab, nodes: 2, probe: true }).catch(() => {});
    const wait = Math.random() * [50, 300, 700, 1500, 3000][round]!;
    await new Promise((resolve) => setTimeout(resolve, wait));
    // The daemon alone, or everything that is just there.
    for (const found of findProcesses(lab))
      if (round % 2 === 0 || found.role === 'daemon') signal(found, 'SIGKILL');
    const { gone, left } = await destroyLab(lab);
    assert.ok(gone, `after ${Math.round(wait)} ms: ${JSON.stringify(left)}`);
    await making;
    // Whoever was making it may have gone on for a moment.
    await destroyLab(lab);
    assert.equal(countTraces(labTraces(lab)), 0);
    assert.ok(!mountPoints().some(({ path }) => path.includes(`/${lab}/`)));
    assert.ok(!readdirSync('/run/netns').some((each) => each.startsWith(`weft-${lab}-`)));
  }
});

test('what is not there', async () => {
  const lab = name('n');
  assert.equal((await destroyLab(lab)).gone, true);
  await assert.rejects(labStatus(lab), (error) => isWeftError(error, 'WEFT_LAB_NOT_FOUND'));
  await assert.rejects(startDaemon(lab), (error) => isWeftError(error, 'WEFT_LAB_NOT_FOUND'));
  await assert.rejects(destroyLab('../x'), (error) => isWeftError(error, 'WEFT_BAD_CONFIG'));
  assert.equal(countTraces(labTraces(lab)), 0);
});
