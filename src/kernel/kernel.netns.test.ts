import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import net from 'node:net';
import { after, before, test } from 'node:test';
import { isWeftError } from '../base/errors.ts';
import { openKernel, ThreadedKernel } from './kernel.ts';
import { ip, openDescriptors, ScratchNamespaces, until } from './testing/scratch.ts';
import type { KernelEvent, Op, Step } from './types.ts';

const scratch = new ScratchNamespaces('kernel');
let kernel: ThreadedKernel;
before(async () => {
  kernel = (await openKernel()) as ThreadedKernel;
});
after(async () => {
  await kernel[Symbol.asyncDispose]();
  scratch.remove();
});

const bridge = (name: string): Op => ({ op: 'link.create', link: { kind: 'link', name, type: 'bridge' } });
const route = (dst: string, dev = 'br0'): Op => ({ op: 'route.replace', route: { kind: 'route', dst, dev } });
const create = async (): Promise<string> => (await kernel.netnsCreate(scratch.path())).path;
/** Run a program in a Node of its own; resolves with what it printed and how it ended, within the time. */
async function nodeProgram(
  source: string,
  ms = 10_000,
): Promise<{ out: string; code: number | null; signal: string | null }> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    cwd: import.meta.dirname,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let out = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), ms);
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.once('close', (c, s) => resolve([c, s]));
  });
  clearTimeout(timer);
  return { out, code, signal };
}
const importKernel = `const { openKernel } = await import('${import.meta.dirname}/kernel.ts');`;

test('namespaces, through the door', async () => {
  const path = scratch.path();
  const info = await kernel.netnsCreate(path);
  assert.deepEqual(await kernel.netnsInfo(path), info);
  await assert.rejects(kernel.netnsCreate(path), (e) => isWeftError(e, 'WEFT_NETNS_EXISTS'));
  assert.ok((await kernel.netnsList()).some((name) => path.endsWith(`/${name}`)));
  assert.equal(await kernel.netnsDelete(path), true);
  assert.equal(await kernel.netnsDelete(path), false);
  await assert.rejects(kernel.netnsInfo(path), (e) => isWeftError(e, 'WEFT_NETNS_NOT_FOUND'));
  await assert.rejects(kernel.dump(path, ['link']), (e) => isWeftError(e, 'WEFT_NETNS_NOT_FOUND'));
});

test('must throws what run reports', async () => {
  const ns = await create();
  await kernel.must([{ ns, ops: [bridge('br0'), { op: 'link.delete', name: 'nobody' }] }]);
  await assert.rejects(kernel.must([{ ns, ops: [bridge('br0')] }]), (e) => {
    assert.ok(isWeftError(e, 'WEFT_NETLINK_REFUSED'));
    assert.match(e.message, /cannot create bridge br0 in .*: EEXIST: File exists/);
    assert.equal(e.details.errnoName, 'EEXIST');
    return true;
  });
  await assert.rejects(kernel.must([{ ns: `${ns}-no`, ops: [bridge('br0')] }]), (e) =>
    isWeftError(e, 'WEFT_NETNS_NOT_FOUND'),
  );
  await assert.rejects(
    kernel.must([{ ns, ops: [{ op: 'link.create', link: { kind: 'link', name: 'x', type: 'nosuch' } }] }]),
    (e) => isWeftError(e, 'WEFT_KERNEL_FEATURE_MISSING'),
  );
  await assert.rejects(
    kernel.run([{ ns, ops: [{ op: 'no.such.op' } as unknown as Op] }]).then((r) => {
      throw new Error(r.failures[0]?.message ?? 'accepted');
    }),
  );
});

test('300 programs at once, each in a namespace of its own', async () => {
  const before = openDescriptors();
  const paths = await Promise.all(Array.from({ length: 30 }, () => create()));
  const loopback = (i: number): Op => ({
    op: 'address.replace',
    address: { kind: 'address', dev: 'lo', address: `10.0.0.${i}/32` },
  });
  const results = await Promise.all(
    Array.from({ length: 300 }, (_, i) =>
      kernel.run([{ ns: paths[i % 30]!, ops: [loopback(Math.floor(i / 30))] }]),
    ),
  );
  assert.deepEqual(
    results.filter((r) => r.failures.length),
    [],
  );
  for (const ns of paths) {
    const found = await kernel.dump(ns, ['address'], { family: 4 });
    assert.deepEqual(
      found.map((a) => a.kind === 'address' && a.address).sort(),
      ['127.0.0.1/8', ...Array.from({ length: 10 }, (_, i) => `10.0.0.${i}/32`)].sort(),
    );
  }
  assert.deepEqual(
    new Set(await Promise.all(paths.map((path) => kernel.netnsDelete(path)))),
    new Set([true]),
  );
  assert.equal(openDescriptors(), before);
});

