import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import http from 'node:http';
import net, { type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { CONFIGMAPS, LEASES, NODES, PODS } from '../api/client.ts';
import { ApiError, isGone, isNotFound } from '../api/errors.ts';
import type { Pod } from '../api/types.ts';
import { ensureCa, ensureServerCertificate, issueClient } from '../apiserver/pki.ts';
import { isWeftError } from '../base/errors.ts';
import { HttpApiClient, type HttpClientOptions } from './http-client.ts';
import { FakeApiServer } from './testing/fake-api-server.ts';

type Handler = (request: http.IncomingMessage, response: http.ServerResponse, body: string) => void;

/** A plain server with `handler`, and a client of it. */
async function serve(
  handler: Handler,
  options: HttpClientOptions & { token?: string; tokenFile?: string } = {},
) {
  const seen: Array<{ line: string; headers: http.IncomingHttpHeaders; body: string }> = [];
  const server = http.createServer(async (request, response) => {
    response.on('error', () => {});
    let body = '';
    for await (const chunk of request) body += chunk;
    seen.push({ line: `${request.method} ${request.url}`, headers: request.headers, body });
    handler(request, response, body);
  });
  let connections = 0;
  server.on('connection', () => connections++);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { token, tokenFile, ...rest } = options;
  const client = new HttpApiClient(
    {
      server: `http://127.0.0.1:${(server.address() as AddressInfo).port}/prefix`,
      namespace: 'default',
      ...(token !== undefined && { token }),
      ...(tokenFile !== undefined && { tokenFile }),
    },
    rest,
  );
  return {
    client,
    seen,
    server,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      client.close();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const answer: Handler = (_, response) => response.end('{"kind":"X","metadata":{"name":"x"},"items":[]}');
const pod = (name: string): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'a b' },
  spec: { containers: [] },
});

test('each verb has its method, path, query and body; connections are kept', async () => {
  await using s = await serve(answer, { token: 'secret', userAgent: 'weft-test' });
  const { client } = s;
  await client.list(PODS);
  await client.list(PODS, { namespace: 'a b', labelSelector: 'app=x,y!=z', limit: 5, continue: 'c+/=' });
  await client.get(LEASES, { namespace: 'kube-node-lease', name: 'n1' });
  await client.create(PODS, pod('p'));
  await client.update(PODS, pod('p'), 'status');
  await client.patch(NODES, { name: 'n1' }, { a: 1 });
  await client.patch(NODES, { name: 'n1' }, [{ op: 'test' }], { type: 'json', subresource: 'status' });
  await client.patch(
    PODS,
    { namespace: 'a b', name: 'p' },
    { target: { name: 'n1' } },
    { subresource: 'binding' },
  );
  await client.delete(NODES, { name: 'n1' }, { gracePeriodSeconds: 0, uid: 'u' });
  assert.deepEqual(
    s.seen.map((r) => r.line),
    [
      'GET /prefix/api/v1/pods',
      'GET /prefix/api/v1/namespaces/a%20b/pods?labelSelector=app%3Dx%2Cy%21%3Dz&limit=5&continue=c%2B%2F%3D',
      'GET /prefix/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1',
      'POST /prefix/api/v1/namespaces/a%20b/pods',
      'PUT /prefix/api/v1/namespaces/a%20b/pods/p/status',
      'PATCH /prefix/api/v1/nodes/n1',
      'PATCH /prefix/api/v1/nodes/n1/status',
      'POST /prefix/api/v1/namespaces/a%20b/pods/p/binding',
      'DELETE /prefix/api/v1/nodes/n1',
    ],
  );
  assert.equal(s.connections, 1);
  assert.deepEqual(JSON.parse(s.seen[3]!.body), pod('p'));
  assert.equal(s.seen[5]!.headers['content-type'], 'application/merge-patch+json');
  assert.equal(s.seen[6]!.headers['content-type'], 'application/json-patch+json');
  assert.deepEqual(JSON.parse(s.seen[8]!.body), {
    apiVersion: 'v1',
    kind: 'DeleteOptions',
    gracePeriodSeconds: 0,
    preconditions: { uid: 'u' },
  });
  for (const { headers } of s.seen) {
    assert.equal(headers.authorization, 'Bearer secret');
    assert.equal(headers['user-agent'], 'weft-test');
    assert.equal(headers.accept, 'application/json');
  }
  assert.throws(() => client.get(PODS, { name: 'p' }), /namespace/);
});

