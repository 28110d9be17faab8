import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { isWeftError } from '../base/errors.ts';
import { canonicalCidr, canonicalIp, cidrContains, type Family, parseCidr } from '../base/ip.ts';
import { nodeSteps, routerSteps } from './network.ts';
import { checkLabName, labPaths, shortUid } from './paths.ts';
import { type LabOptions, labSpec, MAX_NODES, nodeNumber, topologyOf } from './topology.ts';

test('three nodes on one subnet', () => {
  const topology = topologyOf(labSpec({ name: 'default', nodes: 3 }));
  assert.deepEqual(topology.subnets, [{ bridge: 'br1', addresses: ['172.29.1.1/24', 'fd57:29:1::1/64'] }]);
  assert.deepEqual(topology.nodes[2], {
    name: 'node-3',
    subnet: 1,
    port: 'node-3',
    addresses: ['172.29.1.13/24', 'fd57:29:1::13/64'],
    nodeIPs: ['172.29.1.13', 'fd57:29:1::13'],
    gateways: ['172.29.1.1', 'fd57:29:1::1'],
  });
  assert.deepEqual(topology.api, { address: '172.29.1.1', port: 6443 });
  assert.deepEqual(topology.outside.ips, ['198.51.100.2', '2001:db8:51::2']);
});

const anyLab = fc.record({
  name: fc.constant('lab'),
  nodes: fc.integer({ min: 1, max: MAX_NODES }),
  subnets: fc.integer({ min: 1, max: 16 }),
  families: fc.constantFrom<Family[]>([4], [6], [4, 6]),
});

test('in every topology: addresses are canonical, unique and on their subnet; ports and bridges have names Linux takes', () => {
  fc.assert(
    fc.property(anyLab, (options) => {
      const topology = topologyOf(labSpec(options));
      const all = topology.nodes.flatMap(({ nodeIPs }) => nodeIPs);
      assert.equal(new Set(all).size, options.nodes * options.families.length);
      for (const ip of all) assert.equal(canonicalIp(ip), ip);
      for (const node of topology.nodes) {
        const onLink = topology.subnets[node.subnet - 1]!.addresses.map(canonicalCidr);
        for (const ip of node.nodeIPs) assert.ok(onLink.some((cidr) => cidrContains(cidr, ip)));
        assert.equal(node.gateways.length, options.families.length);
        assert.ok(node.port.length <= 15);
        assert.ok(!topology.subnets.some(({ bridge }) => bridge === node.port));
      }
      const used = new Set(topology.nodes.map(({ subnet }) => subnet));
      assert.equal(used.size, Math.min(options.nodes, options.subnets));
    }),
  );
});

test('a node keeps its addresses when others come and go', () => {
  const spec = labSpec({ name: 'lab', nodes: 3, subnets: 2 });
  const [, second] = topologyOf(spec).nodes;
  assert.deepEqual(topologyOf(spec, ['node-9', 'node-2']).nodes[1], second);
});

test('the program of a topology creates each link once and gives every node a default route per family', () => {
  fc.assert(
    fc.property(anyLab, (options) => {
      const topology = topologyOf(labSpec(options));
      const paths = labPaths(options.name);
      const steps = [
        ...routerSteps(topology, paths),
        ...topology.nodes.flatMap((node) => nodeSteps(node, topology, paths)),
      ];
      const links = steps.flatMap(({ ns, ops }) =>
        ops.flatMap((op) => (op.op === 'link.create' ? [`${ns} ${op.link.name}`] : [])),
      );
      assert.equal(new Set(links).size, links.length);
      assert.equal(links.length, options.nodes + options.subnets + 1);
      for (const { name } of topology.nodes) {
        const routes = steps
          .filter(({ ns }) => ns === paths.node(name).netns)
          .flatMap(({ ops }) =>
            ops.flatMap((op) => (op.op === 'route.replace' ? [parseCidr(op.route.dst).family] : [])),
          );
        assert.deepEqual(routes.sort(), options.families);
      }
    }),
  );
});

describe('options that cannot be', () => {
  const cases: Array<[string, Partial<LabOptions>, RegExp]> = [
    ['no nodes', { nodes: 0 }, /nodes must be 1 to 64/],
    ['too many', { nodes: 65 }, /nodes must be/],
    ['half a node', { nodes: 1.5 }, /nodes must be/],
    ['no subnet', { subnets: 0 }, /subnets must be/],
    ['no family', { families: [] }, /families/],
    ['another fabric', { fabric: 'magic' as never }, /fabric must be/],
    ['two CIDRs of a family', { clusterCIDRs: ['10.1.0.0/16', '10.2.0.0/16'] }, /one per family/],
    ['a CIDR of a family that is not there', { families: [4], clusterCIDRs: ['fd00::/48'] }, /does not have/],
    ['a CIDR over the underlay', { clusterCIDRs: ['172.0.0.0/8'] }, /overlaps/],
    ['a malformed CIDR', { clusterCIDRs: ['10.0.0.0/33'] }, /not a CIDR/],
    ['a name with a hyphen', { name: 'a-b' }, /no name for a lab/],
  ];
  for (const [name, options, message] of cases) {
    test(name, () => {
      assert.throws(
        () => labSpec({ name: 'lab', nodes: 1, ...options }),
        (error) => isWeftError(error) && message.test(error.message),
      );
    });
  }
});

test('names of one lab are never the beginning of those of another', () => {
  const name = fc.stringMatching(/^[a-z][a-z0-9]{0,15}$/);
  fc.assert(
    fc.property(name, name, (a, b) => {
      checkLabName(a);
      if (a !== b)
        assert.ok(
          !labPaths(b)
            .node('node-1')
            .netns.includes(`/${labPaths(a).netnsPrefix}`),
        );
    }),
  );
  assert.equal(shortUid('0c63993f-6808-43e1-9982-26c6dff4ac27'), '0c63993f');
  for (const wrong of ['', 'A', '1a', 'a/b', '..', 'a'.repeat(17), 'ü'])
    assert.throws(() => checkLabName(wrong));
  for (const wrong of ['node-0', 'node-201', 'node-', 'pod-1', '../x'])
    assert.throws(() => nodeNumber(wrong));
});