test('attaching does not wait for deletions', async () => {
  const ns = await create();
  const veths: Op[] = Array.from({ length: 12 }, (_, i) => ({
    op: 'link.create',
    link: { kind: 'link', name: `v${i}`, type: 'veth', peer: { name: `w${i}` } },
  }));
  await kernel.must([{ ns, ops: veths }]);
  const order: string[] = [];
  const deletions = kernel
    .must([{ ns, ops: veths.map((_, i): Op => ({ op: 'link.delete', name: `v${i}` })) }])
    .then(() => order.push('deleted'));
  await kernel.must([{ ns, ops: [bridge('br0')] }]);
  order.push('created');
  await deletions;
  assert.deepEqual(order, ['created', 'deleted']);
  assert.deepEqual(
    (await kernel.dump(ns, ['link'])).map((l) => l.kind === 'link' && l.name),
    ['lo', 'br0'],
  );
});

test('watch, dump, and nothing is missed in between', async () => {
  const ns = await create();
  await kernel.must([{ ns, ops: [bridge('br0'), { op: 'link.set', link: { name: 'br0', up: true } }] }]);
  const events: KernelEvent[] = [];
  const watch = await kernel.watch(ns, { kinds: ['route'] }, (batch) => events.push(...batch));
  await kernel.must([{ ns, ops: [route('10.1.0.0/16')] }]);
  ip(ns, 'route', 'del', '10.1.0.0/16');
  const seen = (): string[] =>
    events.flatMap((e) =>
      'object' in e && e.object.kind === 'route' ? [`${e.type} ${e.object.dst} ${e.own}`] : [],
    );
  await until('both events', () => seen().length === 2);
  assert.deepEqual(seen(), ['new 10.1.0.0/16 true', 'delete 10.1.0.0/16 false']);
  await watch.close();
  await watch.close();
  await kernel.must([{ ns, ops: [route('10.2.0.0/16')] }]);
  await kernel.dump(ns, ['route']);
  assert.equal(seen().length, 2);
});

test('a watch for what others do hears nothing of ourselves', async () => {
  const ns = await create();
  await kernel.must([{ ns, ops: [bridge('br0'), { op: 'link.set', link: { name: 'br0', up: true } }] }]);
  const heard: string[] = [];
  const watch = await kernel.watch(ns, { kinds: ['route'], foreignOnly: true }, (batch) => {
    for (const e of batch)
      if ('object' in e && e.object.kind === 'route') heard.push(`${e.type} ${e.object.dst}`);
  });
  await kernel.must([{ ns, ops: [route('10.1.0.0/16')] }]);
  ip(ns, 'route', 'del', '10.1.0.0/16');
  await until('the deletion', () => heard.includes('delete 10.1.0.0/16'));
  assert.ok(!heard.includes('new 10.1.0.0/16'));
  await watch.close();
});

test('a thread that dies rejects what was under way, and the next call has a new one', async () => {
  const own = new ThreadedKernel();
  try {
    await own.netnsInfo('');
    const path = await create();
    const pending = Array.from({ length: 50 }, () => own.dump(path, ['link', 'route', 'rule']));
    const outcomes = Promise.allSettled(pending);
    await own.crash();
    for (const outcome of await outcomes) {
      if (outcome.status === 'rejected')
        assert.ok(isWeftError(outcome.reason, 'WEFT_KERNEL_WORKER_DIED'), String(outcome.reason));
    }
    assert.ok((await outcomes).some((o) => o.status === 'rejected'));
    assert.equal((await own.dump(path, ['link'])).length, 1);
  } finally {
    await own[Symbol.asyncDispose]();
  }
  await assert.rejects(own.netnsInfo(''), (e) => isWeftError(e, 'WEFT_KERNEL_WORKER_DIED'));
});

test('watches outlive their thread, and are told to look again', async () => {
  const own = new ThreadedKernel();
  try {
    const ns = await create();
    await kernel.must([{ ns, ops: [bridge('br0'), { op: 'link.set', link: { name: 'br0', up: true } }] }]);
    const events: KernelEvent[] = [];
    const watch = await own.watch(ns, { kinds: ['route'] }, (batch) => events.push(...batch));
    for (let death = 1; death <= 2; death++) {
      await own.crash();
      await until('resync', () => events.filter((e) => e.type === 'resync').length === death);
      const dst = `10.${death}.0.0/16`;
      await kernel.must([{ ns, ops: [route(dst)] }]);
      await until('the event after the restart', () =>
        events.some((e) => e.type === 'new' && e.object.kind === 'route' && e.object.dst === dst),
      );
    }
    await watch.close();
  } finally {
    await own[Symbol.asyncDispose]();
  }
});

test('a program that ends, ends: whatever the thread waits for', async () => {
  const idle = await nodeProgram(`${importKernel} await openKernel(); console.log('ready');`);
  assert.deepEqual(idle, { out: 'ready\n', code: 0, signal: null });
  const exits = await nodeProgram(
    `${importKernel} const k = await openKernel(); await k.watch('', { kinds: ['link'] }, () => {}); console.log('ready'); process.exit(3);`,
  );
  assert.deepEqual(exits, { out: 'ready\n', code: 3, signal: null });
  const throws = await nodeProgram(
    `${importKernel} const k = await openKernel(); await k.features(); process.on('uncaughtException', () => process.exit(4)); setTimeout(() => { throw new Error('x'); });`,
  );
  assert.equal(throws.code, 4);
});

