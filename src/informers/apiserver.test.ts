/** The client and the reflector against Weft's own API server, over TLS with a client certificate. */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { CONFIGMAPS, NODES } from '../api/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../api/errors.ts';
import { objectKey } from '../api/object-key.ts';
import type { ConfigMap } from '../api/types.ts';
import { issueClient, kubeconfigText } from '../apiserver/pki.ts';
import { type ApiServer, startApiServer } from '../apiserver/server.ts';
import { systemClock } from '../base/clock.ts';
import { silentLogger } from '../base/log.ts';
import { apiTables } from './api-tables.ts';
import { HttpApiClient } from './http-client.ts';
import { parseKubeconfig } from './kubeconfig.ts';

let dataDir: string;
let server: ApiServer;
let client: HttpApiClient;

const start = (port: number): Promise<ApiServer> =>
  startApiServer({ dataDir, listen: [{ host: '127.0.0.1', port }], advertise: [], logger: silentLogger });

before(async () => {
  dataDir = await mkdtemp(path.join(tmpdir(), 'weft-informers-'));
  server = await start(0);
  const user = await issueClient(server.pkiDir, { user: 'kubernetes-admin', groups: ['system:masters'] });
  const text = kubeconfigText({ server: server.url, ca: server.ca, ...user });
  client = new HttpApiClient(await parseKubeconfig(text, { file: 'test' }));
});
after(async () => {
  client.close();
  await server.close();
  await rm(dataDir, { recursive: true, force: true });
});

const configMap = (name: string, value: string): ConfigMap => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace: 'default' },
  data: { value },
});
const open = () =>
  apiTables({ client, clock: systemClock, logger: silentLogger, backoff: { min: 5, max: 50 } }).open({
    resource: CONFIGMAPS,
    map: (o) => ({ key: objectKey(o), value: o.data?.value, version: o.metadata.resourceVersion }),
  });

async function until(condition: () => boolean | Promise<boolean>, what: string): Promise<void> {
  const deadline = Date.now() + 10_000;
  while (!(await condition())) {
    if (Date.now() > deadline) assert.fail(`not within 10 s: ${what}`);
    await delay(3);
  }
}
const rows = (t: ReturnType<typeof open>): Array<[string, string | undefined]> =>
  [...t.table.values()].map((r): [string, string | undefined] => [r.key, r.value]).sort();
const truth = async (): Promise<Array<[string, string | undefined]>> =>
  (await client.list(CONFIGMAPS)).items
    .map((o): [string, string | undefined] => [objectKey(o), o.data?.value])
    .sort();

test('objects through their life: create, conflict, patch, conditional update, delete', async () => {
  const name = 'life';
  const made = await client.create(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name } });
  assert.ok(made.metadata.uid && made.metadata.resourceVersion);
  await assert.rejects(
    client.create(NODES, { apiVersion: 'v1', kind: 'Node', metadata: { name } }),
    isAlreadyExists,
  );
  const patched = await client.patch(
    NODES,
    { name },
    {
      metadata: { resourceVersion: made.metadata.resourceVersion },
      spec: { podCIDR: '10.0.0.0/24', podCIDRs: ['10.0.0.0/24'] },
    },
  );
  assert.deepEqual(patched.spec?.podCIDRs, ['10.0.0.0/24']);
  await assert.rejects(client.update(NODES, made), isConflict);
  await assert.rejects(
    client.patch(
      NODES,
      { name },
      { metadata: { resourceVersion: made.metadata.resourceVersion, labels: { a: 'b' } } },
    ),
    isConflict,
  );
  const status = { conditions: [{ type: 'Ready', status: 'True' as const }] };
  const ready = await client.update(NODES, { ...patched, status }, 'status');
  assert.equal(ready.status?.conditions?.[0]?.status, 'True');
  assert.deepEqual(ready.spec?.podCIDRs, ['10.0.0.0/24']);
  await assert.rejects(client.delete(NODES, { name }, { uid: 'another' }), isConflict);
  await client.delete(NODES, { name });
  await assert.rejects(client.get(NODES, { name }), isNotFound);
});

test('a table follows creates, updates and deletes, each deletion at its own version', async () => {
  const t = open();
  await t.synced;
  for (let i = 0; i < 20; i++) await client.create(CONFIGMAPS, configMap(`c${i}`, 'ü→😀'));
  for (let i = 0; i < 20; i += 2) await client.delete(CONFIGMAPS, { namespace: 'default', name: `c${i}` });
  for (let i = 1; i < 20; i += 4) {
    await client.patch(CONFIGMAPS, { namespace: 'default', name: `c${i}` }, { data: { value: 'new' } });
  }
  const expected = await truth();
  await until(() => JSON.stringify(rows(t)) === JSON.stringify(expected), 'same');
  assert.equal(t.reflector.counts.lists, 1);
  assert.equal(t.reflector.counts.failures, 0);
  await t.close();
});

test('pages of a list are one state', async () => {
  for (let i = 0; i < 7; i++) await client.create(CONFIGMAPS, configMap(`page${i}`, 'x'));
  const names: string[] = [];
  let token: string | undefined;
  do {
    const list = await client.list(CONFIGMAPS, {
      namespace: 'default',
      limit: 3,
      ...(token && { continue: token }),
    });
    names.push(...list.items.map((o) => o.metadata.name));
    token = list.metadata.continue;
  } while (token);
  assert.equal(new Set(names).size, names.length);
  assert.equal(names.filter((n) => n.startsWith('page')).length, 7);
});

test('a restart of the server loses nothing: rows stay, and the watch is resumed', async () => {
  const t = open();
  await t.synced;
  const before = rows(t);
  const { port } = server;
  await server.close();
  await until(() => !t.connected, 'noticed');
  assert.deepEqual(rows(t), before);
  server = await start(port);
  await until(() => t.connected, 'connected again');
  await until(
    () => client.create(CONFIGMAPS, configMap('after', 'restart')).then(() => true, isAlreadyExists),
    'create',
  );
  const expected = await truth();
  await until(() => JSON.stringify(rows(t)) === JSON.stringify(expected), 'same');
  await t.close();
});
