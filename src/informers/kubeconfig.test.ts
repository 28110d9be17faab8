import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { isWeftError } from '../base/errors.ts';
import { inClusterAccess, loadKubeconfig, parseKubeconfig } from './kubeconfig.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'weft-kubeconfig-'));
});
after(() => rm(folder, { recursive: true, force: true }));

const pem = (what: string): string => `-----BEGIN ${what}-----\nAAAA\n-----END ${what}-----\n`;
const b64 = (text: string): string => Buffer.from(text).toString('base64');

const config = (cluster: unknown, user: unknown, context: object = {}) =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'here',
    contexts: [
      { name: 'elsewhere', context: { cluster: 'none', user: 'none' } },
      { name: 'here', context: { cluster: 'c', user: 'u', ...context } },
    ],
    clusters: [{ name: 'c', cluster }],
    users: [{ name: 'u', user }],
  });

test('inline certificates, in JSON', async () => {
  const text = config(
    { server: 'https://127.0.0.1:6443/', 'certificate-authority-data': b64(pem('CERTIFICATE')) },
    { 'client-certificate-data': b64(pem('CERTIFICATE')), 'client-key-data': b64(pem('PRIVATE KEY')) },
    { namespace: 'web' },
  );
  assert.deepEqual(await parseKubeconfig(text, { file: 'k' }), {
    server: 'https://127.0.0.1:6443',
    namespace: 'web',
    ca: pem('CERTIFICATE'),
    cert: pem('CERTIFICATE'),
    key: pem('PRIVATE KEY'),
  });
});

test('files relative to the kubeconfig, in YAML', async () => {
  await writeFile(path.join(folder, 'ca.pem'), pem('CERTIFICATE'));
  const file = path.join(folder, 'config.yaml');
  await writeFile(
    file,
    `apiVersion: v1
kind: Config
current-context: here
contexts:
- {name: here, context: {cluster: c, user: u}}
clusters:
- name: c
  cluster: {server: "https://[::1]:6443", certificate-authority: ca.pem, tls-server-name: kubernetes}
users:
- name: u
  user: {token: abc, tokenFile: token}
`,
  );
  assert.deepEqual(await loadKubeconfig(file), {
    server: 'https://[::1]:6443',
    namespace: 'default',
    ca: pem('CERTIFICATE'),
    token: 'abc',
    tokenFile: path.join(folder, 'token'),
    tlsServerName: 'kubernetes',
  });
});

const good = { server: 'https://a' };
const refused: Array<[name: string, text: string, message: RegExp]> = [
  ['no YAML', '{"a":', /neither YAML nor JSON/],
  ['a scalar', 'hello', /not a kubeconfig/],
  ['no context', '{}', /current-context is not set/],
  ['unknown context', '{"current-context":"x","contexts":[]}', /contexts has no "x"/],
  ['no server', config({}, {}), /server is missing/],
  ['another scheme', config({ server: 'ftp://a' }, {}), /not an http/],
  ['a number', config({ server: 7 }, {}), /server is not a string/],
  ['exec plugins', config(good, { exec: { command: 'aws' } }), /uses "exec"/],
  [
    'a certificate alone',
    config(good, { 'client-certificate-data': b64(pem('CERTIFICATE')) }),
    /come together/,
  ],
  ['no PEM', config({ ...good, 'certificate-authority-data': 'AAAA' }, {}), /not PEM/],
  [
    'a missing file',
    config({ ...good, 'certificate-authority': 'nowhere.pem' }, {}),
    /certificate-authority: ENOENT/,
  ],
];
for (const [name, text, message] of refused) {
  test(`refused: ${name}`, async () => {
    await assert.rejects(parseKubeconfig(text, { file: path.join(folder, 'k') }), (error) => {
      assert.ok(isWeftError(error, 'WEFT_KUBECONFIG_INVALID'));
      assert.match(error.message, message);
      assert.ok(error.message.includes(path.join(folder, 'k')));
      return true;
    });
  });
}

test('a file that is not there', async () => {
  await assert.rejects(loadKubeconfig(path.join(folder, 'none')), (e) =>
    isWeftError(e, 'WEFT_KUBECONFIG_INVALID'),
  );
});

test('service account of a pod', async () => {
  assert.equal(await inClusterAccess({}), undefined);
  await writeFile(path.join(folder, 'ca.crt'), pem('CERTIFICATE'));
  await writeFile(path.join(folder, 'namespace'), 'weft-system\n');
  const env = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' };
  assert.deepEqual(await inClusterAccess(env, folder), {
    server: 'https://[fd00::1]:443',
    ca: pem('CERTIFICATE'),
    tokenFile: path.join(folder, 'token'),
    namespace: 'weft-system',
  });
});