test('a token in a file is read', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'weft-token-'));
  try {
    await writeFile(path.join(folder, 'token'), 'from-file\n');
    await using s = await serve(answer, { token: 'old', tokenFile: path.join(folder, 'token') });
    await s.client.get(NODES, { name: 'n1' });
    assert.equal(s.seen[0]!.headers.authorization, 'Bearer from-file');
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('a refusal is an ApiError with the Status of the server, or with what a proxy said', async () => {
  await using s = await serve((request, response) => {
    if (request.url!.endsWith('/gone')) {
      response.writeHead(410).end('{"kind":"Status","code":410,"reason":"Expired","message":"too old"}');
    } else if (request.url!.endsWith('/busy')) {
      response.writeHead(429, { 'retry-after': '3' }).end('{"kind":"Status","code":429,"message":"busy"}');
    } else response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>\nNot here</h1>');
  });
  await assert.rejects(s.client.get(NODES, { name: 'gone' }), (e) => isGone(e) && e.message === 'too old');
  await assert.rejects(
    s.client.get(NODES, { name: 'x' }),
    (e) => isNotFound(e) && /Not here/.test(e.message),
  );
  await assert.rejects(s.client.get(NODES, { name: 'busy' }), (e) => {
    assert.ok(e instanceof ApiError);
    assert.equal(e.status.details?.retryAfterSeconds, 3);
    return true;
  });
});

test('no connection, no answer, a cut answer: WEFT_API_UNREACHABLE, naming request and reason', async () => {
  const unused = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => unused.once('listening', resolve));
  const { port } = unused.address() as AddressInfo;
  await new Promise((resolve) => unused.close(resolve));
  const nobody = new HttpApiClient({ server: `http://127.0.0.1:${port}`, namespace: 'default' });
  await assert.rejects(nobody.get(NODES, { name: 'n1' }), (e) => {
    assert.ok(isWeftError(e, 'WEFT_API_UNREACHABLE'));
    assert.match(e.message, /^GET http:\/\/127\.0\.0\.1:\d+\/api\/v1\/nodes\/n1: .*ECONNREFUSED/);
    assert.equal(e.details.code, 'ECONNREFUSED');
    return true;
  });
  nobody.close();
  await using mute = await serve(() => {}, { timeoutMs: 30 });
  await assert.rejects(
    mute.client.list(NODES),
    (e) => isWeftError(e, 'WEFT_API_UNREACHABLE') && /no answer within 30 ms/.test(e.message),
  );
  await assert.rejects(async () => {
    for await (const _ of mute.client.watch(NODES));
  }, /no answer within 30 ms/);
  await using cut = await serve((_, response) => {
    response.writeHead(200, { 'content-length': '100' });
    response.write('{', () => response.destroy());
  });
  await assert.rejects(cut.client.list(NODES), (e) => isWeftError(e, 'WEFT_API_UNREACHABLE'));
});

test('a kept connection that the server has closed meanwhile costs a GET nothing', async () => {
  await using s = await serve((request, response) => {
    answer(request, response, '');
    // Closed without a word after the answer, so that the next request finds a dead connection.
    response.on('finish', () => request.socket.resetAndDestroy());
  });
  for (let i = 0; i < 20; i++) await s.client.get(NODES, { name: 'n1' });
});

test('nonsense is WEFT_API_MALFORMED: no JSON, no object, too large', async () => {
  const bodies = ['<html>', '7', `"${'x'.repeat(2000)}"`];
  await using s = await serve((_, response) => response.end(bodies.shift()), { maxBodyBytes: 1000 });
  for (const message of [/not JSON: <html>/, /no object: 7/, /exceeds 1000 bytes/]) {
    await assert.rejects(
      s.client.get(NODES, { name: 'n1' }),
      (e) => isWeftError(e, 'WEFT_API_MALFORMED') && message.test(e.message),
    );
  }
});

test('the caller can abort a request and a watch, and close the client', async () => {
  await using s = await serve((request, response) => {
    if (request.url!.includes('watch')) response.writeHead(200).flushHeaders();
  });
  const reason = new Error('enough');
  const controller = new AbortController();
  const listing = s.client.list(NODES, { signal: controller.signal });
  const opened = Promise.withResolvers<void>();
  const watching = (async () => {
    for await (const _ of s.client.watch(NODES, { signal: controller.signal, onOpen: opened.resolve }));
    return 'ended';
  })();
  await opened.promise;
  controller.abort(reason);
  await assert.rejects(listing, reason);
  assert.equal(await watching, 'ended');
  const open = s.client.get(NODES, { name: 'n1' });
  s.client.close();
  await assert.rejects(open, (e) => isWeftError(e, 'WEFT_CLOSED'));
  await assert.rejects(s.client.get(NODES, { name: 'n1' }), (e) => isWeftError(e, 'WEFT_CLOSED'));
});

