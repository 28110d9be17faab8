import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { decode } from './decode.ts';
import { humanDuration } from './duration.ts';
import { apiVersionOf } from './kind-declaration.ts';
import { podKind } from './kinds/pod.ts';
import { KINDS } from './kinds.ts';
import { labelNameProblem, labelValueProblem, qualifiedNameProblem, subdomainNameProblem } from './names.ts';
import { decodeProtobuf, NAMESPACE_PROTO } from './protobuf.ts';
import { quantityValue } from './quantity.ts';
import type { Schema } from './schema.ts';
import type { KubeObject, Pod } from './types.ts';

/** Every schema below one, with its path. */
function* walk(schema: Schema, path: string, depth = 0): Generator<[string, Schema]> {
  yield [path, schema];
  if (depth > 20) return;
  for (const [name, inner] of Object.entries(schema.properties ?? {}))
    yield* walk(inner, `${path}.${name}`, depth + 1);
  if (schema.items) yield* walk(schema.items, `${path}[]`, depth + 1);
  if (schema.additionalProperties) yield* walk(schema.additionalProperties, `${path}{}`, depth + 1);
}

describe('declarations', () => {
  it('do not collide', () => {
    const paths = KINDS.map((k) => `${apiVersionOf(k)}/${k.plural}`);
    assert.equal(new Set(paths).size, paths.length);
    const storage = KINDS.map((k) => k.storage);
    assert.equal(new Set(storage).size, storage.length);
    const names = KINDS.flatMap((k) => [k.plural, k.singular, ...k.shortNames].map((n) => `${k.group}/${n}`));
    assert.equal(new Set(names).size, names.length);
  });

  for (const kind of KINDS)
    it(`${kind.kind}: schema, columns and field labels fit together`, () => {
      for (const [path, schema] of walk(kind.schema, kind.kind)) {
        for (const field of schema.required ?? [])
          assert.ok(schema.properties?.[field], `${path}.${field} is required but unknown`);
        for (const key of schema.listKeys ?? [])
          if (schema.items?.properties)
            assert.ok(schema.items.properties[key], `${path} merges by an unknown ${key}`);
        if (schema.enum && schema.default !== undefined)
          assert.ok(schema.enum.includes(String(schema.default)), path);
      }
      assert.equal(kind.statusSubresource, kind.schema.properties?.status !== undefined);
      // The emptiest object that may be stored can be shown and selected.
      const bare = {
        apiVersion: apiVersionOf(kind),
        kind: kind.kind,
        metadata: { name: 'x' },
        spec: { containers: [] },
        involvedObject: {},
      } as KubeObject;
      for (const column of kind.columns) assert.notEqual(column.value(bare, 0), undefined, column.name);
      for (const [label, read] of Object.entries(kind.fieldLabels))
        assert.equal(typeof read(bare), 'string', label);
    });

  it('decode whatever comes without throwing, and keep what they kept', () => {
    for (const kind of KINDS)
      fc.assert(
        fc.property(fc.jsonValue({ maxDepth: 4 }), (value) => {
          const first = decode(kind.schema, value);
          if (first.typeErrors.length > 0) return;
          const again = decode(kind.schema, first.value);
          assert.deepEqual(again.value, first.value);
          assert.deepEqual(again.unknown, []);
        }),
        { numRuns: 50 },
      );
  });
});

