import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ApiError } from './errors.ts';
import type { KindDeclaration } from './kind-declaration.ts';
import { podKind } from './kinds/pod.ts';
import { parseFieldSelector, parseLabelSelector } from './selectors.ts';
import type { KubeObject } from './types.ts';

const kind = podKind as unknown as KindDeclaration;
const bad = (e: unknown) => e instanceof ApiError && e.code === 400;

describe('label selectors', () => {
  const labels = { app: 'web', tier: 'front', n: '5', 'example.com/x': '' };
  const cases: Array<[string, boolean]> = [
    ['app=web', true],
    ['app==web,tier=front', true],
    ['app=web,tier=back', false],
    ['app!=web', false],
    ['none!=web', true],
    ['app', true],
    ['!app', false],
    ['!none', true],
    ['app in (web, api)', true],
    ['app in (api)', false],
    ['app notin (api)', true],
    ['none notin (api)', true],
    ['none in (api)', false],
    ['n>4,n<6', true],
    ['n>5', false],
    ['app>1', false],
    ['example.com/x=', true],
    ['example.com/x', true],
    ['  app = web ', true],
    ['toString', false],
    ['constructor!=x', true],
  ];
  for (const [text, expected] of cases)
    it(JSON.stringify(text), () => assert.equal(parseLabelSelector(text)?.(labels), expected));

  it('match everything when empty', () => {
    assert.equal(parseLabelSelector(''), undefined);
    assert.equal(parseLabelSelector('  '), undefined);
  });

  for (const text of [
    '=',
    'a=b=c',
    'a in',
    'a in (',
    'a in (b',
    'a in b',
    ',',
    'a,',
    'a,,b',
    '!',
    'a>x',
    'a b',
    '-a=b',
    'a=-b',
    `${'a'.repeat(64)}=b`,
  ])
    it(`refuse ${JSON.stringify(text.slice(0, 20))}`, () =>
      assert.throws(() => parseLabelSelector(text), bad));

  it('parse or refuse whatever comes', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 30 }), (text) => {
        try {
          parseLabelSelector(text)?.({});
        } catch (error) {
          assert.ok(bad(error));
        }
      }),
    );
  });
});

describe('field selectors', () => {
  const pod = {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'a', namespace: 'd' },
    spec: { containers: [], nodeName: 'n1' },
    status: { phase: 'Running' },
  } as KubeObject;
  const cases: Array<[string, boolean]> = [
    ['metadata.name=a', true],
    ['metadata.namespace==d,spec.nodeName=n1', true],
    ['spec.nodeName!=n1', false],
    ['status.phase!=Succeeded,status.phase!=Failed', true],
    ['spec.nodeName=', false],
  ];
  for (const [text, expected] of cases)
    it(text, () => assert.equal(parseFieldSelector(text, kind)?.matches(pod), expected));
  it('know the name that is asked for', () =>
    assert.equal(parseFieldSelector('metadata.name=a', kind)?.name, 'a'));
  for (const text of ['spec.image=x', 'toString=x', 'metadata.name', '=x'])
    it(`refuse ${text}`, () => assert.throws(() => parseFieldSelector(text, kind), bad));
});
