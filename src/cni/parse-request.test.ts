import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CniError } from './errors.ts';
import { parseRequest } from './parse-request.ts';

const ENV = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'abc-1',
  CNI_NETNS: '/run/netns/x',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/opt/cni/bin',
};
const CONF = { cniVersion: '1.0.0', name: 'weft', type: 'weft-cni' };

const parse = (env: Record<string, string> = {}, conf: object = {}) =>
  parseRequest({ env: { ...ENV, ...env }, stdin: JSON.stringify({ ...CONF, ...conf }) });

/** The request of an ADD with this configuration and environment. */
function add(conf: object = {}, env: Record<string, string> = {}) {
  const call = parse(env, conf);
  assert.equal(call.command, 'ADD');
  return call.request;
}

const refused = (code: number, message: RegExp) => (error: unknown) => {
  assert.ok(error instanceof CniError, String(error));
  assert.equal(error.cniCode, code, error.message);
  assert.match(error.message, message);
  return true;
};

test('a plain ADD', () => {
  assert.deepEqual(add(), {
    containerId: 'abc-1',
    ifname: 'eth0',
    netns: '/run/netns/x',
    ips: [],
    config: { version: '1.0.0', name: 'weft', dns: {} },
  });
});

test('what is wrong with the environment is code 4 and names the variable', () => {
  const table: Array<[Record<string, string>, RegExp]> = [
    [{ CNI_COMMAND: '' }, /CNI_COMMAND is not set/],
    [{ CNI_COMMAND: 'add' }, /CNI_COMMAND "add" is unknown/],
    [{ CNI_CONTAINERID: '' }, /CNI_CONTAINERID is not set/],
    [{ CNI_CONTAINERID: '-x' }, /CNI_CONTAINERID/],
    [{ CNI_CONTAINERID: 'a/b' }, /CNI_CONTAINERID/],
    [{ CNI_CONTAINERID: 'a'.repeat(2000) }, /CNI_CONTAINERID/],
    [{ CNI_IFNAME: '' }, /CNI_IFNAME is not set/],
    [{ CNI_IFNAME: 'sixteencharacter' }, /CNI_IFNAME/],
    [{ CNI_IFNAME: 'ünïcödeünïü' }, /CNI_IFNAME/],
    [{ CNI_IFNAME: '..' }, /CNI_IFNAME/],
    [{ CNI_IFNAME: 'a b' }, /CNI_IFNAME/],
    [{ CNI_IFNAME: 'a:b' }, /CNI_IFNAME/],
    [{ CNI_IFNAME: 'eth%d' }, /CNI_IFNAME/],
    [{ CNI_IFNAME: Buffer.from([0xff, 0xfe]).toString() }, /CNI_IFNAME/],
    [{ CNI_NETNS: '' }, /CNI_NETNS is not set/],
    [{ CNI_NETNS: 'run/netns' }, /CNI_NETNS/],
    [{ CNI_ARGS: 'IgnoreUnknown=1;oops' }, /CNI_ARGS: "oops"/],
  ];
  for (const [env, message] of table)
    assert.throws(() => parse(env), refused(4, message), JSON.stringify(env));
  assert.equal(parse({ CNI_COMMAND: 'DEL', CNI_NETNS: '' }).command, 'DEL', 'DEL needs no namespace');
});

test('what is wrong with the configuration names the key', () => {
  const table: Array<[number, object, RegExp]> = [
    [
      1,
      { cniVersion: '0.2.0' },
      /cniVersion 0\.2\.0 .* supported are 0\.3\.0, 0\.3\.1, 0\.4\.0, 1\.0\.0, 1\.1\.0/,
    ],
    [1, { cniVersion: undefined }, /cniVersion 0\.1\.0/],
    [1, { cniVersion: '2.0.0' }, /2\.0\.0/],
    [7, { cniVersion: 1 }, /cniVersion must be a text/],
    [7, { name: undefined }, /name is missing/],
    [7, { name: 'a/b' }, /name "a\/b"/],
    [7, { name: 5 }, /name must be a text/],
    [2, { ipam: { type: 'host-local' } }, /ipam\.type="host-local"/],
    [7, { ipam: 'x' }, /ipam must be an object/],
    [7, { mtu: 12 }, /mtu/],
    [7, { mtu: 1e9 }, /mtu/],
    [7, { mtu: '1400' }, /mtu/],
    [7, { dns: [] }, /dns must be an object/],
    [7, { dns: { nameservers: 'x' } }, /dns\.nameservers must be a list/],
    [7, { runtimeConfig: 3 }, /runtimeConfig/],
    [7, { runtimeConfig: { ips: ['10.0.0.300'] } }, /requested address "10\.0\.0\.300"/],
    [7, { runtimeConfig: { ips: [4] } }, /runtimeConfig\.ips\[0\]/],
    [7, { runtimeConfig: { mac: 'xx' } }, /requested MAC/],
    [7, { runtimeConfig: { mac: '01:00:5e:00:00:01' } }, /no unicast/],
    [7, { runtimeConfig: { mac: '00:00:00:00:00:00' } }, /no unicast/],
    [7, { prevResult: 'x' }, /prevResult/],
    [7, { prevResult: { ips: [{}] } }, /prevResult\.ips\[0\]\.address is missing/],
    [
      7,
      { prevResult: { ips: [{ address: '10.0.0.1/24', interface: 1 }], interfaces: [{ name: 'e' }] } },
      /interface/,
    ],
    [7, { prevResult: { interfaces: [{}] } }, /prevResult\.interfaces\[0\]\.name/],
  ];
  for (const [code, conf, message] of table) {
    assert.throws(() => parse({}, conf), refused(code, message), JSON.stringify(conf));
  }
  for (const stdin of ['', '{', '[]', 'null', '7', '"x"']) {
    assert.throws(() => parseRequest({ env: ENV, stdin }), refused(6, /network configuration/), stdin);
  }
});

