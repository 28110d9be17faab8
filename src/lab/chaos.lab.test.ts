/** Pods come and go while what looks after them is killed at random moments: in the end all is as the API says, and nothing leaks. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { after, test } from 'node:test';
import { PODS } from '../api/client.ts';
import { isAlreadyExists, isNotFound } from '../api/errors.ts';
import type { Pod } from '../api/types.ts';
import { isWeftError } from '../base/errors.ts';
import type { HttpApiClient } from '../informers/http-client.ts';
import {
  createLab,
  destroyLab,
  labClient,
  labReachability,
  labReady,
  nodeExec,
  renderReachability,
  startDaemon,
} from './lab.ts';
import { labPaths, shortUid } from './paths.ts';
import { findProcesses, netnsOf, signal } from './processes.ts';
import { eventually, isReadyPod } from './testing/pod-lab.ts';

const lab = `tc${process.pid}`;
const ROUNDS = 10;
const NAMES = Array.from({ length: 8 }, (_, i) => `pod-${i}`);
const VICTIMS = ['daemon', 'apiserver', 'agent/node-1', 'agent/node-2'];

let client: HttpApiClient;
after(async () => {
  await client?.close();
  const { gone, left } = await destroyLab(lab);
  assert.ok(gone, JSON.stringify(left));
});

const any = <T>(of: readonly T[]): T => of[Math.floor(Math.random() * of.length)]!;

async function makeOrDelete(name: string): Promise<void> {
  const ref = { name, namespace: 'default' };
  try {
    if (Math.random() < 0.4)
      await client.delete(PODS, ref, Math.random() < 0.3 ? { gracePeriodSeconds: 0 } : {});
    else
      await client.create(PODS, {
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: ref,
        spec: {
          terminationGracePeriodSeconds: 1,
          containers: [
            { name: 'main', image: 'pause' },
            { name: 'other', image: 'exec', command: ['sleep', 'infinity'] },
          ],
        },
      });
  } catch (error) {
    // The API server may just be dead; a pod may be there already, or not.
    assert.ok(
      isAlreadyExists(error) || isNotFound(error) || isWeftError(error, 'WEFT_API_UNREACHABLE'),
      String(error),
    );
  }
}

test('pods, and kill -9 of whatever looks after them', async () => {
  await createLab({ name: lab, nodes: 2, subnets: 2 });
  client = await labClient(lab);
  const killed: string[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const work = NAMES.map((name) => makeOrDelete(name));
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 400));
    const role = any(VICTIMS);
    const victim = findProcesses(lab).find((each) => each.role === role);
    if (victim && signal(victim, 'SIGKILL')) killed.push(role);
    await Promise.all(work);
    if (role === 'daemon') await startDaemon(lab);
  }
  await startDaemon(lab);
  await labReady(lab);

  // What the API has is there and works…
  const pods = await eventually<Pod[]>(`all pods to be ready after kills of ${killed}`, 40_000, async () => {
    const items = await client.list(PODS, { namespace: 'default' }).then(
      (list) => list.items,
      (error) => String(error), // the API server may just come back
    );
    if (typeof items === 'string') return { not: items };
    const odd = items.filter((pod) => pod.metadata.deletionTimestamp || !isReadyPod(pod));
    return odd.length === 0 ? items : { not: odd.map(({ metadata, status }) => ({ metadata, status })) };
  });
  const addresses = pods.flatMap(({ status }) => status?.podIPs?.map(({ ip }) => ip) ?? []);
  assert.equal(new Set(addresses).size, pods.length * 2, `an address twice among ${addresses}`);
  const reached = await labReachability(lab);
  assert.ok(reached.ok, renderReachability(reached));

  // …and what it has not is not.
  const all = (await client.list(PODS)).items;
  const paths = labPaths(lab);
  const expected = [
    ...['net', 'outside', 'node-1', 'node-2'],
    ...all.filter(({ spec }) => !spec.hostNetwork).map(({ metadata }) => `pod-${shortUid(metadata.uid!)}`),
  ].map((name) => `weft-${lab}-${name}`);
  await eventually<true>('network namespaces of deleted pods to go', 10_000, async () => {
    const found = netnsOf(lab).sort();
    return JSON.stringify(found) === JSON.stringify(expected.sort()) ? true : { not: { found, expected } };
  });
  const uids = all.map(({ metadata }) => metadata.uid!).sort();
  assert.deepEqual(readdirSync(`${paths.state}/pods`).sort(), uids);
  const containers = findProcesses(lab).filter(({ role }) => role.startsWith('pod/'));
  assert.deepEqual([...new Set(containers.map(({ role }) => role.split('/')[1]))].sort(), uids);
  // Two bear the mark of each: the outer process and PID 1.
  assert.equal(containers.length, 2 * (pods.length * 2 + (all.length - pods.length)));
  assert.equal(new Set(containers.map(({ role }) => role)).size, containers.length / 2);
  for (const node of ['node-1', 'node-2']) {
    const wanted = all.filter(({ spec }) => spec.nodeName === node && !spec.hostNetwork).length;
    await eventually<true>(`links of deleted pods to go from ${node}`, 10_000, async () => {
      const { stdout } = await nodeExec(lab, node, ['ip', '-o', 'link', 'show', 'type', 'veth']);
      const links = stdout.split('\n').filter((line) => / weft[0-9a-f]{11}@/.test(line));
      return links.length === wanted ? true : { not: { wanted, links } };
    });
    const { stdout } = await nodeExec(lab, node, [
      'ip',
      '-o',
      'route',
      'show',
      'proto',
      '87',
      'scope',
      'link',
    ]);
    assert.equal(stdout.split('\n').filter((line) => / weft[0-9a-f]{11}/.test(line)).length, wanted, stdout);
  }
});
