import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serveHealth } from './http.ts';
import { createMetrics } from './metrics.ts';

test('health, readiness with its reasons, metrics, and nothing else', async () => {
  const problems: string[] = ['the node has no pod CIDR yet'];
  const metrics = createMetrics('n1');
  metrics.attachments.set(3);
  await using server = await serveHealth(
    '127.0.0.1',
    0,
    { live: () => [], ready: () => problems },
    metrics.registry,
  );
  const get = async (path: string, method = 'GET') => {
    const response = await fetch(`http://127.0.0.1:${server.port}${path}`, { method });
    return [response.status, await response.text()] as const;
  };
  assert.deepEqual(await get('/healthz'), [200, 'ok\n']);
  assert.deepEqual(await get('/readyz'), [503, 'the node has no pod CIDR yet\n']);
  problems.pop();
  assert.deepEqual(await get('/readyz'), [200, 'ok\n']);
  assert.match((await get('/metrics'))[1], /weft_attachments\{node="n1"\} 3/);
  assert.equal((await get('/etc/passwd'))[0], 404);
  assert.equal((await get('/healthz', 'POST'))[0], 405);
  await assert.rejects(
    serveHealth('127.0.0.1', server.port, { live: () => [], ready: () => [] }, metrics.registry),
    { code: 'WEFT_BAD_CONFIG' },
  );
});
