import assert from 'node:assert/strict';
import os from 'node:os';
import { after, before, describe, test } from 'node:test';
import { dial, hostPort } from './dial.ts';
import { type Netexec, netexec, parseOptions } from './server.ts';

let server: Netexec;
before(async () => {
  server = await netexec({ http: 0, udp: 0, tcp: 0 });
});
after(() => server.close());

const get = async (path: string): Promise<{ code: number; body: string }> => {
  const response = await fetch(`http://127.0.0.1:${server.ports.http}${path}`);
  return { code: response.status, body: await response.text() };
};

describe('HTTP', () => {
  const cases: Array<[path: string, code: number, body: string | RegExp]> = [
    ['/healthz', 200, ''],
    ['/hostname', 200, os.hostname()],
    ['/clientip', 200, /^127\.0\.0\.1:\d+$/],
    ['/echo?msg=hello%20there', 200, 'hello there'],
    ['/echo?msg=gone&code=410', 410, 'gone'],
    ['/echo?code=7', 400, /code must be/],
    ['/exit?code=nine', 400, /code must be/],
    ['/header?key=HOST', 200, /^127\.0\.0\.1/],
    ['/nothing', 404, /unknown path/],
    ['/dial?host=127.0.0.1', 400, /port must be/],
    ['/dial?host=127.0.0.1&port=80&protocol=gopher', 400, /protocol must be/],
    ['/dial?host=127.0.0.1&port=80&tries=1000000', 400, /tries must be/],
  ];
  for (const [path, code, body] of cases) {
    test(path, async () => {
      const found = await get(path);
      assert.equal(found.code, code);
      if (typeof body === 'string') assert.equal(found.body, body);
      else assert.match(found.body, body);
    });
  }

  for (const host of ['127.0.0.1', '::1']) {
    for (const protocol of ['http', 'tcp', 'udp'] as const) {
      test(`/dial ${protocol} ${host}: the peer sees the address that the dialer has`, async () => {
        const port = server.ports[protocol];
        const { body } = await get(
          `/dial?host=${host}&port=${port}&protocol=${protocol}&request=clientip&tries=2&local=true`,
        );
        const { responses, locals, errors } = JSON.parse(body) as Record<string, string[]>;
        assert.equal(errors, undefined);
        assert.equal(responses?.length, 2);
        assert.deepEqual(responses, locals);
        assert.ok(responses?.[0]?.startsWith(host === '::1' ? '[::1]:' : '127.0.0.1:'));
      });
    }
  }

  test('/dial reports what failed in `errors`', async () => {
    const closed = await netexec({ http: 0, udp: -1, tcp: -1 });
    await closed.close();
    const { body } = await get(
      `/dial?host=127.0.0.1&port=${closed.ports.http}&protocol=http&request=hostname`,
    );
    const { responses, errors } = JSON.parse(body) as Record<string, string[]>;
    assert.deepEqual(responses, []);
    assert.match(errors?.[0] ?? '', /ECONNREFUSED/);
  });
});

test('TCP and UDP echo', async () => {
  for (const protocol of ['tcp', 'udp'] as const) {
    const ask = (text: string): Promise<{ response?: string }> =>
      dial(protocol, '127.0.0.1', server.ports[protocol], text, 2000);
    assert.equal((await ask('echo hello')).response, 'hello');
    assert.equal((await ask('hostname')).response, os.hostname());
    assert.equal((await ask('anything else')).response, 'anything else');
  }
});

test('dial gives up in time', async () => {
  const silent = (await import('node:net')).createServer();
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const { port } = silent.address() as { port: number };
  assert.match((await dial('tcp', '127.0.0.1', port, 'echo', 50)).error ?? '', /timed out/);
  silent.close();
});

test('addresses and options', () => {
  assert.equal(hostPort('::ffff:10.0.0.1', 80), '10.0.0.1:80');
  assert.equal(hostPort('fd00::1', 80), '[fd00::1]:80');
  assert.deepEqual(parseOptions(['--a=1', 'x', '--b', '2'], ['a', 'b']), {
    options: { a: '1', b: '2' },
    positional: ['x'],
  });
  assert.throws(() => parseOptions(['--c=1'], ['a']), /--c=1/);
});
