/** The server as a process: listening, restarting, dying. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import type { KindDeclaration } from '../api/kind-declaration.ts';
import { KINDS } from '../api/kinds.ts';
import { subdomainNameProblem } from '../api/names.ts';
import { bool, int, object, str } from '../api/schema.ts';
import { kindSchema } from '../api/schemas/meta.ts';
import { isWeftError } from '../base/errors.ts';
import { silentLogger } from '../base/log.ts';
import { issueClient } from './pki.ts';
import { startApiServer } from './server.ts';
import { startTestServer, TestClient } from './testing/test-server.ts';

const CMS = '/api/v1/namespaces/default/configmaps';

const SERVE = join(import.meta.dirname, 'testing/serve.ts');

/** What testing/serve.ts says once it listens. */
function announcement(child: ChildProcess): Promise<{ url: string; second: string; ca: string }> {
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
    child.stdout?.once('data', (chunk) => resolve(JSON.parse(String(chunk))));
  });
}

describe('API server', () => {
  it('listens on an address, and on a descriptor that a parent opened', { timeout: 20_000 }, async () => {
    const parent = createServer();
    await new Promise<void>((resolve) => parent.listen(0, '127.0.0.1', resolve));
    const { port } = parent.address() as { port: number };
    const { fd } = (parent as unknown as { _handle: { fd: number } })._handle;
    const dir = mkdtempSync(join(tmpdir(), 'weft-apiserver-fd-'));
    const child = spawn(process.execPath, [SERVE, dir, '3'], { stdio: ['ignore', 'pipe', 'inherit', fd] });
    parent.close();
    try {
      const { url, second, ca } = await announcement(child);
      assert.equal(new URL(url).port, String(port));
      const pair = await issueClient(join(dir, 'pki'), {
        user: 'kubernetes-admin',
        groups: ['system:masters'],
      });
      for (const address of [url, second]) {
        const client = new TestClient(address, ca, pair);
        assert.equal((await client.get('/readyz')).text, 'ok');
        client.close();
      }
    } finally {
      child.kill('SIGKILL');
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it('keeps objects, CA and certificates over a restart; a second server is refused', async () => {
    const first = await startTestServer();
    const { ca, pkiDir } = first.server;
    await first.admin.post(CMS, { metadata: { name: 'kept' }, data: { a: 'b' } });
    const options = {
      dataDir: first.dir,
      listen: [{ host: '127.0.0.1', port: 0 }],
      advertise: [],
      logger: silentLogger,
    };
    await assert.rejects(startApiServer(options), (e) => isWeftError(e, 'WEFT_STORE_LOCKED'));
    const watch = await first.admin.watch(`${CMS}?watch=1`);
    await first.server.close();
    await first.server.close();
    const deadline = Date.now() + 5000;
    while (!watch.ended) {
      assert.ok(Date.now() < deadline, 'watches are ended');
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const second = await startApiServer(options);
    try {
      assert.equal(second.ca, ca);
      const pair = await issueClient(pkiDir, { user: 'kubernetes-admin', groups: ['system:masters'] });
      const client = new TestClient(second.url, second.ca, pair);
      assert.equal((await client.get(`${CMS}/kept`)).json.data.a, 'b');
      client.close();
      const taken = {
        ...options,
        dataDir: join(first.dir, 'other'),
        listen: [{ host: '127.0.0.1', port: second.port }],
      };
      await assert.rejects(startApiServer(taken), (e) => isWeftError(e, 'WEFT_API_LISTEN'));
    } finally {
      await second.close();
      await first.close();
    }
  });

  it('loses nothing acknowledged when killed with -9 under writes', { timeout: 60_000 }, async () => {
    const dir = mkdtempSync(join(tmpdir(), 'weft-apiserver-kill-'));
    const acknowledged = new Set<string>();
    try {
      for (let round = 0; round < 4; round++) {
        const child = spawn(process.execPath, [SERVE, dir], { stdio: ['ignore', 'pipe', 'inherit'] });
        const { url, ca } = await announcement(child);
        const pair = await issueClient(join(dir, 'pki'), {
          user: 'kubernetes-admin',
          groups: ['system:masters'],
        });
        const client = new TestClient(url, ca, pair);
        const { json } = await client.get(CMS);
        const found = new Set(json.items.map((i: { metadata: { name: string } }) => i.metadata.name));
        for (const name of acknowledged) assert.ok(found.has(name), `${name} is there in round ${round}`);
        setTimeout(() => child.kill('SIGKILL'), 50 + Math.random() * 150);
        const exited = new Promise((resolve) => child.once('close', resolve));
        const writer = async (lane: number): Promise<void> => {
          for (let i = 0; ; i++) {
            const name = `r${round}-${lane}-${i}`;
            const answer = await client.post(CMS, { metadata: { name } }).catch(() => undefined);
            if (answer?.code !== 201) return;
            acknowledged.add(name);
          }
        };
        await Promise.all([0, 1, 2, 3].map(writer));
        await exited;
        client.close();
      }
      assert.ok(acknowledged.size > 20, `${acknowledged.size} writes were acknowledged`);
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  });

  it('serves a new kind from its declaration alone', async () => {
    const widget: KindDeclaration = {
      group: 'example.com',
      version: 'v1',
      kind: 'Widget',
      plural: 'widgets',
      singular: 'widget',
      shortNames: ['wd'],
      categories: [],
      namespaced: true,
      storage: 'example.com/widgets',
      schema: kindSchema('com.example.v1.Widget', 'A thing.', {
        'spec!': object('What it is to be.', {
          'size!': int('In mm.', { minimum: 1 }),
          colour: str('', { default: 'red' }),
        }),
        status: object('How it is.', { painted: bool() }),
      }),
      statusSubresource: true,
      columns: [
        {
          name: 'Name',
          type: 'string',
          description: 'Its name.',
          priority: 0,
          value: (w) => w.metadata.name,
        },
      ],
      fieldLabels: {},
      nameProblem: subdomainNameProblem,
    };
    const server = await startTestServer({ kinds: [...KINDS, widget] });
    try {
      const { admin } = server;
      const path = '/apis/example.com/v1/namespaces/default/widgets';
      const made = await admin.post(path, {
        metadata: { name: 'w' },
        spec: { size: 3 },
        status: { painted: true },
      });
      assert.deepEqual(
        [made.code, made.json.spec, made.json.status],
        [201, { size: 3, colour: 'red' }, undefined],
      );
      assert.equal((await admin.post(path, { metadata: { name: 'x' }, spec: { size: 0 } })).code, 422);
      const painted = await admin.patch(`${path}/w/status`, { status: { painted: true } });
      assert.deepEqual(painted.json.status, { painted: true });
      const { resources } = (await admin.get('/apis/example.com/v1')).json;
      assert.deepEqual(
        resources.map((r: { name: string }) => r.name),
        ['widgets', 'widgets/status'],
      );
      const openApi = (await admin.get('/openapi/v3/apis/example.com/v1')).json;
      assert.equal(openApi.components.schemas['com.example.v1.Widget'].required[0], 'spec');
    } finally {
      await server.close();
    }
  });
});