describe('pods', () => {
  const read = (spec: unknown): { pod: Pod; problems: string[]; unknown: string[] } => {
    const decoded = decode(podKind.schema, { metadata: { name: 'p' }, spec });
    const pod = decoded.value as Pod;
    podKind.applyDefaults?.(pod);
    const problems = [...decoded.problems, ...(podKind.validate?.(pod) ?? [])];
    return { pod, problems: problems.map((p) => p.field), unknown: decoded.unknown };
  };
  const c = { name: 'c', image: 'i:1' };

  it('get the defaults of Kubernetes', () => {
    const { pod } = read({
      hostNetwork: true,
      containers: [
        {
          ...c,
          ports: [{ containerPort: 80 }],
          resources: { limits: { cpu: 1 } },
          livenessProbe: { httpGet: { port: 80 } },
        },
      ],
    });
    const [container] = pod.spec.containers as unknown as Array<Record<string, unknown>>;
    assert.deepEqual(container?.ports, [{ containerPort: 80, hostPort: 80, protocol: 'TCP' }]);
    assert.deepEqual(container?.resources, { limits: { cpu: '1' }, requests: { cpu: '1' } });
    assert.equal(container?.imagePullPolicy, 'IfNotPresent');
    assert.deepEqual(container?.livenessProbe, {
      httpGet: { port: 80, path: '/', scheme: 'HTTP' },
      timeoutSeconds: 1,
      periodSeconds: 10,
      successThreshold: 1,
      failureThreshold: 3,
    });
    assert.equal(pod.spec.dnsPolicy, 'ClusterFirst');
    assert.equal(pod.spec.terminationGracePeriodSeconds, 30);
    assert.deepEqual(
      pod.spec.tolerations?.map((t) => t.key),
      ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable'],
    );
  });

  for (const [image, policy] of [
    ['a', 'Always'],
    ['a:latest', 'Always'],
    ['r:5000/a', 'Always'],
    ['r:5000/a:1', 'IfNotPresent'],
    ['a@sha256:00', 'IfNotPresent'],
  ])
    it(`pull ${image} ${policy}`, () =>
      assert.equal(
        (read({ containers: [{ name: 'c', image }] }).pod.spec.containers[0] as { imagePullPolicy?: string })
          .imagePullPolicy,
        policy,
      ));

  const cases: Array<[string, unknown, string[]]> = [
    ['no containers', {}, ['spec.containers']],
    ['a bad container name', { containers: [{ ...c, name: 'C_' }] }, ['spec.containers[0].name']],
    ['two of a name', { initContainers: [c], containers: [c] }, ['spec.containers[0].name']],
    [
      'an unknown volume',
      { containers: [{ ...c, volumeMounts: [{ name: 'v', mountPath: '/v' }] }] },
      ['spec.containers[0].volumeMounts[0].name'],
    ],
    [
      'two sources',
      { containers: [c], volumes: [{ name: 'v', emptyDir: {}, hostPath: { path: '/' } }] },
      ['spec.volumes[0].hostPath'],
    ],
    [
      'a request beyond its limit',
      { containers: [{ ...c, resources: { requests: { memory: '2Gi' }, limits: { memory: '512Mi' } } }] },
      ['spec.containers[0].resources.requests'],
    ],
    [
      'a probe without handler',
      { containers: [{ ...c, readinessProbe: {} }] },
      ['spec.containers[0].readinessProbe'],
    ],
    [
      'a quantity',
      { containers: [{ ...c, resources: { limits: { cpu: 'much' } } }] },
      ['spec.containers[0].resources.limits[cpu]'],
    ],
    ['a node selector', { containers: [c], nodeSelector: { 'a b': 'c' } }, ['spec.nodeSelector']],
    [
      'a host port twice',
      {
        containers: [
          {
            ...c,
            ports: [
              { containerPort: 1, hostPort: 9 },
              { containerPort: 2, hostPort: 9 },
            ],
          },
        ],
      },
      ['spec.containers[0].ports[1].hostPort'],
    ],
  ];
  for (const [name, spec, expected] of cases)
    it(`refuse ${name}`, () => assert.deepEqual([...new Set(read(spec).problems)], expected));

  it('name unknown fields by their path', () => {
    const { unknown } = read({ contaners: [], containers: [{ ...c, env: [{ name: 'A', valu: 'b' }] }] });
    assert.deepEqual(unknown, ['spec.contaners', 'spec.containers[0].env[0].valu']);
  });

  it('show their state in one word', () => {
    const status = podKind.columns.find((column) => column.name === 'Status');
    const show = (pod: object): unknown =>
      status?.value({ metadata: { name: 'p' }, spec: { containers: [c] }, ...pod } as unknown as Pod, 0);
    const waiting = { containerStatuses: [{ name: 'c', state: { waiting: { reason: 'ErrImagePull' } } }] };
    assert.equal(show({ status: { phase: 'Pending', ...waiting } }), 'ErrImagePull');
    assert.equal(
      show({ status: { phase: 'Failed', containerStatuses: [{ state: { terminated: { exitCode: 3 } } }] } }),
      'ExitCode:3',
    );
    assert.equal(
      show({
        status: {
          phase: 'Succeeded',
          containerStatuses: [{ state: { terminated: { exitCode: 0, reason: 'Completed' } } }],
        },
      }),
      'Completed',
    );
    assert.equal(
      show({ metadata: { name: 'p', deletionTimestamp: 'x' }, status: { phase: 'Running' } }),
      'Terminating',
    );
    assert.equal(
      show({
        spec: { containers: [c], initContainers: [c, c] },
        status: {
          phase: 'Pending',
          initContainerStatuses: [{ state: { terminated: { exitCode: 0 } } }, { state: { running: {} } }],
        },
      }),
      'Init:1/2',
    );
  });
});

