import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { CONFIGMAPS, PODS } from '../../api/client.ts';
import type { Pod } from '../../api/types.ts';
import { findProcesses, netnsOf } from '../processes.ts';
import { eventually, isReadyPod, PodLab } from '../testing/pod-lab.ts';
import { ContainerRun, logFile } from './container.ts';

let lab: PodLab;
before(async () => {
  lab = await PodLab.make(`tp${process.pid}`);
});
after(() => lab.destroy());

const folders = (pod: Pod, container: string) => ({
  run: `${lab.paths.podRun(pod.metadata.uid!)}/${container}`,
  logs: `${lab.paths.podState(pod.metadata.uid!)}/${container}`,
});
const output = (pod: Pod, container: string, number = 0): string =>
  readFileSync(logFile(folders(pod, container), number), 'utf8');
const shell = (name: string, script: string) => ({ name, image: 'exec', command: ['sh', '-c', script] });

describe('pods', { concurrency: 4 }, () => {
  test('containers of a pod share network and hostname, have their own processes, and the pod becomes Ready', async () => {
    await lab.create('pair', {
      containers: [
        {
          name: 'server',
          image: 'agnhost',
          ports: [{ name: 'http', containerPort: 8080 }],
          readinessProbe: { httpGet: { path: '/healthz', port: 'http' }, periodSeconds: 1 },
          livenessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1, initialDelaySeconds: 2 },
        },
        shell(
          'looker',
          'hostname; ip -4 -o addr show eth0; ls /proc | grep -c "^[0-9]"; exec sleep infinity',
        ),
      ],
    });
    const pod = await lab.until('pair', isReadyPod);
    const { status } = pod;
    assert.equal(status?.phase, 'Running');
    assert.match(status?.podIP ?? '', /^10\.99\.0\.\d+$/);
    assert.deepEqual(status?.podIPs, [{ ip: status?.podIP }]);
    assert.deepEqual(
      status?.hostIPs?.map(({ ip }) => ip),
      lab.topology.nodes[0]!.nodeIPs,
    );
    assert.deepEqual(
      status?.conditions?.map(({ type, status: value }) => `${type}=${value}`).sort(),
      ['ContainersReady', 'Initialized', 'PodReadyToStartContainers', 'PodScheduled', 'Ready'].map(
        (type) => `${type}=True`,
      ),
    );
    const [hostname, address, processes] = output(pod, 'looker').split('\n');
    assert.equal(hostname, 'pair');
    assert.match(address ?? '', new RegExp(` ${status?.podIP}/32 `));
    assert.ok(Number(processes) < 8, `sees ${processes} processes`);
    assert.match(
      readFileSync(lab.nodeFile('last-args'), 'utf8'),
      /K8S_POD_NAMESPACE=default;K8S_POD_NAME=\w+;K8S_POD_INFRA_CONTAINER_ID=\w{64};K8S_POD_UID=/,
    );
    const events = await eventually<string[]>('events', 5000, async () => {
      const found = await lab.events('pair');
      return found.length >= 6 ? found : { not: found };
    });
    assert.ok(events.includes('Started: Started container server'), events.join('\n'));
    await lab.client.delete(PODS, { name: 'pair', namespace: 'default' });
    await lab.untilGone('pair');
    assert.ok(!existsSync(lab.paths.podNetns(pod.metadata.uid!)));
    assert.ok(!existsSync(lab.paths.podRun(pod.metadata.uid!)));
    assert.deepEqual(
      findProcesses(lab.name).filter(({ role }) => role.includes(pod.metadata.uid!)),
      [],
    );
  });

  test('init containers run first, one after another; environment from fields and a ConfigMap', async () => {
    await lab.client.create(CONFIGMAPS, {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'conf', namespace: 'default' },
      data: { colour: 'blue' },
    });
    await lab.create('once', {
      restartPolicy: 'Never',
      initContainers: [shell('one', 'date +%s%N'), shell('two', 'date +%s%N')],
      containers: [
        {
          ...shell('main', 'date +%s%N; echo "$IP $COLOUR $NODE $(PORT) $BOTH"; env | grep -c WEFT_ || true'),
          env: [
            { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
            { name: 'COLOUR', valueFrom: { configMapKeyRef: { name: 'conf', key: 'colour' } } },
            { name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
            { name: 'PORT', value: '80' },
            { name: 'BOTH', value: '$(COLOUR)-$(PORT)' },
          ],
        },
      ],
    });
    const pod = await lab.until('once', ({ status }) => status?.phase === 'Succeeded');
    const [time, line, marks] = output(pod, 'main').split('\n');
    assert.equal(line, `${pod.status?.podIP} blue node-1 80 blue-80`);
    assert.equal(marks, '0');
    const times = [output(pod, 'one'), output(pod, 'two'), time!].map(BigInt);
    assert.ok(times[0]! < times[1]! && times[1]! < times[2]!);
    assert.equal(pod.status?.containerStatuses?.[0]?.state?.terminated?.reason, 'Completed');
    // A pod that is over gives its network back, and keeps its address in its status.
    await eventually('its namespace to go', 5000, async () =>
      existsSync(lab.paths.podNetns(pod.metadata.uid!)) ? { not: 'gone' } : true,
    );
  });

  test('a failing container is restarted at once, then with back-off', async () => {
    await lab.create('crash', { containers: [shell('main', 'echo run; exit 3')] });
    const pod = await lab.until(
      'crash',
      ({ status }) => status?.containerStatuses?.[0]?.state?.waiting?.reason === 'CrashLoopBackOff',
    );
    const container = pod.status?.containerStatuses?.[0];
    assert.equal(container?.restartCount, 1);
    assert.equal(container?.lastState?.terminated?.exitCode, 3);
    assert.equal(container?.lastState?.terminated?.reason, 'Error');
    assert.equal(pod.status?.phase, 'Running');
    assert.ok(!isReadyPod(pod));
    assert.equal(output(pod, 'main', 1), 'run\n');
  });

  test('an unknown image is ErrImagePull with the names of those there are', async () => {
    await lab.create('image', { containers: [{ name: 'main', image: 'docker.io/library/nginx:1.27' }] });
    const pod = await lab.until(
      'image',
      ({ status }) => status?.containerStatuses?.[0]?.state?.waiting?.reason === 'ErrImagePull',
    );
    assert.match(pod.status?.containerStatuses?.[0]?.state?.waiting?.message ?? '', /agnhost.*pause.*exec/);
    assert.equal(pod.status?.phase, 'Pending');
  });

  test('a program that is not there is a StartError', async () => {
    await lab.create('nothere', {
      restartPolicy: 'Never',
      containers: [{ name: 'main', image: 'exec', command: ['/no/such'] }],
    });
    const pod = await lab.until('nothere', ({ status }) => status?.phase === 'Failed');
    const end = pod.status?.containerStatuses?.[0]?.state?.terminated;
    assert.equal(end?.exitCode, 128);
    assert.equal(end?.reason, 'StartError');
    assert.match(end?.message ?? '', /cannot run \/no\/such: No such file/);
  });

  test('a host-network pod has the addresses and the name of its node', async () => {
    await lab.create('host', {
      hostNetwork: true,
      containers: [shell('main', 'hostname; ip -4 -o addr show eth0; exec sleep infinity')],
    });
    const pod = await lab.until('host', isReadyPod);
    assert.deepEqual(
      pod.status?.podIPs?.map(({ ip }) => ip),
      lab.topology.nodes[0]!.nodeIPs,
    );
    await eventually('output', 3000, async () =>
      output(pod, 'main').split('\n').length > 2 ? true : { not: '' },
    );
    assert.match(output(pod, 'main'), /^node-1\n.* 172\.29\.1\.11\/24 /);
  });

  test('a program that ignores SIGTERM is killed when its grace is over', async () => {
    await lab.create('stubborn', {
      terminationGracePeriodSeconds: 1,
      containers: [shell('main', 'trap "" TERM; echo ready; while :; do sleep 0.1; done')],
    });
    const pod = await lab.until('stubborn', isReadyPod);
    await eventually('the trap', 3000, async () => (output(pod, 'main') === 'ready\n' ? true : { not: '' }));
    await lab.client.delete(PODS, { name: 'stubborn', namespace: 'default' });
    await lab.untilGone('stubborn');
    assert.deepEqual(
      findProcesses(lab.name).filter(({ role }) => role.includes(pod.metadata.uid!)),
      [],
    );
  });

  test('exec probes decide readiness, and a failing liveness probe restarts the container', async () => {
    await lab.create('probed', {
      containers: [
        {
          ...shell('main', 'mkdir -p /tmp/$HOSTNAME; touch /tmp/$HOSTNAME/ok; exec sleep infinity'),
          readinessProbe: {
            exec: { command: ['sh', '-c', 'test "$(hostname)" = probed'] },
            periodSeconds: 1,
          },
          livenessProbe: { exec: { command: ['false'] }, periodSeconds: 1, failureThreshold: 2 },
        },
      ],
    });
    const pod = await lab.until(
      'probed',
      ({ status }) => (status?.containerStatuses?.[0]?.restartCount ?? 0) >= 1,
    );
    assert.equal(pod.status?.containerStatuses?.[0]?.lastState?.terminated?.exitCode, 143);
    const events = await lab.events('probed');
    assert.ok(
      events.some((event) => event.startsWith('Unhealthy: Liveness probe failed')),
      events.join('\n'),
    );
    rmSync('/tmp/probed', { recursive: true, force: true });
  });
});

