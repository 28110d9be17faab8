import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import type { CniBackend } from './backend.ts';
import { decodeRequest, encodeAnswer, encodeRequest } from './frame.ts';
import { attachedMarker, CniServer } from './server.ts';
import { Spool, type SpooledDel } from './spool.ts';
import type { AddRequest } from './types.ts';

const home = path.join(import.meta.dirname, '../..');
const shim = path.join(home, 'build/weft-cni');
const folder = mkdtempSync(path.join(os.tmpdir(), 'weft-shim-'));
before(() => execFileSync('sh', [path.join(home, 'scripts/build.sh')]));
after(() => rmSync(folder, { recursive: true }));

let places = 0;
/** A socket and a spool of a test's own. */
function place() {
  const dir = path.join(folder, String(places++));
  mkdirSync(dir);
  return { dir, socket: path.join(dir, 's'), spool: path.join(dir, 'deep/spool') };
}
type Place = ReturnType<typeof place>;

interface Answer {
  code: number | null;
  stdout: string;
  ms: number;
}

const ENV = { CNI_CONTAINERID: 'c1', CNI_NETNS: '/run/netns/none', CNI_IFNAME: 'eth0', CNI_PATH: '/x' };

function exec(
  at: Place,
  command: string,
  stdin: string | Buffer,
  env: Record<string, string> = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const began = performance.now();
    const child = spawn(process.env.WEFT_TEST_SHIM ?? shim, [], {
      env: { ...ENV, CNI_COMMAND: command, WEFT_CNI_SOCKET: at.socket, WEFT_CNI_SPOOL: at.spool, ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let stdout = '';
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stdin.on('error', () => {}); // it may refuse to read on
    child.stdin.end(stdin);
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, ms: performance.now() - began }));
  });
}

const CONF = { cniVersion: '1.1.0', name: 'weft', type: 'weft-cni' };
const conf = (more: object = {}): string => JSON.stringify({ ...CONF, ...more });

function fake(overrides: Partial<CniBackend> = {}): CniBackend {
  return {
    add: async (request: AddRequest) => ({
      interfaces: [{ name: request.ifname, sandbox: request.netns }],
      ips: [],
      routes: [],
      dns: {},
    }),
    del: async () => {},
    check: async () => {},
    gc: async () => {},
    status: async () => {},
    ...overrides,
  };
}

test('with an agent: its answer and exit code, for every command', async () => {
  const at = place();
  await using server = new CniServer({ path: at.socket, backend: fake() });
  await server.listen();
  const add = await exec(at, 'ADD', conf());
  assert.equal(add.code, 0, add.stdout);
  assert.deepEqual(JSON.parse(add.stdout).interfaces, [{ name: 'eth0', sandbox: '/run/netns/none' }]);
  for (const [command, more] of [
    ['DEL', {}],
    ['CHECK', { prevResult: {} }],
    ['GC', { 'cni.dev/valid-attachments': [] }],
    ['STATUS', {}],
  ] as const) {
    assert.deepEqual(
      await exec(at, command, conf(more)).then(({ code, stdout }) => [code, stdout]),
      [0, ''],
      command,
    );
  }
  const bad = await exec(at, 'ADD', '{"cniVersion":"1.0.0"}');
  assert.equal(bad.code, 1);
  assert.deepEqual(JSON.parse(bad.stdout), {
    cniVersion: '1.0.0',
    code: 7,
    msg: 'name is missing',
    details: 'WEFT_CNI_BAD_REQUEST',
  });
  assert.equal(statSync(at.socket).mode & 0o777, 0o600);
  const big = await exec(at, 'ADD', conf({ padding: 'x'.repeat(900_000) }));
  assert.equal(big.code, 0, 'a request larger than the socket buffer');
});

test('many at once', async () => {
  const at = place();
  await using server = new CniServer({ path: at.socket, backend: fake() });
  await server.listen();
  const answers = await Promise.all(
    Array.from({ length: 60 }, (_, i) => exec(at, 'ADD', conf(), { CNI_IFNAME: `e${i}` })),
  );
  answers.forEach(({ code, stdout }, i) => {
    assert.equal(code, 0, stdout);
    assert.equal(JSON.parse(stdout).interfaces[0].name, `e${i}`);
  });
});

test('without an agent: 11 for ADD, CHECK and GC, 50 or 51 for STATUS, in the version of the configuration', async () => {
  const at = place();
  for (const command of ['ADD', 'CHECK', 'GC']) {
    const { code, stdout } = await exec(at, command, conf({ cniVersion: '0.4.0' }));
    const answer = JSON.parse(stdout);
    assert.deepEqual(
      [code, answer.cniVersion, answer.code, answer.details],
      [1, '0.4.0', 11, 'WEFT_CNI_NOT_READY'],
    );
    assert.equal(answer.msg, `the Weft agent does not answer on ${at.socket}`);
  }
  assert.equal(JSON.parse((await exec(at, 'STATUS', conf())).stdout).code, 50);
  writeFileSync(attachedMarker(at.socket), '');
  assert.equal(JSON.parse((await exec(at, 'STATUS', conf())).stdout).code, 51);
});