test('commands belong to versions', () => {
  for (const [command, version, ok] of [
    ['CHECK', '0.3.1', false],
    ['GC', '1.0.0', false],
    ['STATUS', '1.0.0', false],
    ['STATUS', '1.1.0', true],
    ['VERSION', '0.3.0', true],
  ] as const) {
    const call = () => parse({ CNI_COMMAND: command }, { cniVersion: version });
    if (ok) assert.equal(call().command, command);
    else assert.throws(call, refused(1, new RegExp(`${command} needs cniVersion`)));
  }
});

test('addresses and MAC: from capabilities, args or CNI_ARGS, in that order, whatever the case of keys', () => {
  assert.deepEqual(add({ runtimeConfig: { ips: ['10.0.0.5/24', 'FD00::0:5'], mac: '02-AA-00-00-00-01' } }), {
    ...add(),
    ips: ['10.0.0.5', 'fd00::5'],
    mac: '02:aa:00:00:00:01',
  });
  const args = { CNI_ARGS: 'ignoreunknown=true;ip=10.0.0.7,fd00::7;MAC=02:00:00:00:00:07' };
  assert.deepEqual(add({}, args).ips, ['10.0.0.7', 'fd00::7']);
  assert.equal(add({}, args).mac, '02:00:00:00:00:07');
  assert.deepEqual(add({ args: { cni: { ips: ['10.0.0.6'] } } }, args).ips, ['10.0.0.6']);
  assert.deepEqual(add({ RuntimeConfig: {}, runtimeConfig: { IPs: ['10.0.0.5'], Mac: '' } }, args).ips, [
    '10.0.0.5',
  ]);
  assert.deepEqual(
    add({ runtimeConfig: { ips: null, mac: null, portMappings: [{ HostPort: 80 }] } }).ips,
    [],
  );
});

test('the arguments of kubelet, containerd and podman', () => {
  const pod = (CNI_ARGS: string) => add({}, { CNI_ARGS }).pod;
  assert.deepEqual(
    pod(
      'K8S_POD_INFRA_CONTAINER_ID=f00;K8S_POD_UID=u-1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a',
    ),
    { namespace: 'default', name: 'a', uid: 'u-1' },
  );
  assert.deepEqual(pod('IgnoreUnknown=1;K8S_POD_NAMESPACE=;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=x'), {
    namespace: '',
    name: 'web',
  });
  assert.deepEqual(pod('k8s_pod_namespace=ns;k8s_pod_name=n;'), { namespace: 'ns', name: 'n' });
  assert.equal(pod(''), undefined);
});

test('GC names what stays; an entry that cannot be read is an error, not a removal', () => {
  const gc = (conf: object) => parse({ CNI_COMMAND: 'GC' }, { cniVersion: '1.1.0', ...conf });
  assert.deepEqual(gc({ 'cni.dev/valid-attachments': [{ containerID: 'a', ifname: 'eth0' }] }), {
    command: 'GC',
    version: '1.1.0',
    request: { network: 'weft', valid: [{ containerId: 'a', ifname: 'eth0' }] },
  });
  for (const conf of [
    {},
    { 'cni.dev/valid-attachments': {} },
    { 'cni.dev/valid-attachments': [{ containerID: 'a' }] },
    { 'cni.dev/valid-attachments': [{ containerId: 'a', ifname: 'eth0' }] },
    { 'cni.dev/valid-attachments': [null] },
  ]) {
    assert.throws(() => gc(conf), refused(7, /valid-attachments/), JSON.stringify(conf));
  }
});

test('CHECK needs prevResult; DEL does not care what is in it', () => {
  assert.throws(() => parse({ CNI_COMMAND: 'CHECK' }), refused(7, /prevResult is missing/));
  for (const prevResult of ['x', { ips: 'no' }, null, { cniVersion: '9' }]) {
    assert.deepEqual(parse({ CNI_COMMAND: 'DEL' }, { prevResult }), {
      command: 'DEL',
      version: '1.0.0',
      request: { containerId: 'abc-1', ifname: 'eth0', network: 'weft', netns: '/run/netns/x' },
    });
  }
});

test('whatever comes, the answer is a request or a CNI error', () => {
  const key = fc.constantFrom(
    'cniVersion', 'name', 'ipam', 'dns', 'mtu', 'prevResult', 'runtimeConfig', 'args', 'cni.dev/valid-attachments',
  ); // biome-ignore format: a list
  const value = fc.oneof(
    fc.jsonValue({ maxDepth: 4 }) as fc.Arbitrary<unknown>,
    fc.constantFrom('1.1.0', 'weft'),
  );
  fc.assert(
    fc.property(
      fc.constantFrom('ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'),
      fc.dictionary(key, value),
      fc.string(),
      (command, conf, args) => {
        try {
          parse({ CNI_COMMAND: command, CNI_ARGS: args }, { cniVersion: '1.1.0', ...conf });
        } catch (error) {
          assert.ok(error instanceof CniError, String(error));
        }
      },
    ),
    { numRuns: 500 },
  );
});
