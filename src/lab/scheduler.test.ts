import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { Node, Pod, Taint } from '../api/types.ts';
import { chooseNode, tolerates } from './scheduler.ts';

interface NodeOptions {
  ready?: 'True' | 'False' | 'Unknown';
  taints?: Taint[];
  unschedulable?: boolean;
  labels?: Record<string, string>;
}
const node = (name: string, { ready = 'True', labels = {}, ...spec }: NodeOptions = {}): Node => ({
  apiVersion: 'v1',
  kind: 'Node',
  metadata: { name, labels },
  spec,
  status: { conditions: [{ type: 'Ready', status: ready }] },
});
const pod = (spec: Partial<Pod['spec']> = {}, phase?: 'Running' | 'Succeeded'): Pod => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p', namespace: 'default' },
  spec: { containers: [{ name: 'c' }], ...spec },
  ...(phase && { status: { phase } }),
});
const on = (nodeName: string, phase?: 'Succeeded'): Pod => pod({ nodeName }, phase);

describe('chooseNode', () => {
  const two = [node('node-1'), node('node-2')];
  const cases: Array<[name: string, pod: Pod, nodes: Node[], pods: Pod[], expected: string | RegExp]> = [
    ['the first of equals', pod(), two, [], 'node-1'],
    ['the emptiest', pod(), two, [on('node-1')], 'node-2'],
    ['ended pods do not count', pod(), two, [on('node-1', 'Succeeded'), on('node-2')], 'node-1'],
    ['names in numeric order', pod(), [node('node-10'), node('node-9')], [], 'node-9'],
    ['only ready nodes', pod(), [node('node-1', { ready: 'Unknown' }), node('node-2')], [], 'node-2'],
    [
      'nodeSelector',
      pod({ nodeSelector: { disk: 'ssd' } }),
      [node('a'), node('b', { labels: { disk: 'ssd' } })],
      [],
      'b',
    ],
    [
      'cordoned',
      pod(),
      [node('a', { unschedulable: true })],
      [],
      /0\/1 nodes are available: 1 node\(s\) were unschedulable/,
    ],
    [
      'cordoned but tolerated',
      pod({ tolerations: [{ key: 'node.kubernetes.io/unschedulable', operator: 'Exists' }] }),
      [node('a', { unschedulable: true })],
      [],
      'a',
    ],
    [
      'tainted',
      pod(),
      [node('a', { taints: [{ key: 'k', value: 'v', effect: 'NoSchedule' }] })],
      [],
      /taint \{k: v\}/,
    ],
    ['a soft taint', pod(), [node('a', { taints: [{ key: 'k', effect: 'PreferNoSchedule' }] })], [], 'a'],
    ['no nodes', pod(), [], [], /^0\/0 nodes are available\.$/],
  ];
  for (const [name, wanted, nodes, pods, expected] of cases) {
    test(name, () => {
      const choice = chooseNode(wanted, nodes, pods);
      if (typeof expected === 'string') assert.deepEqual(choice, { node: expected });
      else assert.match('reason' in choice ? choice.reason : '', expected);
    });
  }

  test('pods spread: no node ever has two more than another', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 40 }), (nodeCount, podCount) => {
        const nodes = Array.from({ length: nodeCount }, (_, i) => node(`node-${i + 1}`));
        const load = new Map(nodes.map(({ metadata }) => [metadata.name, 0]));
        const placed: Pod[] = [];
        for (let i = 0; i < podCount; i++) {
          const choice = chooseNode(pod(), nodes, placed);
          assert.ok('node' in choice);
          placed.push(on(choice.node));
          load.set(choice.node, load.get(choice.node)! + 1);
        }
        assert.ok(Math.max(...load.values()) - Math.min(...load.values()) <= 1);
      }),
    );
  });
});

test('tolerations', () => {
  const taint: Taint = { key: 'k', value: 'v', effect: 'NoSchedule' };
  assert.ok(tolerates({ operator: 'Exists' }, taint));
  assert.ok(tolerates({ key: 'k', operator: 'Exists' }, taint));
  assert.ok(tolerates({ key: 'k', value: 'v' }, taint));
  assert.ok(tolerates({ key: 'k', value: 'v', effect: 'NoSchedule' }, taint));
  assert.ok(!tolerates({ key: 'k', value: 'other' }, taint));
  assert.ok(!tolerates({ key: 'k', value: 'v', effect: 'NoExecute' }, taint));
  assert.ok(!tolerates({}, taint));
});
