import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { isWeftError } from '../../base/errors.ts';
import type { NodeFilter } from '../../state/fabric-plan.ts';
import { renderTable } from './filter-table.ts';
import { nodeFilterTables } from './node-filter.ts';

const vxlan: NodeFilter = {
  podCIDRs: ['10.244.1.0/24', 'fd00:10:244:1::/64'],
  noMasquerade: ['10.244.0.0/16', 'fd00:10:244::/48', '192.0.2.11/32', '192.0.2.12/32', '2001:db8::11/128'],
  vteps: ['192.0.2.12', '192.0.2.13', '2001:db8::12'],
  encapPort: 8472,
  masquerade: true,
};
const { encapPort: _, ...direct } = vxlan;
const cases: Record<string, NodeFilter> = {
  vxlan,
  'host-gw': { ...direct, vteps: [] },
  'no-masquerade': { ...vxlan, masquerade: false },
  'ipv4-alone': {
    podCIDRs: ['10.244.0.0/24'],
    noMasquerade: ['10.244.0.0/16'],
    vteps: [],
    encapPort: 8472,
    masquerade: true,
  },
};

/** `WEFT_UPDATE_GOLDENS=1` writes the files anew. */
for (const [name, filter] of Object.entries(cases)) {
  test(`golden: ${name}`, () => {
    const text = nodeFilterTables(filter)
      .map((table) => renderTable(table, { elements: true }))
      .join('\n');
    const file = path.join(import.meta.dirname, 'testdata', `${name}.nft`);
    if (process.env.WEFT_UPDATE_GOLDENS) writeFileSync(file, text);
    assert.equal(text, readFileSync(file, 'utf8'));
  });
}

test('the structure does not depend on nodes, pods or prefixes', () => {
  const structure = (filter: NodeFilter): string =>
    nodeFilterTables(filter)
      .map((table) => renderTable(table, { elements: false }))
      .join();
  assert.equal(structure(vxlan), structure({ ...vxlan, podCIDRs: [], noMasquerade: ['::/0'], vteps: [] }));
  assert.notEqual(structure(vxlan), structure({ ...vxlan, encapPort: 4789 }));
});

test('the same desire in another order or spelling is the same text', () => {
  const text = (filter: NodeFilter): string =>
    nodeFilterTables(filter)
      .map((t) => renderTable(t, { elements: true }))
      .join();
  const other = {
    ...vxlan,
    podCIDRs: vxlan.podCIDRs.toReversed(),
    noMasquerade: [...vxlan.noMasquerade.toReversed(), '10.244.7.0/24'],
    vteps: ['2001:0db8::0012', '192.0.2.13', '192.0.2.12', '192.0.2.13'],
  };
  assert.equal(text(other), text(vxlan));
});

test('what is no port or address is refused', () => {
  for (const encapPort of [0, 65536, 1.5, Number.NaN]) {
    assert.throws(
      () => nodeFilterTables({ ...vxlan, encapPort }),
      (e) => isWeftError(e, 'WEFT_BAD_CONFIG'),
    );
  }
  for (const bad of [
    { vteps: ['node-2'] },
    { vteps: ['1.2.3.4 }; flush ruleset'] },
    { podCIDRs: ['10.0.0.0/33'] },
    { noMasquerade: ['x'] },
  ]) {
    assert.throws(
      () => nodeFilterTables({ ...vxlan, ...bad }),
      (e) => isWeftError(e, 'WEFT_BAD_ADDRESS'),
    );
  }
});