test('an open watch keeps the program alive; closing it lets it end', async () => {
  const result = await nodeProgram(`${importKernel}
    const k = await openKernel();
    const w = await k.watch('', { kinds: ['link'] }, () => {});
    let beforeExit = false;
    setTimeout(() => { console.log('closing'); void w.close(); }, 300).unref();
    process.on('beforeExit', () => console.log('end'));`);
  assert.deepEqual(result, { out: 'closing\nend\n', code: 0, signal: null });
});

test('TCP sockets of a namespace, served and used by Node', async () => {
  const ns = await create();
  for (const address of ['127.0.0.1', '::1']) {
    const fd = await kernel.listenTcp(ns, address, 8080);
    const server = net.createServer((socket) => socket.end(`hello from ${socket.localAddress}`));
    await new Promise<void>((resolve) => server.listen({ fd }, resolve));
    await assert.rejects(
      kernel.listenTcp(ns, address, 8080),
      (e) => isWeftError(e, 'WEFT_SYSCALL_FAILED') && e.details.errnoName === 'EADDRINUSE',
    );
    const client = new net.Socket({
      fd: await kernel.connectTcp(ns, address, 8080),
      readable: true,
      writable: true,
    });
    let said = '';
    client.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await new Promise((resolve, reject) => client.once('close', resolve).once('error', reject));
    assert.equal(said, `hello from ${address}`);
    await new Promise((resolve) => server.close(resolve));
  }
  await assert.rejects(
    kernel.listenTcp(ns, '192.0.2.1', 1),
    (e) => isWeftError(e, 'WEFT_SYSCALL_FAILED') && e.details.errnoName === 'EADDRNOTAVAIL',
  );
  await assert.rejects(
    kernel.connectTcp(ns, '192.0.2.1', 1),
    (e) => isWeftError(e, 'WEFT_SYSCALL_FAILED') && e.details.errnoName === 'ENETUNREACH',
  );
  await assert.rejects(kernel.listenTcp(ns, '127.0.0.1', 65536), (e) => isWeftError(e, 'WEFT_BAD_CONFIG'));
});

test('sysctls, routes and features', async () => {
  const ns = await create();
  const steps: Step[] = [
    {
      ns,
      ops: [
        bridge('br0'),
        { op: 'sysctl.write', path: 'net/ipv4/ip_forward', value: 1 },
        { op: 'sysctl.write', path: 'net/ipv4/conf/br0/rp_filter', value: '2' },
        { op: 'link.set', link: { name: 'br0', up: true } },
        { op: 'address.replace', address: { kind: 'address', dev: 'br0', address: '10.0.0.1/24' } },
        route('10.8.0.0/16'),
      ],
    },
  ];
  await kernel.must(steps);
  assert.equal(await kernel.sysctlRead(ns, 'net/ipv4/ip_forward'), '1');
  assert.equal(await kernel.sysctlRead(ns, 'net/ipv4/conf/br0/rp_filter'), '2');
  assert.deepEqual(await kernel.routeTo(ns, '10.8.1.1'), {
    kind: 'route',
    dst: '10.8.0.0/16',
    table: 254,
    protocol: 87,
    scope: 'link',
    dev: 'br0',
  });
  await assert.rejects(kernel.routeTo(ns, '192.0.2.1'), /no route to 192\.0\.2\.1: ENETUNREACH/);
  const { has, release } = await kernel.features();
  assert.match(release, /^\d+\./);
  for (const name of ['netns', 'veth', 'nf_tables', 'nft_fib', 'nft_nat', 'conntrack'])
    assert.equal(has[name], true, name);
});

test('a dump that changes interrupt is whole', async () => {
  const ns = await create();
  const other = new ThreadedKernel();
  try {
    const count = 1500;
    const all = Array.from({ length: count }, (_, i) => `10.${i >> 8}.${i & 255}.0/24`);
    await kernel.must([
      {
        ns,
        ops: [
          bridge('br0'),
          { op: 'link.set', link: { name: 'br0', up: true } },
          ...all.map((dst) => route(dst)),
        ],
      },
    ]);
    let busy = true;
    const churn = (async () => {
      while (busy) {
        await other.must([
          {
            ns,
            ops: [
              bridge('br1'),
              route('10.200.0.0/24'),
              { op: 'route.delete', route: { kind: 'route', dst: '10.200.0.0/24' } },
              { op: 'link.set', link: { name: 'br1' }, rename: 'br2' },
            ],
          },
        ]);
        await other.must([{ ns, ops: [{ op: 'link.delete', name: 'br2' }] }]);
      }
    })();
    for (let i = 0; i < 20; i++) {
      const routes = await kernel.dump(ns, ['route'], { protocol: 87, family: 4 });
      const found = new Set(routes.map((r) => r.kind === 'route' && r.dst));
      assert.equal(all.filter((dst) => !found.has(dst)).length, 0);
      assert.equal(found.size, routes.length);
    }
    busy = false;
    await churn;
  } finally {
    await other[Symbol.asyncDispose]();
  }
});