test('VERSION needs nobody', async () => {
  const at = place();
  for (const [stdin, version] of [
    [conf({ cniVersion: '0.3.1' }), '0.3.1'],
    ['', '1.1.0'],
    ['{"a":{"cniVersion":"9.9.9"},"b":["cniVersion","8.8.8"],"cniVersion" : "1.0.0"}', '1.0.0'],
    ['{"cniVersion":"1.0.0\\""}', '1.1.0'],
    ['{"cniVersion":"<script>"}', '1.1.0'],
  ]) {
    const { code, stdout } = await exec(at, 'VERSION', stdin!);
    assert.equal(code, 0);
    assert.deepEqual(JSON.parse(stdout), {
      cniVersion: version,
      supportedVersions: ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'],
    });
  }
});

test('a DEL without an agent is kept, and done before the next ADD', async () => {
  const at = place();
  for (const id of ['a', 'b']) {
    assert.deepEqual(
      await exec(at, 'DEL', conf(), { CNI_CONTAINERID: id }).then(({ code, stdout }) => [code, stdout]),
      [0, ''],
    );
  }
  const files = readdirSync(at.spool);
  assert.equal(files.length, 2);
  assert.deepEqual(decodeRequest(readFileSync(path.join(at.spool, files.sort()[0]!))), {
    env: Object.assign(Object.create(null), ENV, { CNI_COMMAND: 'DEL', CNI_CONTAINERID: 'a' }),
    stdin: conf(),
  });
  // What is being written, and what cannot be read, stands in nobody's way.
  writeFileSync(path.join(at.spool, '.half'), 'WFT');
  writeFileSync(path.join(at.spool, '0-garbage'), 'WFT1 and so on');
  const done: SpooledDel[] = [];
  const spool = new Spool(at.spool);
  const failed = await spool.drain(async (request) => {
    if (request.containerId === 'b') throw new Error('not now');
    done.push(request);
  });
  assert.deepEqual([...done], [{ containerId: 'a', ifname: 'eth0', network: 'weft' }]);
  assert.deepEqual(
    failed.map((f) => [f.containerId, (f.error as Error).message]),
    [['b', 'not now']],
  );
  await spool.drain(async (request) => void done.push(request));
  assert.equal(done.length, 2, 'what failed is tried again');
  assert.deepEqual(readdirSync(at.spool).sort(), ['.half', '0-garbage.bad']);
});

test('a DEL that cannot be kept is an error', async () => {
  const at = place();
  writeFileSync(path.join(at.dir, 'deep'), 'in the way');
  const { code, stdout } = await exec(at, 'DEL', conf());
  assert.deepEqual([code, JSON.parse(stdout).code], [1, 5]);
  for (const name of ['CNI_CONTAINERID', 'CNI_IFNAME']) {
    assert.equal(JSON.parse((await exec(place(), 'DEL', conf(), { [name]: '' })).stdout).code, 4);
  }
});

test('an agent that hangs or dies: told within a second', async () => {
  const behaviours: Record<string, (socket: net.Socket) => void> = {
    'accepts and says nothing': () => {},
    'closes at once': (socket) => socket.destroy(),
    'dies after accepting': (socket) => void socket.write('A', () => socket.destroy()),
    'dies half-way through its answer': (socket) => {
      const answer = Buffer.concat([Buffer.from('A'), encodeAnswer({ exitCode: 0, stdout: '{"x":1}' })]);
      socket.end(answer.subarray(0, answer.length - 3));
    },
    'is something else': (socket) => void socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    'promises gigabytes': (socket) => void socket.end(Buffer.from([65, 0, 0, 0, 0, 255, 255, 255, 255])),
  };
  await Promise.all(
    Object.entries(behaviours).map(async ([name, behave]) => {
      const at = place();
      const sockets = new Set<net.Socket>();
      const server = net.createServer((socket) => {
        sockets.add(socket.on('error', () => {}).resume());
        behave(socket);
      });
      await new Promise<void>((resolve) => server.listen(at.socket, resolve));
      const [add, del] = await Promise.all([exec(at, 'ADD', conf()), exec(at, 'DEL', conf())]);
      assert.deepEqual([add.code, JSON.parse(add.stdout).code], [1, 11], name);
      assert.deepEqual([del.code, del.stdout, readdirSync(at.spool).length], [0, '', 1], name);
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    }),
  );
});

