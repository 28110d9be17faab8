import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { ConfigMap, Container, EnvVar, Pod } from '../../api/types.ts';
import {
  ContainerConfigError,
  commandLine,
  containerEnvironment,
  expand,
  fieldValue,
} from './environment.ts';

describe('expand', () => {
  // The cases of Kubernetes' own expansion test that differ in kind.
  const values = { VAR_A: 'A', VAR_B: 'B', VAR_REF: '$(VAR_A)', VAR_EMPTY: '' };
  const cases: Array<[string, string]> = [
    ['$(VAR_A)', 'A'],
    ['___$(VAR_B)___', '___B___'],
    ['$(VAR_A)$(VAR_B)', 'AB'],
    ['$(VAR_REF)', '$(VAR_A)'],
    ['foo$(VAR_EMPTY)bar', 'foobar'],
    ['$(UNKNOWN)', '$(UNKNOWN)'],
    ['$$(VAR_A)', '$(VAR_A)'],
    ['$$$(VAR_A)', '$A'],
    ['$$$$(VAR_A)', '$$(VAR_A)'],
    ['f000-$VAR_A', 'f000-$VAR_A'],
    ['$(VAR_A', '$(VAR_A'],
    ['$VAR_A)', '$VAR_A)'],
    ['$()', '$()'],
    ['foo$', 'foo$'],
    ['$(toString)', '$(toString)'],
  ];
  for (const [text, expected] of cases) test(text, () => assert.equal(expand(text, values), expected));

  test('text without $ stays as it is, and any text ends', () => {
    fc.assert(
      fc.property(fc.string(), (text) =>
        text.includes('$') ? expand(text, values) !== undefined : expand(text, values) === text,
      ),
    );
  });
});

const pod: Pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'web', namespace: 'shop', uid: 'u1', labels: { app: 'web' }, annotations: { note: 'n' } },
  spec: { containers: [{ name: 'c' }], nodeName: 'node-2' },
  status: {
    podIP: '10.244.1.2',
    podIPs: [{ ip: '10.244.1.2' }, { ip: 'fd00::2' }],
    hostIP: '172.29.1.12',
    hostIPs: [{ ip: '172.29.1.12' }],
  },
};
const map: ConfigMap = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'conf' },
  data: { colour: 'blue' },
};
const environment = (env: EnvVar[]): Record<string, string> =>
  containerEnvironment(pod, { name: 'c', env }, (name) => (name === 'conf' ? map : undefined));

test('the downward API', () => {
  assert.equal(fieldValue(pod, 'status.podIPs'), '10.244.1.2,fd00::2');
  assert.equal(fieldValue(pod, "metadata.labels['app']"), 'web');
  assert.equal(fieldValue(pod, "metadata.annotations['absent']"), '');
  assert.equal(fieldValue(pod, 'spec.nodeName'), 'node-2');
  assert.throws(() => fieldValue(pod, 'spec.containers'), ContainerConfigError);
});

test('variables see those before them; a ConfigMap key is taken literally', () => {
  assert.deepEqual(
    environment([
      { name: 'A', value: '1' },
      { name: 'B', value: '$(A)-$(C)' },
      { name: 'C', valueFrom: { configMapKeyRef: { name: 'conf', key: 'colour' } } },
      { name: 'D', valueFrom: { configMapKeyRef: { name: 'conf', key: 'nothing', optional: true } } },
      { name: 'E' },
    ]),
    { A: '1', B: '1-$(C)', C: 'blue', E: '' },
  );
  assert.throws(
    () => environment([{ name: 'A', valueFrom: { configMapKeyRef: { name: 'no', key: 'k' } } }]),
    /configmap "no" not found/,
  );
  assert.throws(
    () => environment([{ name: 'A', valueFrom: { configMapKeyRef: { name: 'conf', key: 'k' } } }]),
    /find key k/,
  );
  assert.throws(() => environment([{ name: 'A', valueFrom: {} }]), ContainerConfigError);
});

test('command replaces the entry point and its arguments; args replace arguments alone', () => {
  const image = { entrypoint: ['/server'], args: ['serve'] };
  const line = (container: Partial<Container>): string[] =>
    commandLine({ name: 'c', ...container }, image, { P: '80' });
  assert.deepEqual(line({}), ['/server', 'serve']);
  assert.deepEqual(line({ args: ['--port=$(P)'] }), ['/server', '--port=80']);
  assert.deepEqual(line({ command: ['sh', '-c', 'echo $(P) $$(P)'] }), ['sh', '-c', 'echo 80 $(P)']);
  assert.deepEqual(line({ command: ['sleep'], args: ['$(P)'] }), ['sleep', '80']);
});
