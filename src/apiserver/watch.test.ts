import assert from 'node:assert/strict';
import { request } from 'node:https';
import { after, before, describe, it } from 'node:test';
import { openSqliteStore } from '../store/sqlite-store.ts';
import type { Store } from '../store/store.ts';
import { startTestServer, type TestClient, type TestServer, testPod } from './testing/test-server.ts';

let server: TestServer;
let admin: TestClient;
let store: Store;
before(async () => {
  store = openSqliteStore({ path: ':memory:' });
  server = await startTestServer({ store });
  admin = server.admin;
});
after(() => server.close());

const CMS = '/api/v1/namespaces/default/configmaps';
const PODS = '/api/v1/namespaces/default/pods';
const shape = (events: Array<{ type: string; object: { metadata: { name: string } } }>) =>
  events.map((e) => `${e.type} ${e.object.metadata.name}`);

describe('watches', () => {
  it('resume after a resourceVersion, without gap or repetition', async () => {
    const { json: a } = await admin.post(CMS, { metadata: { name: 'w1' }, data: { n: '1' } });
    await admin.patch(`${CMS}/w1`, { data: { n: '2' } });
    const watch = await admin.watch(`${CMS}?watch=true&resourceVersion=${a.metadata.resourceVersion}`);
    await watch.until(1);
    await admin.send('DELETE', `${CMS}/w1`);
    const events = await watch.until(2);
    assert.deepEqual(shape(events), ['MODIFIED w1', 'DELETED w1']);
    assert.equal(events[1].object.data.n, '2', 'what went is shown as it last was');
    const versions = events.map((e) => Number(e.object.metadata.resourceVersion));
    assert.ok(versions[1]! > versions[0]!, 'at the revision of its going');
    watch.close();
  });

  it('begin with what is there when no resourceVersion is given, or initial events are asked for', async () => {
    await admin.post(CMS, { metadata: { name: 'w2', labels: { w: '2' } } });
    const plain = await admin.watch(`${CMS}?watch=1&labelSelector=w%3D2`);
    assert.deepEqual(shape(await plain.until(1)), ['ADDED w2']);
    plain.close();
    const listed = await admin.watch(
      `${CMS}?watch=1&labelSelector=w%3D2&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true`,
    );
    const events = await listed.until(2);
    assert.deepEqual(
      events.map((e) => e.type),
      ['ADDED', 'BOOKMARK'],
    );
    assert.equal(events[1].object.metadata.annotations['k8s.io/initial-events-end'], 'true');
    listed.close();
    assert.equal((await admin.get(`${CMS}?watch=1&sendInitialEvents=true`)).code, 400);
  });

  it('translate changes of what a selector matches', async () => {
    await admin.post(PODS, testPod('sel'));
    const { resourceVersion } = (await admin.get(PODS)).json.metadata;
    const bound = await admin.watch(
      `${PODS}?watch=1&resourceVersion=${resourceVersion}&fieldSelector=spec.nodeName%3Dn1`,
    );
    const labelled = await admin.watch(
      `${PODS}?watch=1&resourceVersion=${resourceVersion}&labelSelector=app%3Dtest`,
    );
    await admin.post(`${PODS}/sel/binding`, { target: { kind: 'Node', name: 'n1' } });
    await admin.patch(`${PODS}/sel`, { metadata: { labels: { app: 'other' } } });
    await admin.patch(`${PODS}/sel`, { metadata: { labels: { app: 'third' } } });
    assert.deepEqual(shape(await bound.until(3)), ['ADDED sel', 'MODIFIED sel', 'MODIFIED sel']);
    assert.deepEqual(shape(await labelled.until(2)), ['MODIFIED sel', 'DELETED sel']);
    bound.close();
    labelled.close();
  });

  it('come as table rows', async () => {
    const watch = await admin.watch(
      `${PODS}?watch=1&fieldSelector=metadata.name%3Dsel`,
      'application/json;as=Table;v=v1;g=meta.k8s.io',
    );
    const [first] = await watch.until(1);
    assert.equal(first.object.kind, 'Table');
    assert.deepEqual(first.object.rows[0].cells.slice(0, 3), ['sel', '0/1', 'Pending']);
    watch.close();
  });

  it('end after timeoutSeconds', async () => {
    const watch = await admin.watch(`${CMS}?watch=1&timeoutSeconds=1`);
    const deadline = Date.now() + 5000;
    while (!watch.ended) {
      assert.ok(Date.now() < deadline);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });

  it('are told to list again when their revision is forgotten or never was', async () => {
    const { resourceVersion } = (await admin.get(CMS)).json.metadata;
    for (let i = 0; i < 3; i++) await admin.patch(`${CMS}/w2`, { data: { i: String(i) } });
    const { json: page } = await admin.get('/api/v1/namespaces?limit=1');
    await admin.patch(`${CMS}/w2`, { data: { i: 'last' } });
    await store.compact(store.revision);
    for (const version of [resourceVersion, '99999999']) {
      const { code, json } = await admin.get(`${CMS}?watch=1&resourceVersion=${version}`);
      assert.deepEqual([code, json.reason], [410, 'Expired']);
    }
    const token = await admin.get(`/api/v1/namespaces?limit=1&continue=${page.metadata.continue}`);
    assert.deepEqual([token.code, token.json.reason], [410, 'Expired']);
  });

  it('do not buffer forever for a reader that does not read', async () => {
    const { issueClient } = await import('./pki.ts');
    const pair = await issueClient(server.server.pkiDir, {
      user: 'kubernetes-admin',
      groups: ['system:masters'],
    });
    const outgoing = request(`${server.server.url}${CMS}?watch=1`, {
      ca: server.server.ca,
      ...pair,
      agent: false,
    });
    outgoing.on('error', () => {});
    outgoing.end();
    // Paused, it does not even notice that its connection is gone: the server is asked.
    await new Promise<void>((resolve) => {
      outgoing.once('response', (response) => {
        response.on('error', () => {});
        response.pause();
        resolve();
      });
    });
    const other = await admin.watch(`${CMS}?watch=1`);
    const watches = async (): Promise<number> =>
      Number(/^apiserver_longrunning_requests (\d+)$/m.exec((await admin.get('/metrics')).text)?.[1]);
    assert.equal(await watches(), 2);
    const data = { big: 'x'.repeat(900_000) };
    for (let i = 0; i < 60 && (await watches()) === 2; i++)
      await admin.send('PUT', `${CMS}/w2`, {
        body: { metadata: { name: 'w2', labels: { i: String(i) } }, data },
      });
    assert.equal(await watches(), 1, 'the connection was cut');
    assert.ok(!other.ended, 'a watcher that reads is not disturbed');
    other.close();
    outgoing.destroy();
  });
});
