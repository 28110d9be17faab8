/**
 * `nft -j list table` in a form that compares: no handles, no counter values, rules in order by chain, elements as the
 * texts that went in.
 *
 * Source of the format: libnftables-json(5).
 */
import type { NftListing } from '../../kernel/types.ts';

export interface ListedTable {
  /** Chain name → its declaration and rules, each as canonical JSON. */
  chains: Map<string, { declaration: string; rules: string[] }>;
  /** Set name → its declaration and elements. */
  sets: Map<string, { declaration: string; elements: string[] }>;
  /** Counters and other named objects: `type name`. */
  objects: string[];
}

export function readListing(listing: NftListing): ListedTable {
  const table: ListedTable = { chains: new Map(), sets: new Map(), objects: [] };
  for (const entry of listing.nftables) {
    for (const [type, value] of Object.entries(entry)) {
      if (type === 'metainfo' || type === 'table') continue;
      const { handle: _handle, family: _family, table: _table, ...rest } = value as Record<string, unknown>;
      const name = String(rest.name);
      if (type === 'chain') table.chains.set(name, { declaration: canonical(rest), rules: [] });
      else if (type === 'rule') table.chains.get(String(rest.chain))?.rules.push(canonical(rest));
      else if (type === 'set' || type === 'map') {
        const { elem, ...declaration } = rest;
        const elements = Array.isArray(elem) ? elem.map(elementText).sort() : [];
        table.sets.set(name, { declaration: canonical(declaration), elements });
      } else table.objects.push(`${type} ${name}`);
    }
  }
  table.objects.sort();
  return table;
}

/** An element as `add element` takes it: an address, a prefix or a range; anything else as JSON. */
function elementText(element: unknown): string {
  if (typeof element === 'string' || typeof element === 'number') return String(element);
  if (typeof element === 'object' && element !== null) {
    const { prefix, range, elem } = element as {
      prefix?: { addr: string; len: number };
      range?: [string, string];
      elem?: { val: unknown };
    };
    if (prefix) return `${prefix.addr}/${prefix.len}`;
    if (range) return `${range[0]}-${range[1]}`;
    if (elem) return elementText(elem.val);
  }
  return canonical(element);
}

/** JSON with sorted keys, without handles and without what counters have counted. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (key, inner: unknown) => {
    if (key === 'handle' || key === 'packets' || key === 'bytes') return undefined;
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}

/** In what the first table differs from what is expected, in words; empty when not at all. Elements are not compared. */
export function structuralDifferences(found: ListedTable, expected: ListedTable): string[] {
  const differences: string[] = [];
  const names = (a: Map<string, unknown>, b: Map<string, unknown>): Set<string> =>
    new Set([...a.keys(), ...b.keys()]);
  for (const name of names(expected.chains, found.chains)) {
    const want = expected.chains.get(name);
    const have = found.chains.get(name);
    if (!have) differences.push(`chain ${name} was missing`);
    else if (!want) differences.push(`chain ${name} was extra`);
    else if (have.declaration !== want.declaration)
      differences.push(`chain ${name} had another type, hook or policy`);
    else if (have.rules.join() !== want.rules.join())
      differences.push(describeRules(name, have.rules, want.rules));
  }
  for (const name of names(expected.sets, found.sets)) {
    const want = expected.sets.get(name);
    const have = found.sets.get(name);
    if (!have) differences.push(`set ${name} was missing`);
    else if (!want) differences.push(`set ${name} was extra`);
    else if (have.declaration !== want.declaration) differences.push(`set ${name} was of another type`);
  }
  for (const object of expected.objects) {
    if (!found.objects.includes(object)) differences.push(`${object} was missing`);
  }
  return differences;
}

function describeRules(chain: string, have: string[], want: string[]): string {
  const missing = want.filter((rule) => !have.includes(rule)).length;
  const extra = have.filter((rule) => !want.includes(rule)).length;
  const parts = [
    ...(missing > 0 ? [`${missing} of ${want.length} rules missing`] : []),
    ...(extra > 0 ? [`${extra} foreign ${extra === 1 ? 'rule' : 'rules'}`] : []),
  ];
  return `chain ${chain} had ${parts.join(' and ') || 'its rules in another order'}`;
}
