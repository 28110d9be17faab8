/** The controllers with Weft's own API server and reflectors, as `weft apiserver` runs them. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { EVENTS, LEASES, NODES, PODS } from '../api/client.ts';
import { isNotFound } from '../api/errors.ts';
import type { Node } from '../api/types.ts';
import { issueClient } from '../apiserver/pki.ts';
import { type ApiServer, startApiServer } from '../apiserver/server.ts';
import { systemClock } from '../base/clock.ts';
import { isWeftError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { apiTables } from '../informers/api-tables.ts';
import { HttpApiClient } from '../informers/http-client.ts';
import { startControllers } from './main.ts';

let dataDir: string;
let server: ApiServer;
let client: HttpApiClient;

before(async () => {
  dataDir = await mkdtemp(path.join(tmpdir(), 'weft-controllers-'));
  server = await startApiServer({
    dataDir,
    listen: [{ host: '127.0.0.1', port: 0 }],
    advertise: [],
    logger: silentLogger,
  });
  const user = await issueClient(server.pkiDir, {
    user: 'system:kube-controller-manager',
    groups: ['system:masters'],
  });
  client = new HttpApiClient({ server: server.url, ca: server.ca, ...user, namespace: 'default' });
});
after(async () => {
  client.close();
  await server.close();
  await rm(dataDir, { recursive: true, force: true });
});

async function until(condition: () => Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) assert.fail(`not within 10 s: ${what}`);
    await delay(5);
  }
}

const common = () => ({
  client,
  tables: apiTables({ client, clock: systemClock, logger: silentLogger }),
  clock: systemClock,
  logger: silentLogger,
});
const get = (name: string): Promise<Node> => client.get(NODES, { name });

test('Nodes get CIDRs, taints and Events; a silent one becomes Unknown and comes back', async () => {
  const config = { clusterCIDRs: ['10.0.0.0/23', 'fd00::/60'] };
  const controllers = await startControllers({ ...common(), config });
  await controllers.synced;
  for (const name of ['a', 'b', 'c']) {
    await client.create(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name } });
  }
  await until(
    async () => (await client.list(EVENTS)).items.some((e) => e.reason === 'CIDRNotAvailable'),
    'exhausted',
  );
  const nodes = (await client.list(NODES)).items;
  const given = nodes.flatMap((n) => (n.spec?.podCIDRs ? [n.spec.podCIDRs] : []));
  assert.deepEqual(given.sort(), [
    ['10.0.0.0/24', 'fd00::/64'],
    ['10.0.1.0/24', 'fd00:0:0:1::/64'],
  ]);
  const [event] = (await client.list(EVENTS)).items.filter((e) => e.reason === 'CIDRNotAvailable');
  const poor = nodes.find((n) => !n.spec?.podCIDRs)!;
  assert.equal(event!.involvedObject.name, poor.metadata.name);
  assert.match(event!.message!, /WEFT_NODE_CIDR_EXHAUSTED: cluster CIDR 10\.0\.0\.0\/23/);

  // Room is made by one that goes.
  const rich = nodes.find((n) => n.spec?.podCIDRs)!;
  await client.delete(NODES, { name: rich.metadata.name });
  await until(async () => (await get(poor.metadata.name)).spec?.podCIDRs !== undefined, 'CIDR for the third');

  const name = poor.metadata.name;
  const conditions = [{ type: 'Ready', status: 'True' as const, reason: 'AgentReady' }];
  const renewTime = (): string => new Date().toISOString().replace('Z', '000Z');
  await until(
    async () => (await get(name)).spec?.taints?.[0]?.key === 'node.kubernetes.io/not-ready',
    'taint',
  );
  await client.create(LEASES, {
    apiVersion: 'coordination.k8s.io/v1',
    kind: 'Lease',
    metadata: { name, namespace: 'kube-node-lease' },
    spec: { holderIdentity: name, leaseDurationSeconds: 1, renewTime: renewTime() },
  });
  await client.patch(NODES, { name }, { status: { conditions } }, { subresource: 'status' });
  await until(async () => {
    const { spec, status } = await get(name);
    return status?.conditions?.[0]?.status === 'Unknown' && /unreachable/.test(spec?.taints?.[0]?.key ?? '');
  }, 'Unknown');
  await client.patch(
    LEASES,
    { name, namespace: 'kube-node-lease' },
    {
      spec: { renewTime: renewTime(), leaseDurationSeconds: 60 },
    },
  );
  await until(async () => {
    const { spec, status } = await get(name);
    return status?.conditions?.[0]?.status === 'True' && (spec?.taints ?? []).length === 0;
  }, 'Ready again');
  await until(
    async () => (await client.list(EVENTS)).items.some((e) => e.reason === 'NodeReady'),
    'NodeReady',
  );
  await controllers.close();
});

test('a terminating pod that never had a Node is deleted', async () => {
  const ref = { namespace: 'default', name: 'unbound' };
  await client.create(PODS, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { ...ref, finalizers: ['example.com/wait'] },
    spec: { containers: [{ name: 'c', image: 'pause' }] },
  });
  await client.delete(PODS, ref, { gracePeriodSeconds: 30 });
  const controllers = await startControllers({ ...common(), config: { clusterCIDRs: [] } });
  await controllers.synced;
  await client.patch(PODS, ref, { metadata: { finalizers: null } });
  await until(() => client.get(PODS, ref).then(() => false, isNotFound), 'deleted');
  await controllers.close();
});

test('bad configuration leaves nothing running', async () => {
  await assert.rejects(startControllers({ ...common(), config: { clusterCIDRs: ['10.0.0.0/26'] } }), (e) =>
    isWeftError(e, 'WEFT_BAD_CONFIG'),
  );
});