test('paths come from the configuration before the environment', async () => {
  const [real, other] = [place(), place()];
  await using server = new CniServer({ path: real.socket, backend: fake() });
  await server.listen();
  assert.equal((await exec(other, 'ADD', conf({ weftSocket: real.socket }))).code, 0);
  await exec(other, 'DEL', conf({ weftSpool: real.spool }));
  assert.deepEqual([existsSync(other.spool), readdirSync(real.spool).length], [false, 1]);
});

test('bad input is a CNI error, never a crash', async () => {
  const at = place();
  const big = Buffer.alloc((1 << 20) + 1, ' ');
  assert.equal(JSON.parse((await exec(at, 'ADD', big)).stdout).code, 6);
  assert.equal(JSON.parse((await exec(at, '', '')).stdout).code, 4);
  assert.equal(JSON.parse((await exec(at, 'FROB"\n\\', conf())).stdout).code, 4);
  assert.equal(
    JSON.parse((await exec(at, 'ADD', conf(), { CNI_ARGS: 'x'.repeat(100_000) })).stdout).code,
    11,
  );
  for (const socket of [`/${'s'.repeat(300)}`, 'relative']) {
    assert.equal(JSON.parse((await exec({ ...at, socket }, 'ADD', conf())).stdout).code, 7, socket);
    assert.equal(JSON.parse((await exec(at, 'ADD', conf({ weftSocket: socket }))).stdout).code, 7, socket);
  }
  assert.equal(JSON.parse((await exec(at, 'ADD', conf({ weftSocket: '/a"b' }))).stdout).code, 7);
});

test('a stale socket is replaced, a live one is not, and a closed server leaves nothing', async () => {
  const at = place();
  const stale = spawn(
    process.execPath,
    ['-e', `require('net').createServer().listen('${at.socket}',()=>console.log(1))`],
    {
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  );
  await new Promise((resolve) => stale.stdout.once('data', resolve));
  const server = new CniServer({ path: at.socket, backend: fake() });
  await assert.rejects(server.listen(), { code: 'WEFT_CNI_SOCKET_IN_USE' });
  const dead = new Promise((resolve) => stale.once('close', resolve));
  stale.kill('SIGKILL');
  await dead;
  assert.ok(existsSync(at.socket));
  await server.listen();
  assert.equal((await exec(at, 'STATUS', conf())).code, 0);
  await server.close();
  assert.deepEqual(readdirSync(at.dir), []);
  await assert.rejects(new CniServer({ path: `/tmp/${'x'.repeat(120)}`, backend: fake() }).listen(), {
    code: 'WEFT_BAD_CONFIG',
  });
});

/** A client of the test's own: what the server says to these bytes. */
function raw(socket: string, bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const client = net.connect(socket, () => client.write(bytes));
    client.on('data', (chunk) => chunks.push(chunk));
    client.on('error', () => {});
    client.once('close', () => resolve(Buffer.concat(chunks)));
  });
}

test('the server survives broken clients, and tells them', async () => {
  const at = place();
  const answers: string[] = [];
  await using server = new CniServer({
    path: at.socket,
    backend: fake(),
    receiveTimeout: 100,
    onAnswer: ({ command, code }) => answers.push(`${command} ${code}`),
  });
  await server.listen();
  const frame = encodeRequest({ env: { CNI_COMMAND: 'VERSION' }, stdin: conf() });
  assert.match((await raw(at.socket, frame)).subarray(9).toString(), /supportedVersions/);
  assert.equal((await raw(at.socket, frame.subarray(0, 20))).toString(), 'A', 'half a request, then silence');
  const huge = Buffer.from(frame);
  huge.writeUInt32LE(1 << 30, 8);
  for (const bytes of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), huge]) {
    assert.equal(JSON.parse((await raw(at.socket, bytes)).subarray(9).toString()).code, 6);
  }
  assert.equal((await exec(at, 'STATUS', conf())).code, 0);
  assert.deepEqual(answers, ['VERSION 0', 'STATUS 0']);
});

test('beyond its limit the server says come again; what is under way is finished before it closes', async () => {
  const at = place();
  const gate = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const server = new CniServer({
    path: at.socket,
    maxRequests: 1,
    backend: fake({
      del: async () => {
        begun.resolve();
        await gate.promise;
      },
    }),
  });
  await server.listen();
  const first = exec(at, 'DEL', conf());
  await begun.promise;
  assert.equal(JSON.parse((await exec(at, 'ADD', conf())).stdout).code, 11);
  const closed = server.close();
  gate.resolve();
  assert.equal((await first).code, 0);
  await closed;
  assert.ok(!existsSync(at.spool), 'it was answered, not kept');
});
