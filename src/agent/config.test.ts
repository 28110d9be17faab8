import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { loadAgentConfig, parseAgentConfig } from './config.ts';

const minimal = { nodeName: 'n1', kubeconfig: '/k' };

test('two fields suffice; the rest has defaults', () => {
  const config = parseAgentConfig(minimal);
  assert.equal(config.fabric.backend, 'auto');
  assert.equal(config.fabric.vxlanPort, 8472);
  assert.deepEqual(config.clusterCIDRs, ['10.244.0.0/16', 'fd00:10:244::/48']);
  assert.equal(config.registerNode, true);
});

test('addresses become canonical', () => {
  const config = parseAgentConfig({
    ...minimal,
    clusterCIDRs: ['FD00:0::/48', '10.1.2.3/16'],
    nodeIPs: ['FD00::0001'],
  });
  assert.deepEqual(config.clusterCIDRs, ['fd00::/48', '10.1.0.0/16']);
  assert.deepEqual(config.nodeIPs, ['fd00::1']);
});

test('each wrong field is named', () => {
  const table: Array<[unknown, RegExp]> = [
    [null, /top level must be an object/],
    [[], /top level must be an object/],
    [{ kubeconfig: '/k' }, /nodeName must be a text/],
    [{ ...minimal, nodeName: 'Node_1' }, /nodeName must be a DNS-1123/],
    [{ ...minimal, nodename: 'x' }, /nodename is unknown; known are nodeName/],
    [{ ...minimal, fabric: { backend: 'gre' } }, /fabric.backend must be one of auto, vxlan, host-gw/],
    [
      { ...minimal, fabric: { vxlanVni: 2 ** 24 } },
      /fabric.vxlanVni must be a whole number from 0 to 16777215/,
    ],
    [{ ...minimal, fabric: { mtu: 576 } }, /fabric.mtu must be 0 or at least 1280/],
    [{ ...minimal, fabric: 'vxlan' }, /fabric must be an object/],
    [{ ...minimal, clusterCIDRs: [] }, /clusterCIDRs names no CIDR/],
    [
      { ...minimal, clusterCIDRs: ['10.0.0.0/8', '11.0.0.0/8'] },
      /clusterCIDRs may name at most one of each family/,
    ],
    [{ ...minimal, clusterCIDRs: ['10.0.0.0/40'] }, /clusterCIDRs "10.0.0.0\/40" is not a CIDR/],
    [{ ...minimal, clusterCIDRs: '10.0.0.0/8' }, /clusterCIDRs must be a list/],
    [{ ...minimal, registerNode: 'yes' }, /registerNode must be true or false/],
    [{ ...minimal, metrics: { port: 70000 } }, /metrics.port/],
    [{ ...minimal, cni: { socket: '' } }, /cni.socket must be a text/],
  ];
  for (const [value, message] of table) {
    assert.throws(
      () => parseAgentConfig(value),
      (e: Error & { code?: string }) => {
        assert.equal(e.code, 'WEFT_BAD_CONFIG');
        assert.match(e.message, message);
        return true;
      },
    );
  }
});

test('any JSON either is a configuration or a coded error', () => {
  fc.assert(
    fc.property(
      fc.jsonValue(),
      fc.constantFrom('fabric', 'cni', 'masquerade', 'metrics', 'clusterCIDRs', 'nodeIPs'),
      (value, field) => {
        try {
          parseAgentConfig({ ...minimal, [field]: value });
        } catch (error) {
          assert.equal((error as { code?: string }).code, 'WEFT_BAD_CONFIG');
        }
      },
    ),
    { numRuns: 1000 },
  );
});

test('a file: YAML, JSON, missing, broken', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'weft-config-'));
  try {
    const file = path.join(dir, 'c.yaml');
    writeFileSync(file, 'nodeName: a\nkubeconfig: /k\nfabric: {backend: host-gw}\n');
    assert.equal((await loadAgentConfig(file)).fabric.backend, 'host-gw');
    writeFileSync(file, JSON.stringify(minimal));
    assert.equal((await loadAgentConfig(file)).nodeName, 'n1');
    writeFileSync(file, 'a: [');
    await assert.rejects(loadAgentConfig(file), { code: 'WEFT_BAD_CONFIG' });
    await assert.rejects(loadAgentConfig(path.join(dir, 'none')), { code: 'WEFT_BAD_CONFIG' });
  } finally {
    rmSync(dir, { recursive: true });
  }
});
