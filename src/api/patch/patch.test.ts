import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ApiError } from '../errors.ts';
import { keyed, list, map, object, setOf, str } from '../schema.ts';
import { applyJsonPatch } from './json-patch.ts';
import { applyMergePatch } from './merge-patch.ts';
import { applyStrategicMergePatch } from './strategic-merge-patch.ts';

const bad = (e: unknown) => e instanceof ApiError && e.code === 400;

describe('JSON patch (RFC 6902 appendix A)', () => {
  const cases: Array<[string, unknown, unknown, unknown]> = [
    [
      'A.1 add a member',
      { foo: 'bar' },
      [{ op: 'add', path: '/baz', value: 'qux' }],
      { foo: 'bar', baz: 'qux' },
    ],
    [
      'A.2 add an element',
      { foo: ['bar', 'baz'] },
      [{ op: 'add', path: '/foo/1', value: 'qux' }],
      { foo: ['bar', 'qux', 'baz'] },
    ],
    ['A.3 remove a member', { baz: 'qux', foo: 'bar' }, [{ op: 'remove', path: '/baz' }], { foo: 'bar' }],
    [
      'A.4 remove an element',
      { foo: ['bar', 'qux', 'baz'] },
      [{ op: 'remove', path: '/foo/1' }],
      { foo: ['bar', 'baz'] },
    ],
    ['A.5 replace', { baz: 'qux' }, [{ op: 'replace', path: '/baz', value: 'boo' }], { baz: 'boo' }],
    [
      'A.6 move',
      { foo: { bar: 1, waldo: 2 }, qux: {} },
      [{ op: 'move', from: '/foo/waldo', path: '/qux/thud' }],
      { foo: { bar: 1 }, qux: { thud: 2 } },
    ],
    [
      'A.7 move an element',
      { foo: ['all', 'grass', 'cows', 'eat'] },
      [{ op: 'move', from: '/foo/1', path: '/foo/3' }],
      { foo: ['all', 'cows', 'eat', 'grass'] },
    ],
    [
      'A.8 test',
      { baz: 'qux', foo: ['a', 2] },
      [{ op: 'test', path: '/foo/1', value: 2 }],
      { baz: 'qux', foo: ['a', 2] },
    ],
    [
      'A.10 nested',
      { foo: 'bar' },
      [{ op: 'add', path: '/child', value: { grandchild: {} } }],
      { foo: 'bar', child: { grandchild: {} } },
    ],
    ['A.14 escapes', { '/': 9, '~1': 10 }, [{ op: 'test', path: '/~01', value: 10 }], { '/': 9, '~1': 10 }],
    [
      'A.16 append',
      { foo: ['bar'] },
      [{ op: 'add', path: '/foo/-', value: ['abc'] }],
      { foo: ['bar', ['abc']] },
    ],
    ['the whole', { a: 1 }, [{ op: 'replace', path: '', value: { b: 2 } }], { b: 2 }],
    ['copy', { a: { x: 1 } }, [{ op: 'copy', from: '/a', path: '/b' }], { a: { x: 1 }, b: { x: 1 } }],
  ];
  for (const [name, target, patch, expected] of cases)
    it(name, () => {
      const before = structuredClone(target);
      assert.deepEqual(applyJsonPatch(target, patch), expected);
      assert.deepEqual(target, before, 'the input is not changed');
    });

  const refused: Array<[string, unknown, unknown]> = [
    ['A.9 failed test', { baz: 'qux' }, [{ op: 'test', path: '/baz', value: 'bar' }]],
    ['A.12 missing parent', { foo: 'bar' }, [{ op: 'add', path: '/baz/bat', value: 'qux' }]],
    ['A.15 types differ', { '~1': 10 }, [{ op: 'test', path: '/~01', value: '10' }]],
    ['out of bounds', { a: [1] }, [{ op: 'add', path: '/a/2', value: 1 }]],
    ['leading zero', { a: [1, 2] }, [{ op: 'remove', path: '/a/01' }]],
    ['no value', {}, [{ op: 'add', path: '/a' }]],
    ['into itself', { a: { b: {} } }, [{ op: 'move', from: '/a', path: '/a/b/c' }]],
    ['prototype', {}, [{ op: 'add', path: '/__proto__/x', value: 1 }]],
    ['inherited', {}, [{ op: 'add', path: '/constructor/prototype/x', value: 1 }]],
    ['no pointer', {}, [{ op: 'add', path: 'a', value: 1 }]],
    ['no array', {}, { op: 'add', path: '/a', value: 1 }],
  ];
  for (const [name, target, patch] of refused)
    it(`refuses: ${name}`, () => assert.throws(() => applyJsonPatch(target, patch), bad));
});

