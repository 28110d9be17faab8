import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WeftError } from '../base/errors.ts';
import type { CniBackend } from './backend.ts';
import { handleCni } from './handle.ts';
import type { CniResult } from './types.ts';

const RESULT: CniResult = {
  interfaces: [
    { name: 'weft0', mac: '02:57:65:66:74:01', mtu: 1450 },
    { name: 'eth0', mac: '02:00:00:00:00:05', mtu: 1450, sandbox: '/run/netns/x' },
  ],
  ips: [
    { address: '10.1.0.5/32', gateway: '169.254.1.1', interface: 1 },
    { address: 'fd00::5/128', gateway: 'fe80::1', interface: 1 },
  ],
  routes: [{ dst: '0.0.0.0/0', gw: '169.254.1.1', mtu: 1400 }],
  dns: {},
};

const backend = (overrides: Partial<CniBackend> = {}): CniBackend => ({
  add: async () => RESULT,
  del: async () => {},
  check: async () => {},
  gc: async () => {},
  status: async () => {},
  ...overrides,
});

async function call(command: string, conf: object, overrides?: Partial<CniBackend>) {
  const env = {
    CNI_COMMAND: command,
    CNI_CONTAINERID: 'c1',
    CNI_NETNS: '/run/netns/x',
    CNI_IFNAME: 'eth0',
  };
  const stdin = JSON.stringify({ name: 'weft', type: 'weft-cni', ...conf });
  const answer = await handleCni({ env, stdin }, backend(overrides));
  return { exitCode: answer.exitCode, output: answer.stdout === '' ? undefined : JSON.parse(answer.stdout) };
}

test('ADD answers in the shape of each version', async () => {
  const ips = (versioned: boolean) => [
    { ...(versioned && { version: '4' }), interface: 1, address: '10.1.0.5/32', gateway: '169.254.1.1' },
    { ...(versioned && { version: '6' }), interface: 1, address: 'fd00::5/128', gateway: 'fe80::1' },
  ];
  const interfaces = (mtu: boolean) => [
    { name: 'weft0', mac: '02:57:65:66:74:01', ...(mtu && { mtu: 1450 }) },
    { name: 'eth0', mac: '02:00:00:00:00:05', ...(mtu && { mtu: 1450 }), sandbox: '/run/netns/x' },
  ];
  for (const cniVersion of ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0']) {
    const latest = cniVersion === '1.1.0';
    assert.deepEqual(await call('ADD', { cniVersion }), {
      exitCode: 0,
      output: {
        cniVersion,
        interfaces: interfaces(latest),
        ips: ips(cniVersion.startsWith('0')),
        routes: [{ dst: '0.0.0.0/0', gw: '169.254.1.1', ...(latest && { mtu: 1400 }) }],
        dns: {},
      },
    });
  }
});

test('after another plugin: its result comes first and the numbers of interfaces go on', async () => {
  const prevResult = {
    cniVersion: '1.0.0',
    interfaces: [{ name: 'dummy0', sandbox: '/run/netns/x' }],
    ips: [{ address: '192.0.2.7/24', interface: 0 }, { address: '192.0.2.8/24' }],
    routes: [{ dst: '192.0.2.0/24' }],
    dns: { nameservers: ['192.0.2.53'] },
  };
  const { output } = await call('ADD', { cniVersion: '1.0.0', prevResult });
  assert.deepEqual(
    output.interfaces.map((i: { name: string }) => i.name),
    ['dummy0', 'weft0', 'eth0'],
  );
  assert.deepEqual(
    output.ips.map((ip: { address: string; interface?: number }) => [ip.address, ip.interface]),
    [
      ['192.0.2.7/24', 0],
      ['192.0.2.8/24', undefined],
      ['10.1.0.5/32', 2],
      ['fd00::5/128', 2],
    ],
  );
  assert.deepEqual(output.routes.length, 2);
  assert.deepEqual(output.dns, prevResult.dns);
});

test('after a plugin that made the same interface: a refusal that says so, before anything is done', async () => {
  const prevResult = { interfaces: [{ name: 'eth0', sandbox: '/run/netns/x' }], ips: [] };
  let added = 0;
  const { exitCode, output } = await call(
    'ADD',
    { cniVersion: '0.4.0', prevResult },
    {
      add: async () => {
        added++;
        return RESULT;
      },
    },
  );
  assert.deepEqual(
    [exitCode, output.cniVersion, output.code, output.details, added],
    [1, '0.4.0', 7, 'WEFT_ATTACH_CONFLICT', 0],
  );
});

test('failures have CNI codes and carry the WEFT code', async () => {
  const fails = (error: unknown) => async () => {
    throw error;
  };
  const table: Array<[unknown, number, RegExp]> = [
    [
      new WeftError('WEFT_IPAM_EXHAUSTED', 'pool 10.1.0.0/24 has no free address'),
      100,
      /^WEFT_IPAM_EXHAUSTED: /,
    ],
    [new WeftError('WEFT_NETNS_NOT_FOUND', 'gone'), 3, /^WEFT_NETNS_NOT_FOUND/],
    [new WeftError('WEFT_CNI_NOT_READY', 'no pod CIDR'), 11, /^WEFT_CNI_NOT_READY/],
    [new WeftError('WEFT_INTERNAL', 'x'), 199, /^WEFT_INTERNAL/],
    [new TypeError('a bug'), 199, /^WEFT_INTERNAL/],
  ];
  for (const [error, code, details] of table) {
    const { exitCode, output } = await call('ADD', { cniVersion: '0.4.0' }, { add: fails(error) });
    assert.deepEqual([exitCode, output.cniVersion, output.code], [1, '0.4.0', code]);
    assert.match(output.details, details);
    assert.equal(output.msg, (error as Error).message);
  }
});

test('DEL, CHECK, GC and STATUS answer nothing; VERSION lists what is supported', async () => {
  const conf = { cniVersion: '1.1.0', prevResult: {}, 'cni.dev/valid-attachments': [] };
  for (const command of ['DEL', 'CHECK', 'GC', 'STATUS']) {
    assert.deepEqual(await call(command, conf), { exitCode: 0, output: undefined }, command);
  }
  assert.deepEqual((await call('VERSION', { cniVersion: '0.3.1' })).output, {
    cniVersion: '0.3.1',
    supportedVersions: ['0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'],
  });
});

test('STATUS says 50, or 51 when pods suffer', async () => {
  for (const [affected, code] of [
    [false, 50],
    [true, 51],
  ] as const) {
    const { output } = await call(
      'STATUS',
      { cniVersion: '1.1.0' },
      {
        status: async () => {
          throw new WeftError('WEFT_CNI_NOT_READY', 'no pod CIDR yet', { details: { affected } });
        },
      },
    );
    assert.deepEqual([output.code, output.details], [code, 'WEFT_CNI_NOT_READY']);
  }
});

test('an unreadable request is answered in its own version if that can be made out', async () => {
  const env = { CNI_COMMAND: 'ADD' };
  for (const [stdin, version] of [
    ['{"cniVersion":"0.4.0"}', '0.4.0'],
    ['{"cniVersion":"7.7.7"}', '7.7.7'],
    ['{"cniVersion":"\\"}{"}', '1.1.0'],
    ['{', '1.1.0'],
  ]) {
    const { stdout } = await handleCni({ env, stdin: stdin! }, backend());
    assert.equal(JSON.parse(stdout).cniVersion, version);
  }
});
