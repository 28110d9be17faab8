/** Whatever is sent, a Status comes back, and the server goes on. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connect, type TLSSocket } from 'node:tls';
import fc from 'fast-check';
import {
  type Answer,
  startTestServer,
  type TestClient,
  type TestServer,
  testPod,
} from './testing/test-server.ts';

let server: TestServer;
let admin: TestClient;
before(async () => {
  server = await startTestServer();
  admin = server.admin;
  await admin.post('/api/v1/namespaces/default/configmaps', {
    metadata: { name: 'target', labels: { a: 'b' } },
    data: { k: 'v' },
  });
  await admin.post('/api/v1/namespaces/default/pods', testPod('target'));
});
after(() => server.close());

const CM = '/api/v1/namespaces/default/configmaps';
const POD = '/api/v1/namespaces/default/pods';

function assertAnswered(answer: Answer, what: string): void {
  assert.ok(
    answer.code >= 200 && answer.code < 500,
    `${answer.code} for ${what}: ${answer.text.slice(0, 300)}`,
  );
  if (answer.code < 300) return;
  assert.equal(answer.json?.kind, 'Status', what);
  assert.equal(answer.json.code, answer.code);
  assert.ok(answer.json.message && answer.json.reason, what);
}

async function stillWell(): Promise<void> {
  assert.equal((await admin.get('/readyz')).text, 'ok');
  assert.equal((await admin.get(`${CM}/target`)).json.metadata.name, 'target');
  assert.equal(({} as Record<string, unknown>).polluted, undefined, 'no prototype was touched');
}

describe('fuzz', () => {
  it('malformed bodies', async () => {
    const nested = `${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`;
    const bodies = [
      '',
      '{',
      'null',
      '[]',
      '"x"',
      '42',
      '{"metadata":null}',
      '{"metadata":[]}',
      '{"metadata":{"name":5}}',
      '{"metadata":{"name":"x","labels":{"a":{}}}}',
      '{"metadata":{"name":"x"},"data":{"__proto__":"x"}}',
      '{"__proto__":{"polluted":1},"metadata":{"name":"x"}}',
      '{"kind":"Pod","metadata":{"name":"x"}}',
      '{"apiVersion":"v2","metadata":{"name":"x"}}',
      '{"metadata":{"name":"../../secrets/x"}}',
      '{"metadata":{"name":"a/b"}}',
      '{"metadata":{"name":"","generateName":"UPPER"}}',
      nested,
      `${'['.repeat(50_000)}${']'.repeat(50_000)}`,
      '\u0000',
      '\ud800',
    ];
    for (const body of bodies)
      for (const type of [
        'application/json',
        'application/yaml',
        'application/vnd.kubernetes.protobuf',
        'text/html',
        '',
      ]) {
        const answer = await admin.send('POST', CM, { body, type });
        assertAnswered(answer, `${type} ${body.slice(0, 60)}`);
        assert.notEqual(answer.code, 201, `${type} ${body.slice(0, 60)}`);
      }
    const dropped = await admin.post(
      CM,
      '{"metadata":{"name":"dropped"},"constructor":{"prototype":{"polluted":1}}}',
    );
    assert.equal(dropped.code, 201);
    assert.ok(!Object.hasOwn(dropped.json, 'constructor'));
    await stillWell();
  });

  it('bodies that are too large', async () => {
    const answer = await admin
      .send('POST', CM, { body: `{"metadata":{"name":"big"},"data":{"x":"${'x'.repeat(4 << 20)}"}}` })
      .catch((error: NodeJS.ErrnoException) => error);
    // The server need not read to the end: the answer may be lost with the connection.
    if (answer instanceof Error) assert.match(String(answer.code), /ECONNRESET|EPIPE/);
    else assert.equal(answer.code, 413);
    await stillWell();
  });

  it('YAML that expands', async () => {
    const bomb = [
      'a: &a [x,x,x,x,x,x,x,x,x]',
      ...'bcdefghi'.split('').map((c, i) => `${c}: &${c} [${Array(9).fill(`*${'abcdefghi'[i]}`)}]`),
    ];
    const answer = await admin.send('POST', CM, { body: bomb.join('\n'), type: 'application/yaml' });
    assert.equal(answer.code, 400);
    const fine = await admin.send('POST', CM, {
      body: 'metadata:\n  name: yaml\ndata:\n  a: b\n',
      type: 'application/yaml',
    });
    assert.equal(fine.code, 201);
  });

  it('random JSON as objects, patches and statuses', async () => {
    const json = fc.jsonValue({ maxDepth: 4 });
    const key = fc.constantFrom(
      'spec',
      'status',
      'metadata',
      'data',
      'labels',
      'containers',
      '$patch',
      '$retainKeys',
      '$setElementOrder/containers',
      '$deleteFromPrimitiveList/finalizers',
      '__proto__',
      'constructor',
      'name',
    );
    const tree = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        json,
        fc.dictionary(key, tie('value') as fc.Arbitrary<unknown>, { maxKeys: 3, noNullPrototype: true }),
        fc.array(tie('value') as fc.Arbitrary<unknown>, { maxLength: 3 }),
      ),
    })).value;
    await fc.assert(
      fc.asyncProperty(tree, async (value) => {
        const body = JSON.stringify(value) ?? 'null';
        assertAnswered(await admin.post(`${POD}?dryRun=All`, body), body);
        for (const kind of ['merge', 'strategic-merge', 'json'] as const) {
          assertAnswered(await admin.patch(`${POD}/target?dryRun=All`, body, kind), `${kind} ${body}`);
          assertAnswered(await admin.patch(`${POD}/target/status?dryRun=All`, body, kind), `${kind} ${body}`);
        }
        assertAnswered(await admin.send('PUT', `${CM}/target?dryRun=All`, { body }), body);
        assertAnswered(await admin.send('DELETE', `${CM}/absent`, { body }), body);
      }),
      { numRuns: 60 },
    );
    await stillWell();
  });

  it('random JSON patches', async () => {
    const pointer = fc.oneof(
      fc.constantFrom(
        '',
        '/',
        '/metadata',
        '/metadata/labels/a',
        '/data/k',
        '/data/-',
        '/spec/containers/0',
        '/spec/containers/-',
        '/spec/containers/01',
        '/__proto__/polluted',
        '/metadata/constructor/prototype/polluted',
        '/a~2b',
      ),
      fc.string({ maxLength: 10 }),
    );
    const operation = fc.record(
      {
        op: fc.constantFrom('add', 'remove', 'replace', 'move', 'copy', 'test', 'eval'),
        path: pointer,
        from: pointer,
        value: fc.jsonValue({ maxDepth: 2 }),
      },
      { requiredKeys: ['op'] },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(operation, { maxLength: 4 }), async (patch) => {
        assertAnswered(await admin.patch(`${POD}/target?dryRun=All`, patch, 'json'), JSON.stringify(patch));
      }),
      { numRuns: 100 },
    );
    await stillWell();
  });

  it('random queries and paths', async () => {
    const parameter = fc.constantFrom(
      'labelSelector',
      'fieldSelector',
      'continue',
      'limit',
      'resourceVersion',
      'resourceVersionMatch',
      'dryRun',
      'fieldValidation',
      'includeObject',
      'gracePeriodSeconds',
    );
    const text = fc.oneof(
      fc.string({ maxLength: 20, unit: 'binary' }),
      fc.constantFrom(
        'a in (b',
        'a,,b',
        '!',
        '=',
        'a=b=c',
        '-1',
        '1e9',
        '99999999999999999999',
        'Exact',
        'eyJ2Ijoid2VmdC92MSIsInJ2IjoxLCJhZnRlciI6Ii9yZWdpc3RyeS9zZWNyZXRzL3gifQ',
      ),
    );
    await fc.assert(
      fc.asyncProperty(fc.dictionary(parameter, text, { maxKeys: 4 }), async (query) => {
        const search = Object.entries(query)
          .map(([k, v]) => `${k}=${encodeURIComponent(v.toWellFormed())}`)
          .join('&');
        const answer = await admin.get(`${CM}?${search}`);
        if (answer.code !== 504) assertAnswered(answer, search);
      }),
      { numRuns: 100 },
    );
    const segment = fc.constantFrom(
      'api',
      'apis',
      'v1',
      'namespaces',
      'default',
      'pods',
      'configmaps',
      'status',
      'binding',
      '..',
      '.',
      '%2e%2e',
      '%00',
      '%2f',
      '%zz',
      'x',
      '__proto__',
      'constructor',
      'openapi',
      'v3',
      'coordination.k8s.io',
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'OPTIONS', 'HEAD'),
        fc.array(segment, { maxLength: 7 }),
        async (method, segments) => {
          const path = `/${segments.join('/')}`;
          const answer = await admin.send(method, path);
          if (method !== 'HEAD') assertAnswered(answer, `${method} ${path}`);
        },
      ),
      { numRuns: 150 },
    );
    await stillWell();
  });

  it('bytes that are no HTTP, and connections cut in the middle', async () => {
    const pki = (name: string): string => readFileSync(join(server.server.pkiDir, name), 'utf8');
    const open = (): Promise<TLSSocket> =>
      new Promise((resolve, reject) => {
        const socket = connect({
          port: server.server.port,
          host: '127.0.0.1',
          ca: server.server.ca,
          cert: pki('client-kubernetes-admin.crt'),
          key: pki('client-kubernetes-admin.key'),
        });
        socket.once('secureConnect', () => resolve(socket));
        socket.once('error', reject);
      });
    const inputs = [
      'garbage\r\n\r\n',
      'GET / HTTP/9.9\r\n\r\n',
      `POST ${CM} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\ncontent-type: application/json\r\n\r\n{"meta`,
      `POST ${CM} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n`,
      `GET ${CM}?watch=1 HTTP/1.1\r\nhost: x\r\n\r\n`,
      `GET /${'a'.repeat(100_000)} HTTP/1.1\r\nhost: x\r\n\r\n`,
    ];
    for (const input of inputs) {
      const socket = await open();
      socket.on('error', () => {});
      socket.write(input);
      const answered = new Promise<void>((resolve) => {
        socket.once('data', () => resolve());
        socket.once('close', () => resolve());
        setTimeout(resolve, 100);
      });
      await answered;
      socket.destroy();
    }
    await stillWell();
  });
});
