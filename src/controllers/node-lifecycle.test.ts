import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { LEASES, NODES } from '../api/client.ts';
import type { Condition, Node, Taint } from '../api/types.ts';
import { ManualClock } from '../base/clock.ts';
import { WeftError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { NODE_LEASE_NAMESPACE, NodeLifecycleController } from './node-lifecycle.ts';
import { toLeaseRow, toNodeRow } from './rows.ts';
import { MemoryApi } from './testing/memory-api.ts';

const ready = (status: Condition['status']): Condition => ({
  type: 'Ready',
  status,
  reason: 'AgentReady',
  message: 'fine',
});

function setUp() {
  const api = new MemoryApi();
  const clock = new ManualClock(1_000_000);
  const said: string[] = [];
  const beating = new Set<string>();
  const start = (): NodeLifecycleController =>
    new NodeLifecycleController({
      nodes: api.open({ resource: NODES, map: toNodeRow }),
      leases: api.open({ resource: LEASES, namespace: NODE_LEASE_NAMESPACE, map: toLeaseRow }),
      client: api,
      events: { event: (about, type, reason) => said.push(`${type} ${reason} ${about.name}`) },
      clock,
      logger: silentLogger,
    });
  const put = (name: string, conditions?: Condition[], taints: Taint[] = []): void => {
    const node: Node = { apiVersion: 'v1', kind: 'Node', metadata: { name }, spec: { taints } };
    api.put(NODES, conditions ? { ...node, status: { conditions } } : node);
  };
  const renew = (name: string): void => {
    api.put(LEASES, {
      apiVersion: 'coordination.k8s.io/v1',
      kind: 'Lease',
      metadata: { name, namespace: NODE_LEASE_NAMESPACE },
      spec: {
        holderIdentity: name,
        leaseDurationSeconds: 40,
        renewTime: new Date(clock.now()).toISOString(),
      },
    });
  };
  /** Time passes; the Nodes in `beating` renew their Leases every 10 s. */
  const pass = async (seconds: number): Promise<void> => {
    for (let s = 0; s < seconds; s++) {
      if (s % 10 === 0) for (const name of beating) renew(name);
      await clock.advance(1000);
      for (let i = 0; i < 4; i++) await turn();
    }
  };
  const readyOf = (name: string) =>
    api.peek(NODES, name)?.status?.conditions?.find((c) => c.type === 'Ready');
  const taintsOf = (name: string): string[] =>
    (api.peek(NODES, name)?.spec?.taints ?? []).map((t) => `${t.key}:${t.effect}`);
  return { api, clock, said, beating, start, put, renew, pass, readyOf, taintsOf };
}

const UNREACHABLE = 'node.kubernetes.io/unreachable:NoSchedule';
const NOT_READY = 'node.kubernetes.io/not-ready:NoSchedule';

test('a silent Node becomes Unknown and tainted after the duration of its Lease, and comes back when it renews', async () => {
  const t = setUp();
  const other: Condition = { type: 'MemoryPressure', status: 'False' };
  const foreign: Taint = { key: 'gpu', effect: 'NoSchedule' };
  t.put('a', [ready('True'), other], [foreign]);
  t.put('b', [ready('True')]);
  t.beating.add('a').add('b');
  const controller = t.start();
  await t.pass(120);
  assert.deepEqual(t.api.log, []);
  t.beating.delete('a');
  await t.pass(25); // the last renewal was 10 s before
  assert.equal(t.readyOf('a')?.status, 'True');
  await t.pass(20);
  assert.equal(t.readyOf('a')?.status, 'Unknown');
  assert.equal(t.readyOf('a')?.reason, 'NodeStatusUnknown');
  assert.deepEqual(t.taintsOf('a'), ['gpu:NoSchedule', UNREACHABLE]);
  assert.deepEqual(t.api.peek(NODES, 'a')?.status?.conditions?.[0], other);
  assert.equal(t.readyOf('b')?.status, 'True');
  await t.pass(60);
  t.beating.add('a');
  await t.pass(5);
  assert.equal(t.readyOf('a')?.status, 'True');
  assert.equal(t.readyOf('a')?.reason, 'AgentReady');
  assert.deepEqual(t.taintsOf('a'), ['gpu:NoSchedule']);
  assert.deepEqual(t.said, ['Warning NodeNotReady a', 'Normal NodeReady a']);
  await controller.close();
});

test('taints follow what the agent says of itself', async () => {
  const t = setUp();
  t.put('a', [ready('False')]);
  t.put('b');
  t.put('c', [ready('True')], [{ key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' }]);
  for (const name of ['a', 'b', 'c']) t.beating.add(name);
  const controller = t.start();
  await t.pass(5);
  assert.deepEqual(t.taintsOf('a'), [NOT_READY]);
  assert.deepEqual(t.taintsOf('b'), [NOT_READY]);
  assert.deepEqual(t.taintsOf('c'), []);
  t.put('a', [ready('True')], [{ key: 'node.kubernetes.io/not-ready', effect: 'NoSchedule' }]);
  await t.pass(3);
  assert.deepEqual(t.taintsOf('a'), []);
  await controller.close();
});

test('a Node whose agent never spoke becomes Unknown after a minute', async () => {
  const t = setUp();
  t.put('a');
  const controller = t.start();
  await t.pass(58);
  assert.equal(t.readyOf('a'), undefined);
  await t.pass(8);
  assert.equal(t.readyOf('a')?.reason, 'NodeStatusNeverUpdated');
  assert.deepEqual(t.taintsOf('a'), [UNREACHABLE]);
  await controller.close();
});

test('an outage of the API, and a standstill of this process, are no silence of the Nodes', async () => {
  const t = setUp();
  t.put('a', [ready('True')]);
  t.beating.add('a');
  const controller = t.start();
  await t.pass(20);
  t.beating.delete('a'); // its renewals do not arrive
  t.api.connected = false;
  await t.pass(300);
  t.api.connected = true;
  t.beating.add('a');
  await t.pass(15);
  assert.deepEqual(t.api.log, []);
  // The clock jumps in one tick: the machine was suspended.
  const before = t.clock.now();
  (t.clock as unknown as { now: () => number }).now = () => before + 600_000;
  await t.clock.advance(1000);
  for (let i = 0; i < 10; i++) await turn();
  assert.deepEqual(t.api.log, []);
  await controller.close();
});

test('after our restart a Node stays Unknown until it really renews', async () => {
  const t = setUp();
  t.put('a', [ready('True')]);
  t.renew('a');
  const first = t.start();
  await t.pass(60);
  assert.equal(t.readyOf('a')?.status, 'Unknown');
  await first.close();
  const second = t.start();
  await t.pass(100);
  assert.equal(t.readyOf('a')?.status, 'Unknown');
  t.renew('a');
  await t.pass(3);
  assert.equal(t.readyOf('a')?.status, 'True');
  assert.equal(t.readyOf('a')?.reason, 'LeaseRenewed');
  await second.close();
});

test('refused and conflicting writes are tried again', async () => {
  const t = setUp();
  t.put('a', [ready('True')]);
  const controller = t.start();
  let faults = 5;
  t.api.fault = () => {
    if (faults-- <= 0) return undefined;
    t.api.put(NODES, {
      ...t.api.peek(NODES, 'a')!,
      metadata: { ...t.api.peek(NODES, 'a')!.metadata, labels: { n: String(faults) } },
    });
    return faults % 2 ? { error: new WeftError('WEFT_API_UNREACHABLE', 'no') } : undefined;
  };
  await t.pass(80);
  assert.equal(t.readyOf('a')?.status, 'Unknown');
  assert.deepEqual(t.taintsOf('a'), [UNREACHABLE]);
  assert.equal(t.api.peek(NODES, 'a')?.metadata.labels?.n, '0', 'what others wrote meanwhile is still there');
  await controller.close();
});