test('a plugin that says "try again" is asked again, and its words are in an Event', async () => {
  writeFileSync(lab.nodeFile('refuse'), '');
  await lab.create('refused', { containers: [{ name: 'main', image: 'pause' }] });
  const events = await eventually<string[]>('the Event', 10_000, async () => {
    const found = await lab.events('refused');
    return found.some((event) => event.startsWith('FailedCreatePodSandBox')) ? found : { not: found };
  });
  assert.match(events.join('\n'), /plugin type="test-plugin" failed \(add\): not now: the test says so/);
  assert.equal((await lab.pod('refused'))?.status?.phase, 'Pending');
  rmSync(lab.nodeFile('refuse'));
  await lab.until('refused', isReadyPod);
});

test('a new runner finds containers again, learns of exits it missed, and removes pods that are gone', async () => {
  await lab.create('stays', { containers: [shell('main', 'exec sleep infinity')] });
  await lab.create('ends', {
    restartPolicy: 'Never',
    containers: [shell('main', 'while [ ! -e /var/lib/weft/go ]; do sleep 0.05; done; exit 7')],
  });
  await lab.create('deleted', { containers: [{ name: 'main', image: 'pause' }] });
  const stays = await lab.until('stays', isReadyPod);
  const deleted = await lab.until('deleted', isReadyPod);
  const ends = await lab.until('ends', isReadyPod);
  const pid = ContainerRun.last(folders(stays, 'main'))?.initPid;
  assert.ok(pid);
  await lab.stopRunner();
  writeFileSync(lab.nodeFile('go'), '');
  await eventually('the exit file', 5000, async () =>
    existsSync(`${folders(ends, 'main').run}/0/exit`) ? true : { not: '' },
  );
  await lab.client.delete(PODS, { name: 'deleted', namespace: 'default' }, { gracePeriodSeconds: 0 });
  await lab.startRunner();
  const over = await lab.until('ends', ({ status }) => status?.phase === 'Failed');
  assert.equal(over.status?.containerStatuses?.[0]?.state?.terminated?.exitCode, 7);
  await eventually('the deleted pod to be removed', 5000, async () =>
    existsSync(lab.paths.podState(deleted.metadata.uid!)) ? { not: 'gone' } : true,
  );
  assert.ok(!netnsOf(lab.name).some((name) => lab.paths.podNetns(deleted.metadata.uid!).endsWith(name)));
  assert.equal(ContainerRun.last(folders(stays, 'main'))?.initPid, pid);
  assert.equal((await lab.pod('stays'))?.status?.containerStatuses?.[0]?.restartCount, 0);
});
