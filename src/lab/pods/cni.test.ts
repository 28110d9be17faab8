import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { CniError, CniRuntime, type NetworkConfig, readNetworkConfig } from './cni.ts';
import { addressesOf } from './sandbox.ts';

let folder: string;
before(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'weft-cni-test-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

const plugin = (name: string, script: string): void => {
  writeFileSync(path.join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(path.join(folder, name), 0o755);
};
const call = { containerId: 'c1', netns: '/run/netns/x', ifname: 'eth0', args: { A: '1', B: '2' } };
const config = (...plugins: NetworkConfig['plugins']): NetworkConfig => ({
  name: 'net',
  cniVersion: '1.1.0',
  plugins,
});
const runtime = (): CniRuntime => new CniRuntime([], folder);
const failsWith = (code: number, message: RegExp) => (error: unknown) =>
  error instanceof CniError && error.code === code && message.test(error.message);

describe('readNetworkConfig', () => {
  const read = (files: Record<string, string>): NetworkConfig => {
    const own = mkdtempSync(path.join(folder, 'conf-'));
    for (const [name, text] of Object.entries(files)) writeFileSync(path.join(own, name), text);
    return readNetworkConfig(own);
  };
  test('the first by name; a single plugin is a list of one', () => {
    const found = read({
      '20-b.conflist': '{"name":"b","cniVersion":"1.0.0","plugins":[{"type":"x"}]}',
      '10-a.conf': '{"name":"a","cniVersion":"0.3.1","type":"y"}',
      '00-note.txt': 'not for us',
    });
    assert.equal(found.name, 'a');
    assert.deepEqual(
      found.plugins.map(({ type }) => type),
      ['y'],
    );
  });
  test('none, malformed, incomplete, and a plugin that would leave its folder', () => {
    assert.throws(() => read({}), failsWith(11, /cni plugin not initialized/));
    assert.throws(() => readNetworkConfig('/nonexistent'), failsWith(11, /not initialized/));
    assert.throws(() => read({ 'a.conf': '{' }), failsWith(6, /a\.conf/));
    assert.throws(() => read({ 'a.conflist': '{"name":"a","plugins":[]}' }), failsWith(7, /required/));
    assert.throws(() => read({ 'a.conf': '{"name":"a","type":"../../bin/sh"}' }), failsWith(7, /file name/));
    assert.throws(() => read({ 'a.conflist': '{"name":"a","plugins":[null]}' }), failsWith(7, /type/));
  });
});

test('ADD runs the chain in order with prevResult, DEL in reverse with the result; capabilities go to who declares them', async () => {
  const log = path.join(folder, 'log');
  const script = (name: string): string =>
    `cat >>${log}; echo " ${name} $CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS" >>${log}
     [ $CNI_COMMAND = DEL ] || echo '{"cniVersion":"1.1.0","by":"${name}","ips":[{"address":"10.0.0.1/24"}]}'`;
  plugin('first', script('first'));
  plugin('second', script('second'));
  const two = config({ type: 'first' }, { type: 'second', capabilities: { portMappings: true } });
  const withPorts = { ...call, capabilities: { portMappings: [{ hostPort: 80 }], bandwidth: {} } };
  const result = await runtime().add(two, withPorts);
  assert.equal(result.by, 'second');
  await runtime().del(two, withPorts, result);
  const lines = readFileSync(log, 'utf8').trim().split('\n');
  assert.deepEqual(
    lines.map((line) => line.slice(line.lastIndexOf('}') + 2)),
    ['first ADD', 'second ADD', 'second DEL', 'first DEL'].map(
      (what) => `${what} c1 /run/netns/x eth0 A=1;B=2`,
    ),
  );
  const inputs = lines.map(
    (line) => JSON.parse(line.slice(0, line.lastIndexOf('}') + 1)) as Record<string, unknown>,
  );
  assert.deepEqual(
    inputs.map(({ prevResult }) => (prevResult as { by?: string } | undefined)?.by),
    [undefined, 'first', 'second', 'second'],
  );
  assert.deepEqual(
    inputs.map(({ runtimeConfig }) => runtimeConfig),
    [undefined, { portMappings: [{ hostPort: 80 }] }, { portMappings: [{ hostPort: 80 }] }, undefined],
  );
  assert.deepEqual([inputs[0]?.name, inputs[0]?.cniVersion], ['net', '1.1.0']);
});

describe('a plugin that fails', () => {
  const cases: Array<[string, string, number, RegExp]> = [
    [
      'says why',
      `echo '{"code":11,"msg":"later","details":"no agent"}'; exit 1`,
      11,
      /^plugin type="bad" failed \(add\): later: no agent$/,
    ],
    ['says nothing', 'exit 3', 0, /exit code 3/],
    ['writes to stderr', 'echo oops >&2; exit 1', 0, /oops/],
    ['answers no JSON', 'echo hello', 6, /not JSON: hello/],
    ['answers nothing', 'true', 6, /not JSON/],
  ];
  for (const [name, script, code, message] of cases) {
    test(name, async () => {
      plugin('bad', script);
      await assert.rejects(runtime().add(config({ type: 'bad' }), call), failsWith(code, message));
    });
  }
  test('is not there', async () => {
    await assert.rejects(
      runtime().add(config({ type: 'missing' }), call),
      failsWith(0, /cannot execute.*ENOENT/),
    );
  });
});

test('addresses of a result: IPv4 first; none or malformed is an error', () => {
  assert.deepEqual(addressesOf({ ips: [{ address: 'fd00::2/64' }, { address: '10.0.0.2/24' }] }), [
    '10.0.0.2',
    'fd00::2',
  ]);
  assert.throws(() => addressesOf({}), failsWith(6, /no address/));
  assert.throws(() => addressesOf({ ips: [{ address: 'nonsense' }] }), failsWith(6, /malformed/));
});
