import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { NODES, PODS } from '../api/client.ts';
import { ManualClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { PodGcController } from './pod-gc.ts';
import { podRows, toNodeRow } from './rows.ts';
import { MemoryApi } from './testing/memory-api.ts';

function setUp() {
  const api = new MemoryApi();
  const clock = new ManualClock(1_000_000);
  const controller = new PodGcController({
    nodes: api.open({ resource: NODES, map: toNodeRow }),
    pods: api.open({ resource: PODS, map: podRows() }),
    client: api,
    clock,
    logger: silentLogger,
  });
  const node = (name: string): void =>
    void api.put(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name } });
  const pod = (name: string, nodeName?: string, ending = false): void =>
    void api.put(PODS, {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace: 'default', ...(ending && { deletionTimestamp: '2026-01-01T00:00:00Z' }) },
      spec: { containers: [], ...(nodeName && { nodeName }) },
    });
  const pass = async (seconds: number): Promise<void> => {
    for (let s = 0; s < seconds; s += 5) {
      await clock.advance(5000);
      for (let i = 0; i < 20; i++) await turn();
    }
  };
  const names = (): string[] =>
    api
      .all(PODS)
      .map((p) => p.metadata.name)
      .sort();
  return { api, clock, controller, node, pod, pass, names };
}

test('pods of a Node that is gone are deleted after a while; others stay', async () => {
  const t = setUp();
  t.node('here');
  t.node('gone');
  t.pod('on-here', 'here');
  t.pod('on-here-ending', 'here', true);
  t.pod('on-gone', 'gone');
  t.pod('on-gone-ending', 'gone', true);
  t.pod('unbound');
  t.pod('unbound-ending', undefined, true);
  await t.pass(60);
  assert.deepEqual(t.names(), ['on-gone', 'on-gone-ending', 'on-here', 'on-here-ending', 'unbound']);
  t.api.remove(NODES, 'gone');
  await t.pass(35);
  assert.equal(t.names().length, 5);
  await t.pass(20);
  assert.deepEqual(t.names(), ['on-here', 'on-here-ending', 'unbound']);
  await t.controller.close();
});

test('a Node that comes back in time keeps its pods', async () => {
  const t = setUp();
  t.node('a');
  t.pod('p', 'a');
  await t.pass(10);
  t.api.remove(NODES, 'a');
  await t.pass(30);
  t.node('a');
  await t.pass(60);
  t.api.remove(NODES, 'a');
  await t.pass(30);
  assert.deepEqual(t.names(), ['p']);
  await t.controller.close();
});

test('a table that may be stale decides nothing', async () => {
  const t = setUp();
  t.pod('p', 'a');
  t.api.connected = false;
  await t.pass(200);
  assert.deepEqual(t.names(), ['p']);
  await t.controller.close();
});
