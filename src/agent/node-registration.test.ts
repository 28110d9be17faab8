import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NODES } from '../api/client.ts';
import type { Node } from '../api/types.ts';
import { systemClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { MemoryApi } from '../controllers/testing/memory-api.ts';
import { NodeRegistration } from './node-registration.ts';

const facts = {
  name: 'node-1',
  addresses: ['192.0.2.1', '2001:db8::1'],
  annotations: { 'weft.dev/vtep-mac': '02:00:00:00:00:01' },
  podCIDRs: ['10.244.1.0/24', 'fd00:10:244:1::/64'],
};

function registered(): { api: MemoryApi; pass: () => Promise<void>; node: () => Node } {
  const api = new MemoryApi();
  const registration = new NodeRegistration({
    client: api,
    clock: systemClock,
    logger: silentLogger,
    facts,
    ownsNode: true,
  });
  const pass = async (): Promise<void> => {
    await registration.update(facts);
    await registration.setReady(true, 'WeftReady', 'works');
  };
  return { api, pass, node: () => api.peek<Node>(NODES, 'node-1')! };
}

const ready = (node: Node): string | undefined =>
  node.status?.conditions?.find((condition) => condition.type === 'Ready')?.status;
const statusWrites = (api: MemoryApi): number =>
  api.log.filter((entry) => entry === 'patch/status nodes node-1').length;

test('the status is written once while nothing changes', async () => {
  const { api, pass, node } = registered();
  for (let i = 0; i < 3; i++) await pass();
  assert.equal(ready(node()), 'True');
  assert.equal(statusWrites(api), 1);
});

test('a Node that was deleted comes back whole, with the pod CIDRs that its pods have addresses of', async () => {
  const { api, pass, node } = registered();
  await pass();
  const born = node().metadata.uid;
  api.remove(NODES, 'node-1');
  await pass();
  assert.notEqual(node().metadata.uid, born);
  assert.deepEqual(node().spec?.podCIDRs, facts.podCIDRs);
  assert.equal(node().spec?.podCIDR, facts.podCIDRs[0]);
  assert.deepEqual(
    node().status?.addresses?.map(({ address }) => address),
    [...facts.addresses, 'node-1'],
  );
  assert.equal(ready(node()), 'True');
});

test('addresses that somebody took away are written again, a condition that another judged is left', async () => {
  const { api, pass, node } = registered();
  await pass();
  const judged = structuredClone(node());
  judged.status!.conditions!.find(({ type }) => type === 'Ready')!.status = 'Unknown';
  api.put(NODES, judged);
  await pass();
  assert.equal(ready(node()), 'Unknown');
  assert.equal(statusWrites(api), 1);
  const emptied = structuredClone(node());
  emptied.status = {};
  api.put(NODES, emptied);
  await pass();
  assert.equal(node().status?.addresses?.length, 3);
  assert.equal(ready(node()), 'True');
});