describe('merge patch (RFC 7386 appendix A)', () => {
  const cases: Array<[unknown, unknown, unknown]> = [
    [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
    [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
    [{ a: 'b' }, { a: null }, {}],
    [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
    [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
    [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
    [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
    [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
    [
      ['a', 'b'],
      ['c', 'd'],
      ['c', 'd'],
    ],
    [{ e: null }, { a: 1 }, { e: null, a: 1 }],
    [[1, 2], { a: 'b', c: null }, { a: 'b' }],
    [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
  ];
  for (const [target, patch, expected] of cases)
    it(`${JSON.stringify(target)} + ${JSON.stringify(patch)}`, () =>
      assert.deepEqual(applyMergePatch(target, patch), expected));

  it('applied twice is as applied once', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (target, patch) => {
        const once = applyMergePatch(target, patch);
        assert.deepEqual(applyMergePatch(once, patch), once);
      }),
    );
  });
});

describe('strategic merge patch', () => {
  const schema = object('', {
    containers: keyed(
      object('', {
        name: str(),
        image: str(),
        ports: keyed(object('', { port: str(), protocol: str() }), ['port', 'protocol']),
        args: list(str()),
      }),
      ['name'],
    ),
    finalizers: setOf(str()),
    labels: map(str()),
    volumes: keyed(
      object('', { name: str(), emptyDir: object('', {}), secret: object('', {}) }),
      ['name'],
      '',
      {
        retainKeys: true,
      },
    ),
  });
  const a = { name: 'a', image: '1', args: ['x'] };
  const b = { name: 'b', image: '1' };
  const cases: Array<[string, unknown, unknown, unknown]> = [
    [
      'merges list entries by key',
      { containers: [a, b] },
      { containers: [{ name: 'b', image: '2' }] },
      { containers: [a, { name: 'b', image: '2' }] },
    ],
    ['appends new entries', { containers: [a] }, { containers: [b] }, { containers: [a, b] }],
    [
      'replaces atomic lists',
      { containers: [a] },
      { containers: [{ name: 'a', args: ['y', 'z'] }] },
      { containers: [{ ...a, args: ['y', 'z'] }] },
    ],
    [
      'deletes an entry',
      { containers: [a, b] },
      { containers: [{ name: 'a', $patch: 'delete' }] },
      { containers: [b] },
    ],
    [
      'replaces a list',
      { containers: [a, b] },
      { containers: [{ name: 'c' }, { $patch: 'replace' }] },
      { containers: [{ name: 'c' }] },
    ],
    [
      'replaces a map',
      { labels: { x: '1' } },
      { labels: { $patch: 'replace', y: '2' } },
      { labels: { y: '2' } },
    ],
    ['removes by null', { labels: { x: '1', y: '2' } }, { labels: { x: null } }, { labels: { y: '2' } }],
    [
      'unites scalars',
      { finalizers: ['a', 'b'] },
      { finalizers: ['b', 'c'] },
      { finalizers: ['a', 'b', 'c'] },
    ],
    [
      'deletes scalars',
      { finalizers: ['a', 'b', 'c'] },
      { '$deleteFromPrimitiveList/finalizers': ['b'] },
      { finalizers: ['a', 'c'] },
    ],
    [
      'orders',
      { containers: [a, b] },
      { '$setElementOrder/containers': [{ name: 'b' }, { name: 'a' }] },
      { containers: [b, a] },
    ],
    [
      'keeps what a union retains',
      { volumes: [{ name: 'v', emptyDir: {} }] },
      { volumes: [{ $retainKeys: ['name', 'secret'], name: 'v', secret: {} }] },
      { volumes: [{ name: 'v', secret: {} }] },
    ],
    [
      'leaves no directives in new objects',
      {},
      { containers: [{ name: 'n', $retainKeys: ['name'] }] },
      { containers: [{ name: 'n' }] },
    ],
  ];
  for (const [name, target, patch, expected] of cases)
    it(name, () => assert.deepEqual(applyStrategicMergePatch(target, patch, schema), expected));

  for (const patch of [
    [],
    { containers: ['x'] },
    { containers: [{ image: '1' }] },
    { labels: { $patch: 'x' } },
    { $retainKeys: 'x' },
    { '$deleteFromPrimitiveList/finalizers': 'x' },
  ])
    it(`refuses ${JSON.stringify(patch)}`, () =>
      assert.throws(() => applyStrategicMergePatch({ finalizers: [] }, patch, schema), bad));
});
