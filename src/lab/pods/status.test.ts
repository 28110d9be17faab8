import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Pod } from '../../api/types.ts';
import { type ContainerView, podPhase, podStatus, restartDelay, shouldRestart } from './status.ts';

const running = (name: string, more: Partial<ContainerView> = {}): ContainerView => ({
  spec: { name, image: 'agnhost' },
  restartCount: 0,
  state: { kind: 'running', startedAt: 1_000 },
  imageId: 'weft.dev/agnhost',
  started: true,
  ready: true,
  ...more,
});
const waiting = (
  name: string,
  reason = 'ContainerCreating',
  more: Partial<ContainerView> = {},
): ContainerView => running(name, { state: { kind: 'waiting', reason }, ...more });
const ended = (name: string, exitCode: number): ContainerView =>
  running(name, {
    state: {
      kind: 'terminated',
      startedAt: 1_000,
      finishedAt: 2_000,
      exitCode,
      reason: exitCode === 0 ? 'Completed' : 'Error',
    },
  });
const end = { startedAt: 1, finishedAt: 2, exitCode: 1, reason: 'Error' as const };
const pod = (restartPolicy: 'Always' | 'OnFailure' | 'Never' = 'Always', status?: Pod['status']): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p' },
  spec: { containers: [], restartPolicy },
  ...(status && { status }),
});
const view = (containers: ContainerView[], init: ContainerView[] = []) => ({
  init,
  containers,
  sandboxReady: true,
  ips: ['10.0.0.1', 'fd00::1'],
  hostIPs: ['172.29.1.11'],
});

describe('phase, as kubelet has it', () => {
  const cases: Array<[string, 'Always' | 'OnFailure' | 'Never', ContainerView[], ContainerView[], string]> = [
    ['creating', 'Always', [waiting('a')], [], 'Pending'],
    ['one of two creating', 'Always', [running('a'), waiting('b')], [], 'Pending'],
    ['running', 'Always', [running('a'), running('b')], [], 'Running'],
    ['one ended', 'Never', [running('a'), ended('b', 1)], [], 'Running'],
    ['in back-off', 'Always', [waiting('a', 'CrashLoopBackOff', { last: end })], [], 'Running'],
    ['all succeeded, Never', 'Never', [ended('a', 0), ended('b', 0)], [], 'Succeeded'],
    ['all succeeded, OnFailure', 'OnFailure', [ended('a', 0)], [], 'Succeeded'],
    ['all succeeded, Always', 'Always', [ended('a', 0)], [], 'Running'],
    ['failed, Never', 'Never', [ended('a', 0), ended('b', 1)], [], 'Failed'],
    ['failed, OnFailure', 'OnFailure', [ended('a', 1)], [], 'Running'],
    ['initializing', 'Always', [waiting('a', 'PodInitializing')], [running('i')], 'Pending'],
    ['init failed, Never', 'Never', [waiting('a', 'PodInitializing')], [ended('i', 1)], 'Failed'],
    ['init failed, Always', 'Always', [waiting('a', 'PodInitializing')], [ended('i', 1)], 'Pending'],
    ['init done', 'Always', [running('a')], [ended('i', 0)], 'Running'],
  ];
  for (const [name, policy, containers, init, expected] of cases) {
    test(name, () => assert.equal(podPhase(pod(policy), view(containers, init)), expected));
  }
});

const conditions = (status: NonNullable<Pod['status']>): Record<string, string> =>
  Object.fromEntries(
    (status.conditions ?? []).map(({ type, status: value, reason }) => [
      type,
      reason ? `${value} ${reason}` : value,
    ]),
  );

test('a ready pod', () => {
  const status = podStatus(pod(), view([running('a')]), 5_000);
  assert.deepEqual(conditions(status), {
    PodReadyToStartContainers: 'True',
    Initialized: 'True',
    Ready: 'True',
    ContainersReady: 'True',
    PodScheduled: 'True',
  });
  assert.deepEqual(status.podIPs, [{ ip: '10.0.0.1' }, { ip: 'fd00::1' }]);
  assert.equal(status.podIP, '10.0.0.1');
  assert.equal(status.startTime, '1970-01-01T00:00:05Z');
  assert.deepEqual(status.containerStatuses?.[0]?.state, { running: { startedAt: '1970-01-01T00:00:01Z' } });
});

test('not ready: readiness probe, startup probe, init containers, over', () => {
  const ready = (containers: ContainerView[], init: ContainerView[] = []): string | undefined =>
    conditions(podStatus(pod('Never'), view(containers, init), 0)).Ready;
  assert.equal(ready([running('a', { ready: false })]), 'False ContainersNotReady');
  assert.equal(ready([running('a', { started: false })]), 'False ContainersNotReady');
  assert.equal(ready([waiting('a')], [running('i')]), 'False ContainersNotReady');
  assert.equal(ready([ended('a', 0)]), 'False PodCompleted');
  assert.equal(ready([ended('a', 1)]), 'False PodFailed');
});

test('times of conditions change only with their status; conditions of others stay', () => {
  const first = podStatus(pod(), view([running('a', { ready: false })]), 1_000);
  first.conditions?.push({
    type: 'example.org/gate',
    status: 'True',
    lastTransitionTime: '2000-01-01T00:00:00Z',
  });
  const second = podStatus(pod('Always', first), view([running('a')]), 9_000);
  const at = (type: string): string | undefined =>
    second.conditions?.find((each) => each.type === type)?.lastTransitionTime;
  assert.equal(at('Ready'), '1970-01-01T00:00:09Z');
  assert.equal(at('Initialized'), '1970-01-01T00:00:01Z');
  assert.equal(at('example.org/gate'), '2000-01-01T00:00:00Z');
  assert.equal(second.startTime, first.startTime);
  assert.deepEqual(podStatus(pod('Always', second), view([running('a')]), 20_000), second);
});

test('a pod that is over keeps its addresses when its sandbox is gone', () => {
  const before = podStatus(pod('Never'), view([running('a')]), 0);
  const after = podStatus(
    pod('Never', before),
    { ...view([ended('a', 0)]), ips: [], sandboxReady: false },
    0,
  );
  assert.deepEqual(after.podIPs, before.podIPs);
});

test('restarts: at once, then 10 s doubled up to 5 min', () => {
  assert.deepEqual([0, 1, 2, 3, 6, 50].map(restartDelay), [0, 10_000, 20_000, 40_000, 300_000, 300_000]);
  assert.ok(shouldRestart(undefined, 0) && shouldRestart('Always', 0) && shouldRestart('OnFailure', 1));
  assert.ok(!shouldRestart('OnFailure', 0) && !shouldRestart('Never', 1));
});
