/** A table as `nft -j list table` gives it, reduced to what can be compared: no handles, no counts. */

import { ipToBigInt } from '../../base/ip.ts';
import type { NftListing } from '../../kernel/types.ts';
import { cidrInterval, type Interval, mergeIntervals } from './intervals.ts';

export interface ListedRule {
  /** Expressions as JSON, and the comment. */
  text: string;
  handle: number;
}

export interface ListedChain {
  /** Type, hook and priority as JSON. */
  spec: string;
  policy: string | undefined;
  rules: ListedRule[];
}

export interface ListedSet {
  /** Type and flags as JSON. */
  spec: string;
  elements: unknown[];
}

export interface ListedTable {
  /** Flags and comment as JSON. */
  spec: string;
  chains: Map<string, ListedChain>;
  sets: Map<string, ListedSet>;
  counters: Map<string, { packets: number; bytes: number }>;
  /** `map x`, `flowtable y`: kinds of objects that the node's tables have none of, in the order of the listing. */
  others: Array<{ kind: string; name: string }>;
}

type Fields = Record<string, unknown>;

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Everything but what identifies the object or changes by itself. */
function specOf({ family, table, name, handle, elem, policy, packets, bytes, ...rest }: Fields): string {
  return JSON.stringify(rest);
}

/** Counts within a rule are not part of it. */
function withoutCounts(key: string, value: unknown): unknown {
  if (key !== 'counter' || !isFields(value)) return value;
  return {};
}

/** Tables of a listing by `family name`. */
export function readListing(listing: NftListing): Map<string, ListedTable> {
  const tables = new Map<string, ListedTable>();
  for (const entry of listing.nftables) {
    const [kind, value] = Object.entries(entry)[0] ?? [];
    if (kind === undefined || !isFields(value) || kind === 'metainfo') continue;
    const name = String(value.name);
    if (kind === 'table') {
      tables.set(`${value.family} ${name}`, {
        spec: specOf(value),
        chains: new Map(),
        sets: new Map(),
        counters: new Map(),
        others: [],
      });
      continue;
    }
    const table = tables.get(`${value.family} ${value.table}`);
    if (table) addObject(table, kind, name, value);
  }
  return tables;
}

function addObject(table: ListedTable, kind: string, name: string, value: Fields): void {
  switch (kind) {
    case 'chain': {
      const policy = typeof value.policy === 'string' ? value.policy : undefined;
      table.chains.set(name, { spec: specOf(value), policy, rules: [] });
      break;
    }
    case 'rule':
      table.chains.get(String(value.chain))?.rules.push({
        text: JSON.stringify([value.expr, value.comment ?? null], withoutCounts),
        handle: Number(value.handle),
      });
      break;
    case 'set':
      table.sets.set(name, {
        spec: specOf(value),
        elements: Array.isArray(value.elem) ? value.elem : [],
      });
      break;
    case 'counter':
      table.counters.set(name, { packets: Number(value.packets), bytes: Number(value.bytes) });
      break;
    default:
      table.others.push({ kind, name });
  }
}

/**
 * Addresses, prefixes and ranges of a set as disjoint intervals. An element that has more to it (a timeout, a comment, a
 * counter) is the element all the same.
 */
export function elementIntervals(elements: unknown[]): Interval[] {
  return mergeIntervals(elements.map(elementInterval));
}

function elementInterval(element: unknown): Interval {
  if (typeof element === 'string') return cidrInterval(element);
  if (isFields(element)) {
    const { elem, prefix, range } = element;
    if (isFields(elem)) return elementInterval(elem.val);
    if (isFields(prefix)) return cidrInterval(`${prefix.addr}/${prefix.len}`);
    if (Array.isArray(range))
      return { first: ipToBigInt(String(range[0])), last: ipToBigInt(String(range[1])) };
  }
  throw new TypeError(`nft lists an element that is no address: ${JSON.stringify(element)}`);
}