describe('small rules', () => {
  it('ages are as kubectl shows them', () => {
    const s = 1000;
    const cases: Array<[number, string]> = [
      [-5 * s, '<invalid>'],
      [0, '0s'],
      [119 * s, '119s'],
      [120 * s, '2m'],
      [125 * s, '2m5s'],
      [600 * s, '10m'],
      [3 * 3600 * s, '3h'],
      [3 * 3600 * s + 61 * s, '3h1m'],
      [30 * 3600 * s, '30h'],
      [49 * 3600 * s, '2d1h'],
      [100 * 86400 * s, '100d'],
      [800 * 86400 * s, '2y70d'],
      [4000 * 86400 * s, '10y'],
    ];
    for (const [ms, text] of cases) assert.equal(humanDuration(ms), text);
  });

  it('names', () => {
    for (const good of ['a', 'a-b', '0', 'a'.repeat(63)])
      assert.equal(labelNameProblem(good), undefined, good);
    for (const bad of ['', 'A', '-a', 'a-', 'a.b', 'a'.repeat(64), 'ä', 'a\n'])
      assert.ok(labelNameProblem(bad), bad);
    assert.equal(subdomainNameProblem('a.b-c.d'), undefined);
    for (const bad of ['a..b', '.a', 'a_b', `${'a.'.repeat(127)}a`])
      assert.ok(subdomainNameProblem(bad), bad);
    for (const good of ['app', 'example.com/a_b', 'A.b'])
      assert.equal(qualifiedNameProblem(good), undefined, good);
    for (const bad of ['', '/a', 'a/', 'a/b/c', '_a', 'a b']) assert.ok(qualifiedNameProblem(bad), bad);
    assert.equal(labelValueProblem(''), undefined);
    assert.ok(labelValueProblem('a b'));
  });

  it('quantities', () => {
    const cases: Array<[string, number]> = [
      ['1', 1],
      ['100m', 0.1],
      ['1Ki', 1024],
      ['1.5Gi', 1.5 * 2 ** 30],
      ['1e3', 1000],
      ['2k', 2000],
      ['-1', -1],
    ];
    for (const [text, value] of cases) assert.equal(quantityValue(text), value, text);
    for (const bad of ['', 'x', '1Q', '1 Ki']) assert.ok(Number.isNaN(quantityValue(bad)), bad);
  });

  it('protobuf of a namespace, as kubectl sends it', () => {
    // k8s\0, Unknown{TypeMeta{"v1","Namespace"}, raw: Namespace{ObjectMeta{name "t", creationTimestamp {}}, spec {}, status {}}}
    const raw = Buffer.from('0a050a01744200' + '12001a00', 'hex');
    const envelope = Buffer.concat([
      Buffer.from('6b3873000a0f0a02763112094e616d657370616365', 'hex'),
      Buffer.from([0x12, raw.length]),
      raw,
    ]);
    assert.deepEqual(decodeProtobuf(envelope, NAMESPACE_PROTO), {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 't' },
      spec: {},
      status: {},
    });
    assert.throws(() => decodeProtobuf(envelope.subarray(0, -3), NAMESPACE_PROTO), /cut off/);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
        try {
          decodeProtobuf(Buffer.concat([Buffer.from('k8s\0'), bytes]), NAMESPACE_PROTO);
        } catch (error) {
          assert.equal((error as { code?: unknown }).code, 400);
        }
      }),
    );
  });
});
