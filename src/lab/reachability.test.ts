import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addressOf, type Dial, type Place, renderReachability, translation } from './reachability.ts';
import { labSpec, topologyOf } from './topology.ts';

const topology = topologyOf(labSpec({ name: 'lab', nodes: 2 }));
const ports = { http: 1, udp: 2 };
const pod: Place = {
  name: 'pod on node-1',
  kind: 'pod',
  node: 'node-1',
  ips: ['10.244.0.2', 'fd00::2'],
  ports,
};
const node: Place = { name: 'node-2', kind: 'node', node: 'node-2', ips: ['172.29.1.12'], ports };
const outside: Place = { name: 'outside', kind: 'outside', node: '', ips: ['198.51.100.2'], ports };

test('who may see which address', () => {
  const judge = (from: Place, to: Place, seen: string, local: string) =>
    translation(from, to, seen, local, topology);
  assert.equal(judge(pod, node, '10.244.0.2:5', '10.244.0.2:5'), undefined);
  assert.match(judge(pod, node, '172.29.1.11:5', '10.244.0.2:5') ?? '', /translated/);
  assert.match(judge(pod, node, '10.244.0.2:6', '10.244.0.2:5') ?? '', /translated/);
  assert.match(judge(pod, node, '10.244.0.9:5', '10.244.0.9:5') ?? '', /not the pod's address/);
  assert.equal(judge(node, pod, '10.244.1.0:5', '10.244.1.0:5'), undefined);
  assert.equal(judge(pod, outside, '172.29.1.11:9', '10.244.0.2:5'), undefined);
  assert.match(judge(pod, outside, '10.244.0.2:5', '10.244.0.2:5') ?? '', /not masqueraded/);
  assert.match(judge(pod, outside, '172.29.1.12:5', '10.244.0.2:5') ?? '', /not masqueraded/);
  assert.equal(addressOf('[fd00::2]:80'), 'fd00::2');
});

test('the matrix as text', () => {
  const dial = (from: Place, to: Place, ok: boolean): Dial => ({
    from: from.name,
    to: to.name,
    family: 4,
    protocol: 'tcp',
    ok,
    ...(!ok && { error: 'refused' }),
  });
  const places = [pod, node, outside];
  const good = [
    dial(pod, node, true),
    dial(pod, outside, true),
    dial(node, pod, true),
    dial(node, outside, true),
  ];
  assert.equal(
    renderReachability({ places, dials: good, ok: true, took: 7 }),
    `from \\ to      pod on node-1  node-2  outside
pod on node-1  ·              ✓v4     ✓v4
node-2         ✓v4            ·       ✓v4

4 of 4 dials, TCP and UDP over IPv4, in 7 ms: no translation among pods and nodes, masquerade to outside.`,
  );
  const bad = renderReachability({
    places,
    dials: [dial(pod, node, false), ...good.slice(1)],
    ok: false,
    took: 7,
  });
  assert.match(bad, /✗v4/);
  assert.match(bad, /3 of 4 dials succeeded:\n {2}pod on node-1 → node-2 tcp IPv4: refused/);
});
