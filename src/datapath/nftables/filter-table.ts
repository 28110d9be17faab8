/**
 * The form of an nftables table of Weft's: chains with rules in nft's own language, sets with their elements, named
 * counters. Plain values, from which the text is rendered and with which the kernel's listing is compared.
 */

/** Set elements are addresses, or disjoint CIDRs where `interval` is set. */
export interface FilterSet {
  name: string;
  family: 4 | 6;
  interval: boolean;
  elements: string[];
}

export interface FilterChain {
  name: string;
  /** Absent: reached by jumps only. */
  hook?: { type: 'filter' | 'nat'; hook: string; priority: string };
  /** One line of nft each. */
  rules: string[];
}

export interface FilterTable {
  family: 'inet' | 'arp';
  name: string;
  counters: string[];
  sets: FilterSet[];
  chains: FilterChain[];
}

/** `inet weft`. */
export function tableName(table: FilterTable): string {
  return `${table.family} ${table.name}`;
}

export function setSpec(set: FilterSet): string {
  return `{ type ${set.family === 4 ? 'ipv4_addr' : 'ipv6_addr'};${set.interval ? ' flags interval;' : ''} }`;
}

export function chainSpec({ hook }: FilterChain): string {
  if (!hook) return '';
  return `{ type ${hook.type} hook ${hook.hook} priority ${hook.priority}; policy accept; }`;
}

/**
 * The table as a list of commands, which together are one transaction. Without elements it is the table's structure, which
 * depends on few choices and on no node or pod.
 */
export function renderTable(table: FilterTable, { elements }: { elements: boolean }): string {
  const name = tableName(table);
  const lines = [`add table ${name}`];
  for (const counter of table.counters) lines.push(`add counter ${name} ${counter}`);
  for (const set of table.sets) {
    lines.push(`add set ${name} ${set.name} ${setSpec(set)}`);
    if (elements) lines.push(...addElements(table, set));
  }
  // Chains before rules: a rule may jump to a chain that comes later.
  for (const chain of table.chains)
    lines.push(`add chain ${name} ${chain.name} ${chainSpec(chain)}`.trimEnd());
  for (const chain of table.chains) lines.push(...addRules(table, chain));
  return `${lines.join('\n')}\n`;
}

export function addRules(table: FilterTable, chain: FilterChain): string[] {
  return chain.rules.map((rule) => `add rule ${tableName(table)} ${chain.name} ${rule}`);
}

export function addElements(table: FilterTable, set: FilterSet): string[] {
  if (set.elements.length === 0) return [];
  return [`add element ${tableName(table)} ${set.name} { ${set.elements.join(', ')} }`];
}
