import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { startTestServer, type TestClient, type TestServer, testPod } from './testing/test-server.ts';

let server: TestServer;
let admin: TestClient;
before(async () => {
  server = await startTestServer();
  admin = server.admin;
});
after(() => server.close());

const PODS = '/api/v1/namespaces/default/pods';
const CMS = '/api/v1/namespaces/default/configmaps';

describe('objects', () => {
  it('are created with what the server sets, and read back', async () => {
    const made = await admin.post(PODS, testPod('first'));
    assert.equal(made.code, 201);
    const { metadata, spec, status } = made.json;
    assert.match(metadata.uid, /^[0-9a-f-]{36}$/);
    assert.match(metadata.creationTimestamp, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    assert.equal(metadata.generation, 1);
    assert.equal(metadata.namespace, 'default');
    assert.equal(status.phase, 'Pending');
    assert.equal(spec.restartPolicy, 'Always');
    assert.equal(spec.containers[0].imagePullPolicy, 'Always');
    const read = await admin.get(`${PODS}/first`);
    assert.deepEqual(read.json, made.json);
  });

  it('are refused twice, without a namespace, and in one that is missing', async () => {
    await admin.post(PODS, testPod('twice'));
    const again = await admin.post(PODS, testPod('twice'));
    assert.deepEqual([again.code, again.json.reason], [409, 'AlreadyExists']);
    assert.equal(again.json.message, 'pods "twice" already exists');
    assert.equal((await admin.post('/api/v1/pods', testPod('x'))).code, 405);
    const nowhere = await admin.post('/api/v1/namespaces/none/pods', testPod('x'));
    assert.deepEqual([nowhere.code, nowhere.json.message], [404, 'namespaces "none" not found']);
    const other = await admin.post(PODS, testPod('x', { metadata: { name: 'x', namespace: 'kube-system' } }));
    assert.equal(other.code, 400);
  });

  it('get names from generateName', async () => {
    const names = new Set<string>();
    for (let i = 0; i < 5; i++) {
      const made = await admin.post(CMS, { metadata: { generateName: 'gen-' } });
      assert.match(made.json.metadata.name, /^gen-[a-z0-9]{5}$/);
      names.add(made.json.metadata.name);
    }
    assert.equal(names.size, 5);
  });

  it('are updated under optimistic concurrency', async () => {
    const { json: a } = await admin.post(CMS, { metadata: { name: 'occ' }, data: { k: '1' } });
    const b = await admin.send('PUT', `${CMS}/occ`, { body: { ...a, data: { k: '2' } } });
    assert.equal(b.code, 200);
    assert.ok(Number(b.json.metadata.resourceVersion) > Number(a.metadata.resourceVersion));
    const stale = await admin.send('PUT', `${CMS}/occ`, { body: { ...a, data: { k: '3' } } });
    assert.deepEqual([stale.code, stale.json.reason], [409, 'Conflict']);
    const { resourceVersion: _, ...metadata } = a.metadata;
    const forced = await admin.send('PUT', `${CMS}/occ`, { body: { ...a, metadata, data: { k: '4' } } });
    assert.equal(forced.code, 200);
    const same = await admin.send('PUT', `${CMS}/occ`, { body: forced.json });
    assert.equal(
      same.json.metadata.resourceVersion,
      forced.json.metadata.resourceVersion,
      'a no-op writes nothing',
    );
    const moved = await admin.send('PUT', `${CMS}/occ`, { body: { ...a, metadata: { name: 'other' } } });
    assert.equal(moved.code, 400);
    const patches = await Promise.all(
      Array.from({ length: 20 }, (_, i) => admin.patch(`${CMS}/occ`, { data: { [`p${i}`]: 'x' } })),
    );
    assert.ok(patches.every((p) => p.code === 200));
    assert.equal(Object.keys((await admin.get(`${CMS}/occ`)).json.data).length, 21, 'no patch was lost');
  });

  it('keep status and the rest apart', async () => {
    await admin.post(PODS, testPod('halves'));
    const tried = await admin.patch(`${PODS}/halves`, { status: { phase: 'Running' } });
    assert.equal(tried.json.status.phase, 'Pending');
    const status = await admin.patch(`${PODS}/halves/status`, {
      status: { phase: 'Running' },
      spec: { nodeName: 'x' },
      metadata: { annotations: { seen: 'yes' }, finalizers: ['a.b/c'] },
    });
    assert.equal(status.json.status.phase, 'Running');
    assert.equal(status.json.spec.nodeName, undefined);
    assert.equal(status.json.metadata.annotations.seen, 'yes');
    assert.equal(status.json.metadata.finalizers, undefined);
    assert.equal(status.json.metadata.generation, 1);
    const spec = await admin.patch(`${PODS}/halves`, { spec: { activeDeadlineSeconds: 9 } });
    assert.equal(spec.json.metadata.generation, 2);
    const node = await admin.post('/api/v1/nodes', {
      metadata: { name: 'with-status' },
      status: { nodeInfo: { kubeletVersion: 'v1' } },
    });
    assert.equal(node.json.status.nodeInfo.kubeletVersion, 'v1', 'nodes register with a status');
  });

  it('dry-run stores nothing', async () => {
    const { code, json } = await admin.post(`${PODS}?dryRun=All`, testPod('dry'));
    assert.equal(code, 201);
    assert.ok(json.metadata.uid);
    assert.equal((await admin.get(`${PODS}/dry`)).code, 404);
    await admin.post(CMS, { metadata: { name: 'dry' }, data: { a: '1' } });
    const patched = await admin.patch(`${CMS}/dry?dryRun=All`, { data: { a: '2' } });
    assert.equal(patched.json.data.a, '2');
    await admin.send('DELETE', `${CMS}/dry?dryRun=All`);
    assert.equal((await admin.get(`${CMS}/dry`)).json.data.a, '1');
    assert.equal((await admin.post(`${PODS}?dryRun=Some`, testPod('dry'))).code, 400);
  });

  it('are checked for unknown fields as asked', async () => {
    const typo = testPod('typo', {
      spec: { contaners: [], containers: [{ name: 'c', image: 'i', imagge: 'x' }] },
    });
    const strict = await admin.post(`${PODS}?fieldValidation=Strict`, typo);
    assert.deepEqual([strict.code, strict.json.reason], [400, 'BadRequest']);
    assert.match(
      strict.json.message,
      /strict decoding error: unknown field "spec.contaners", unknown field "spec.containers\[0\].imagge"/,
    );
    const warned = await admin.post(`${PODS}?fieldValidation=Warn`, typo);
    assert.equal(warned.code, 201);
    assert.match(String(warned.headers.warning), /299 - "unknown field \\"spec.contaners\\""/);
    assert.equal(warned.json.spec.contaners, undefined);
    await admin.send('DELETE', `${PODS}/typo`);
    const ignored = await admin.post(`${PODS}?fieldValidation=Ignore`, typo);
    assert.deepEqual([ignored.code, ignored.headers.warning], [201, undefined]);
    assert.equal((await admin.post(`${PODS}?fieldValidation=Maybe`, typo)).code, 400);
  });

  it('are refused with all that is wrong', async () => {
    const bad = await admin.post(PODS, {
      metadata: { name: 'Bad', labels: { 'a b': 'c' } },
      spec: {
        containers: [{ name: 'c', ports: [{ containerPort: 70000, protocol: 'X' }] }],
        restartPolicy: 'Sometimes',
      },
    });
    assert.deepEqual([bad.code, bad.json.reason, bad.json.details.kind], [422, 'Invalid', 'Pod']);
    assert.deepEqual(
      bad.json.details.causes.map((c: { field: string; reason: string }) => `${c.field} ${c.reason}`).sort(),
      [
        'metadata.labels FieldValueInvalid',
        'metadata.name FieldValueInvalid',
        'spec.containers[0].image FieldValueRequired',
        'spec.containers[0].ports[0].containerPort FieldValueInvalid',
        'spec.containers[0].ports[0].protocol FieldValueNotSupported',
        'spec.restartPolicy FieldValueNotSupported',
      ],
    );
    const typed = await admin.post(PODS, { metadata: { name: 'x' }, spec: { containers: 'c' } });
    assert.deepEqual([typed.code, typed.json.reason], [400, 'BadRequest']);
  });
});

describe('pods', () => {
  const bind = (name: string, node: string) =>
    admin.post(`${PODS}/${name}/binding`, {
      apiVersion: 'v1',
      kind: 'Binding',
      metadata: { name },
      target: { kind: 'Node', name: node },
    });

  it('are bound once', async () => {
    await admin.post(PODS, testPod('bound'));
    assert.equal((await bind('bound', 'n1')).code, 201);
    const again = await bind('bound', 'n2');
    assert.deepEqual([again.code, again.json.reason], [409, 'Conflict']);
    const { json } = await admin.get(`${PODS}/bound`);
    assert.equal(json.spec.nodeName, 'n1');
    assert.equal(json.status.conditions[0].type, 'PodScheduled');
    const moved = await admin.patch(`${PODS}/bound`, { spec: { nodeName: 'n2' } });
    assert.equal(moved.code, 422);
    assert.equal((await bind('absent', 'n1')).code, 404);
    assert.equal((await bind('bound', '')).code, 422);
  });

  it('are immutable but for a few fields', async () => {
    await admin.post(PODS, testPod('fixed'));
    const image = await admin.patch(
      `${PODS}/fixed`,
      { spec: { containers: [{ name: 'c', image: 'other' }] } },
      'strategic-merge',
    );
    assert.equal(image.json.spec.containers[0].image, 'other');
    const host = await admin.patch(`${PODS}/fixed`, { spec: { hostNetwork: true } });
    assert.equal(host.code, 422);
    assert.match(host.json.message, /spec: Forbidden: pod updates may not change fields other than/);
  });

  it('end gracefully: marked, then confirmed with grace 0', async () => {
    await admin.post(PODS, testPod('ending'));
    await bind('ending', 'n1');
    const first = await admin.send('DELETE', `${PODS}/ending`);
    assert.equal(first.code, 200);
    assert.equal(first.json.metadata.deletionGracePeriodSeconds, 30);
    const due = Date.parse(first.json.metadata.deletionTimestamp);
    assert.ok(due > Date.now() + 25_000 && due <= Date.now() + 31_000);
    const longer = await admin.send('DELETE', `${PODS}/ending?gracePeriodSeconds=60`);
    assert.equal(longer.json.metadata.deletionGracePeriodSeconds, 30, 'never longer');
    const shorter = await admin.send('DELETE', `${PODS}/ending`, { body: { gracePeriodSeconds: 5 } });
    assert.equal(shorter.json.metadata.deletionGracePeriodSeconds, 5);
    const status = await admin.patch(`${PODS}/ending/status`, { status: { phase: 'Failed' } });
    assert.equal(status.code, 200, 'the runner still reports');
    const wrong = await admin.send('DELETE', `${PODS}/ending`, {
      body: { gracePeriodSeconds: 0, preconditions: { uid: 'other' } },
    });
    assert.deepEqual([wrong.code, wrong.json.reason], [409, 'Conflict']);
    await admin.send('DELETE', `${PODS}/ending`, {
      body: { gracePeriodSeconds: 0, preconditions: { uid: first.json.metadata.uid } },
    });
    assert.equal((await admin.get(`${PODS}/ending`)).code, 404);
    await admin.post(PODS, testPod('unbound'));
    await admin.send('DELETE', `${PODS}/unbound`);
    assert.equal((await admin.get(`${PODS}/unbound`)).code, 404, 'nobody runs it: gone at once');
  });

  it('wait for finalizers', async () => {
    await admin.post(PODS, testPod('held', { metadata: { name: 'held', finalizers: ['example.com/hold'] } }));
    const marked = await admin.send('DELETE', `${PODS}/held`);
    assert.ok(marked.json.metadata.deletionTimestamp);
    const added = await admin.patch(`${PODS}/held`, {
      metadata: { finalizers: ['example.com/hold', 'example.com/more'] },
    });
    assert.equal(added.code, 422);
    assert.equal((await admin.patch(`${PODS}/held`, { metadata: { finalizers: null } })).code, 200);
    assert.equal((await admin.get(`${PODS}/held`)).code, 404);
  });
});

describe('namespaces', () => {
  it('are emptied before they go, and take nothing new meanwhile', async () => {
    await admin.post('/api/v1/namespaces', { metadata: { name: 'doomed' } });
    await admin.post('/api/v1/namespaces/doomed/configmaps', { metadata: { name: 'a' } });
    await admin.post(
      '/api/v1/namespaces/doomed/pods',
      testPod('slow', { metadata: { name: 'slow', finalizers: ['example.com/hold'] } }),
    );
    const { json } = await admin.send('DELETE', '/api/v1/namespaces/doomed');
    assert.equal(json.status.phase, 'Terminating');
    const refused = await admin.post('/api/v1/namespaces/doomed/configmaps', { metadata: { name: 'b' } });
    assert.deepEqual([refused.code, refused.json.details.causes[0].reason], [403, 'NamespaceTerminating']);
    assert.equal((await admin.get('/api/v1/namespaces/doomed')).code, 200);
    await admin.patch('/api/v1/namespaces/doomed/pods/slow', { metadata: { finalizers: null } });
    const deadline = Date.now() + 5000;
    while ((await admin.get('/api/v1/namespaces/doomed')).code !== 404)
      assert.ok(Date.now() < deadline, 'still there after 5 s');
    assert.equal((await admin.get('/api/v1/namespaces/doomed/configmaps')).json.items.length, 0);
  });

  it('of the system stay', async () => {
    assert.equal((await admin.send('DELETE', '/api/v1/namespaces/default')).code, 403);
    const { json } = await admin.get('/api/v1/namespaces');
    const names = json.items.map((n: { metadata: { name: string } }) => n.metadata.name);
    for (const name of ['default', 'kube-system', 'kube-public', 'kube-node-lease'])
      assert.ok(names.includes(name));
  });
});

describe('lists', () => {
  const base = '/api/v1/namespaces/lists/configmaps';
  const names = (json: { items: Array<{ metadata: { name: string } }> }) =>
    json.items.map((i) => i.metadata.name).join(' ');
  before(async () => {
    await admin.post('/api/v1/namespaces', { metadata: { name: 'lists' } });
    for (const [i, name] of ['a', 'b', 'c', 'd', 'e'].entries())
      await admin.post(base, { metadata: { name, labels: { n: String(i), odd: String(i % 2) } } });
  });

  it('come in pages of one snapshot', async () => {
    const first = (await admin.get(`${base}?limit=2`)).json;
    assert.equal(names(first), 'a b');
    assert.equal(first.metadata.remainingItemCount, 3);
    await admin.post(base, { metadata: { name: 'bb' } });
    const second = (await admin.get(`${base}?limit=2&continue=${first.metadata.continue}`)).json;
    assert.equal(names(second), 'c d');
    assert.equal(second.metadata.resourceVersion, first.metadata.resourceVersion);
    const third = (await admin.get(`${base}?limit=2&continue=${second.metadata.continue}`)).json;
    assert.equal(names(third), 'e');
    assert.equal(third.metadata.continue, undefined);
    await admin.send('DELETE', `${base}/bb`);
    const odd = (await admin.get(`${base}?limit=1&labelSelector=odd%3D1`)).json;
    assert.equal(names(odd), 'b');
    assert.equal(
      names(
        (await admin.get(`${base}?limit=5&labelSelector=odd%3D1&continue=${odd.metadata.continue}`)).json,
      ),
      'd',
    );
  });

  it('can be as they were', async () => {
    const { resourceVersion } = (await admin.get(base)).json.metadata;
    await admin.send('DELETE', `${base}/e`);
    const exact = (await admin.get(`${base}?resourceVersion=${resourceVersion}&resourceVersionMatch=Exact`))
      .json;
    assert.equal(names(exact), 'a b c d e');
    assert.equal(names((await admin.get(`${base}?resourceVersion=${resourceVersion}`)).json), 'a b c d');
    const future = await admin.get(`${base}?resourceVersion=99999999`);
    assert.deepEqual([future.code, future.json.details.causes[0].reason], [504, 'ResourceVersionTooLarge']);
  });

  it('obey selectors', async () => {
    assert.equal(
      names((await admin.get(`${base}?labelSelector=${encodeURIComponent('n in (0,2),odd!=1')}`)).json),
      'a c',
    );
    assert.equal(names((await admin.get(`${base}?fieldSelector=metadata.name%3Db`)).json), 'b');
    assert.equal((await admin.get(`${base}?fieldSelector=data.x%3Db`)).code, 400);
    assert.equal((await admin.get(`${base}?labelSelector=${encodeURIComponent('a in (')}`)).code, 400);
  });

  it('come as tables and as metadata', async () => {
    const table = (await admin.get(base, 'application/json;as=Table;v=v1;g=meta.k8s.io,application/json'))
      .json;
    assert.equal(table.kind, 'Table');
    assert.deepEqual(
      table.columnDefinitions.map((c: { name: string }) => c.name),
      ['Name', 'Data', 'Age'],
    );
    assert.equal(table.rows[0].cells[0], 'a');
    assert.equal(table.rows[0].object.kind, 'PartialObjectMetadata');
    const partial = (
      await admin.get(base, 'application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io')
    ).json;
    assert.deepEqual(
      [partial.kind, Object.keys(partial.items[0])],
      ['PartialObjectMetadataList', ['kind', 'apiVersion', 'metadata']],
    );
    const json = await admin.get(base, 'application/vnd.kubernetes.protobuf, application/json');
    assert.equal(json.json.kind, 'ConfigMapList');
    assert.equal((await admin.get(base, 'image/png')).code, 406);
  });

  it('are deleted whole or by selector', async () => {
    await admin.send('DELETE', `${base}?labelSelector=odd%3D1`);
    assert.equal(names((await admin.get(base)).json), 'a c');
    await admin.send('DELETE', base);
    assert.equal(names((await admin.get(base)).json), '');
  });
});

describe('patches', () => {
  it('of each kind do what their standards say', async () => {
    await admin.post(CMS, { metadata: { name: 'patched' }, data: { a: '1', b: '2' } });
    const path = `${CMS}/patched`;
    assert.deepEqual((await admin.patch(path, { data: { a: null, c: '3' } })).json.data, { b: '2', c: '3' });
    const json = [
      { op: 'test', path: '/data/b', value: '2' },
      { op: 'move', from: '/data/b', path: '/data/z' },
    ];
    assert.deepEqual((await admin.patch(path, json, 'json')).json.data, { c: '3', z: '2' });
    const failed = await admin.patch(path, [{ op: 'test', path: '/data/z', value: 'no' }], 'json');
    assert.equal(failed.code, 400);
    const replaced = await admin.patch(path, { data: { $patch: 'replace', only: 'x' } }, 'strategic-merge');
    assert.deepEqual(replaced.json.data, { only: 'x' });
    const apply = await admin.send('PATCH', `${path}?fieldManager=x`, {
      body: '{}',
      type: 'application/apply-patch+yaml',
    });
    assert.equal(apply.code, 415);
    assert.match(apply.json.message, /server-side apply is not served/);
  });
});

describe('documents', () => {
  it('of discovery exist in both forms', async () => {
    const aggregated = await admin.get(
      '/apis',
      'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json',
    );
    assert.match(String(aggregated.headers['content-type']), /as=APIGroupDiscoveryList/);
    assert.equal(aggregated.json.items[0].metadata.name, 'coordination.k8s.io');
    assert.deepEqual((await admin.get('/api')).json.versions, ['v1']);
    const { resources } = (await admin.get('/api/v1')).json;
    assert.ok(resources.some((r: { name: string }) => r.name === 'pods/binding'));
    assert.equal((await admin.get('/apis/nothing.example')).code, 404);
  });

  it('of OpenAPI name fieldValidation on every PATCH', async () => {
    const index = (await admin.get('/openapi/v3')).json;
    for (const path of ['api/v1', 'apis/coordination.k8s.io/v1']) {
      const document = (await admin.get(index.paths[path].serverRelativeURL)).json;
      for (const [url, item] of Object.entries<{ patch?: { parameters: Array<{ name: string }> } }>(
        document.paths,
      ))
        if (item.patch)
          assert.ok(
            item.patch.parameters.some((p) => p.name === 'fieldValidation'),
            url,
          );
      const text = JSON.stringify(document);
      for (const [, name] of text.matchAll(/#\/components\/schemas\/([^"]+)"/g))
        assert.ok(document.components.schemas[name as string], `${name} is defined`);
    }
    assert.ok((await admin.get('/openapi/v2')).json.definitions['io.k8s.api.core.v1.Pod']);
  });
});

describe('authorization', () => {
  it('gives nobody without a certificate more than health and version', async () => {
    const nobody = await server.client(null);
    for (const path of ['/healthz', '/livez', '/readyz', '/version'])
      assert.equal((await nobody.get(path)).code, 200);
    for (const path of ['/api', '/metrics', '/api/v1/pods', '/openapi/v2', '/'])
      assert.deepEqual([path, (await nobody.get(path)).code], [path, 403]);
    assert.equal(
      (await nobody.send('GET', '/api/v1/pods', { headers: { authorization: 'Bearer x' } })).code,
      401,
    );
  });

  it('refuses certificates of another CA', async () => {
    const other = await startTestServer();
    try {
      const { TestClient } = await import('./testing/test-server.ts');
      const { issueClient } = await import('./pki.ts');
      const pair = await issueClient(other.server.pkiDir, { user: 'mallory', groups: ['system:masters'] });
      const mallory = new TestClient(server.server.url, server.server.ca, pair);
      assert.equal((await mallory.get('/api/v1/pods')).code, 401);
      mallory.close();
    } finally {
      await other.close();
    }
  });

  it('lets a node write and delete only the Pods that are bound to it', async () => {
    const names = { 'of-p1': 'p1', 'of-p2': 'p2', unbound: undefined };
    for (const [name, nodeName] of Object.entries(names)) {
      const spec = { ...(nodeName && { nodeName }), containers: [{ name: 'c', image: 'agnhost' }] };
      assert.equal((await admin.post(PODS, { metadata: { name }, spec })).code, 201);
    }
    const node = await server.client({ user: 'system:node:p1', groups: ['system:nodes'] });
    const running = { status: { phase: 'Running' } };
    assert.equal((await node.patch(`${PODS}/of-p1/status`, running)).code, 200);
    for (const other of ['of-p2', 'unbound']) {
      assert.equal((await node.patch(`${PODS}/${other}/status`, running)).code, 403);
      const { json } = await admin.get(`${PODS}/${other}`);
      assert.equal(
        (await node.send('PUT', `${PODS}/${other}/status`, { body: { ...json, ...running } })).code,
        403,
      );
      // What the request says of the binding counts for nothing.
      const claim = { ...running, spec: { nodeName: 'p1' } };
      assert.equal((await node.patch(`${PODS}/${other}/status`, claim)).code, 403);
      assert.equal((await node.send('DELETE', `${PODS}/${other}?gracePeriodSeconds=0`)).code, 403);
      assert.equal((await admin.get(`${PODS}/${other}`)).code, 200, 'it is there still');
    }
    assert.equal((await node.patch(`${PODS}/of-p1`, { metadata: { labels: { a: 'b' } } })).code, 403);
    assert.equal((await node.send('DELETE', `${PODS}/of-p1?gracePeriodSeconds=0`)).code, 200);
    for (const other of ['of-p2', 'unbound'])
      await admin.send('DELETE', `${PODS}/${other}?gracePeriodSeconds=0`);
  });

  it('lets a node write only what is its own', async () => {
    const node = await server.client({ user: 'system:node:n7', groups: ['system:nodes'] });
    assert.equal((await node.post('/api/v1/nodes', { metadata: { name: 'n7' } })).code, 201);
    assert.equal((await node.post('/api/v1/nodes', { metadata: { name: 'n8' } })).code, 403);
    assert.equal((await node.post('/api/v1/nodes', { metadata: { generateName: 'n7' } })).code, 403);
    assert.equal((await node.patch('/api/v1/nodes/n7/status', { status: {} })).code, 200);
    assert.equal(
      (await node.patch('/api/v1/nodes/with-status', { metadata: { labels: { a: 'b' } } })).code,
      403,
    );
    assert.equal((await node.get('/api/v1/pods')).code, 200);
    assert.equal((await node.post(CMS, { metadata: { name: 'no' } })).code, 403);
    assert.equal((await node.send('DELETE', '/api/v1/nodes')).code, 403);
    const lease = {
      metadata: { name: 'n7' },
      spec: { holderIdentity: 'n7', renewTime: '2026-01-01T00:00:00.000000Z' },
    };
    const leases = '/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases';
    assert.equal((await node.post(leases, lease)).code, 201);
    assert.equal((await node.patch(`${leases}/n7`, { spec: { holderIdentity: 'n7' } })).code, 200);
    assert.equal((await node.post(leases, { ...lease, metadata: { name: 'n8' } })).code, 403);
    assert.equal((await node.patch(`${leases}/n8`, { spec: { holderIdentity: 'n8' } })).code, 403);
    assert.equal((await node.send('DELETE', `${leases}/n8`)).code, 403);
    assert.equal((await node.post(leases.replace('kube-node-lease', 'default'), lease)).code, 403);
    const stranger = await server.client({ user: 'someone', groups: [] });
    assert.equal((await stranger.get('/api')).code, 200);
    const { code, json } = await stranger.get('/api/v1/pods');
    assert.equal(code, 403);
    assert.equal(
      json.message,
      'pods is forbidden: User "someone" cannot list resource "pods" in API group "" at the cluster scope',
    );
  });
});