test('after reconnect, watches have failed, requests under way too, and new ones go by new connections', async () => {
  const arrived = Promise.withResolvers<void>();
  await using s = await serve((request, response, body) => {
    if (request.url!.includes('watch')) response.writeHead(200).flushHeaders();
    else if (request.method === 'POST') arrived.resolve();
    else answer(request, response, body);
  });
  const opened = Promise.withResolvers<void>();
  const watching = (async () => {
    for await (const _ of s.client.watch(NODES, { onOpen: opened.resolve }));
  })();
  const creating = s.client.create(PODS, pod('p'));
  await s.client.list(NODES);
  await Promise.all([opened.promise, arrived.promise]);
  const before = s.connections;
  s.client.reconnect();
  for (const cut of await Promise.allSettled([watching, creating]))
    assert.ok(cut.status === 'rejected' && isWeftError(cut.reason, 'WEFT_API_UNREACHABLE'));
  await s.client.list(NODES);
  assert.equal(s.connections, before + 1);
});

test('a watch left by its reader ends its connection', async () => {
  const server = new FakeApiServer();
  const client = new HttpApiClient({ server: await server.listen(), namespace: 'default' });
  server.put('a', '1');
  for await (const event of client.watch(CONFIGMAPS, { resourceVersion: '1' })) {
    assert.equal(event.type, 'ADDED');
    break;
  }
  const deadline = Date.now() + 5000;
  while (server.watchers > 0 && Date.now() < deadline) await new Promise((resolve) => setImmediate(resolve));
  assert.equal(server.watchers, 0);
  client.close();
  await server.close();
});

test('property: a watch gives whole events, or an error with a name, whatever the bytes', async () => {
  let bytes: Uint8Array[] = [];
  await using s = await serve(
    (_, response) => {
      response.writeHead(200);
      for (const chunk of bytes) response.write(chunk);
      response.end();
    },
    { maxLineBytes: 200 },
  );
  const event = fc
    .string({ unit: 'grapheme', maxLength: 20 })
    .map((name) => JSON.stringify({ type: 'ADDED', object: { metadata: { name } } }));
  const line = fc.oneof(
    { weight: 5, arbitrary: event },
    fc.constantFrom(
      '',
      'null',
      '[]',
      '{"type":"ADDED"}',
      '{"type":"X","object":{}}',
      'x'.repeat(201),
      '{"type":',
    ),
    fc.string({ unit: 'binary' }),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(line, { maxLength: 8 }),
      fc.integer({ min: 1, max: 64 }),
      async (lines, size) => {
        const all = Buffer.from(lines.map((text) => `${text}\n`).join(''));
        bytes = [];
        for (let at = 0; at < all.length; at += size) bytes.push(all.subarray(at, at + size));
        let good = 0;
        try {
          for await (const found of s.client.watch(NODES)) {
            assert.equal(found.type, 'ADDED');
            good++;
          }
          assert.equal(good, lines.filter((text) => text.startsWith('{"type":"ADDED","object"')).length);
        } catch (error) {
          assert.ok(isWeftError(error, 'WEFT_API_MALFORMED'), String(error));
        }
      },
    ),
    { numRuns: 60 },
  );
});

test('TLS: server and client are who their certificates say, or there is no conversation', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'weft-tls-'));
  const other = await mkdtemp(path.join(tmpdir(), 'weft-tls-'));
  try {
    const ca = await ensureCa(folder);
    const pair = await ensureServerCertificate(folder, ca, ['127.0.0.1']);
    const user = await issueClient(folder, { user: 'weft', groups: [] });
    const server = new FakeApiServer({ ...pair, ca: ca.cert, requestCert: true, rejectUnauthorized: true });
    const base = { server: await server.listen(), namespace: 'default' };
    server.put('a', '1');
    const good = new HttpApiClient({ ...base, ca: ca.cert, ...user });
    for (let i = 0; i < 3; i++) assert.equal((await good.list(CONFIGMAPS)).items.length, 1);
    assert.equal(server.connections, 1);
    for await (const event of good.watch(CONFIGMAPS, { resourceVersion: '1' })) {
      assert.equal(event.type, 'ADDED');
      break;
    }
    const stranger = new HttpApiClient({ ...base, ca: (await ensureCa(other)).cert, ...user });
    await assert.rejects(stranger.list(CONFIGMAPS), (e) => isWeftError(e, 'WEFT_API_UNREACHABLE'));
    const nameless = new HttpApiClient({ ...base, ca: ca.cert });
    await assert.rejects(nameless.list(CONFIGMAPS), (e) => isWeftError(e, 'WEFT_API_UNREACHABLE'));
    const misnamed = new HttpApiClient({ ...base, ca: ca.cert, ...user, tlsServerName: 'elsewhere' });
    await assert.rejects(misnamed.list(CONFIGMAPS), (e) => isWeftError(e, 'WEFT_API_UNREACHABLE'));
    for (const client of [good, stranger, nameless, misnamed]) client.close();
    await server.close();
  } finally {
    await rm(folder, { recursive: true });
    await rm(other, { recursive: true });
  }
});
