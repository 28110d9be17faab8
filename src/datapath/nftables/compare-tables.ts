/** What separates the table in the kernel from the desired one, and the nft commands that close the gap. */
import { compareIp, type Family, type Ip } from '../../base/ip.ts';
import {
  addElements,
  addRules,
  chainSpec,
  type FilterChain,
  type FilterSet,
  type FilterTable,
  renderTable,
  setSpec,
  tableName,
} from './filter-table.ts';
import { formatInterval, type Interval } from './intervals.ts';
import { elementIntervals, type ListedChain, type ListedTable } from './listed-table.ts';

export interface Drift {
  /** The object in which it is: `table inet weft`, `chain inet weft postrouting`, `set inet weft vteps4`. */
  object: string;
  /** What was otherwise than desired, in words. */
  message: string;
}

/** Addresses to add to and take from a hash set, done by raw nfnetlink. */
export interface SetDelta {
  set: FilterSet;
  missing: Ip[];
  extra: Ip[];
}

export interface TableDifference {
  drifts: Drift[];
  /** One transaction; empty when only elements of hash sets differ. */
  commands: string;
  deltas: SetDelta[];
}

/** `template` is the desired structure as this nft lists it. */
export function compareTables(
  desired: FilterTable,
  template: ListedTable,
  actual: ListedTable | undefined,
): TableDifference {
  return new Comparison(desired, template).run(actual);
}

class Comparison {
  readonly #desired: FilterTable;
  readonly #template: ListedTable;
  readonly #name: string;
  readonly #drifts: Drift[] = [];
  /** What nothing depends on is removed after the rules that used it. */
  readonly #additions: string[] = [];
  readonly #rules: string[] = [];
  readonly #removals: string[] = [];
  readonly #deltas: SetDelta[] = [];
  #replace = false;

  constructor(desired: FilterTable, template: ListedTable) {
    this.#desired = desired;
    this.#template = template;
    this.#name = tableName(desired);
  }

  run(actual: ListedTable | undefined): TableDifference {
    const full = renderTable(this.#desired, { elements: true });
    if (!actual) {
      this.#report('table', '', 'was missing');
      return { drifts: this.#drifts, commands: full, deltas: [] };
    }
    if (actual.spec !== this.#template.spec) {
      this.#report('table', '', `was ${actual.spec} instead of ${this.#template.spec}`);
      this.#replace = true;
    }
    for (const counter of this.#desired.counters) {
      if (actual.counters.has(counter)) continue;
      this.#report('counter', counter, 'was missing');
      this.#additions.push(`add counter ${this.#name} ${counter}`);
    }
    for (const set of this.#desired.sets) this.#compareSet(set, actual);
    for (const chain of this.#desired.chains) this.#compareChain(chain, actual);
    this.#removeStrangers(actual);
    if (this.#replace) {
      return { drifts: this.#drifts, commands: `delete table ${this.#name}\n${full}`, deltas: [] };
    }
    const commands = [...this.#additions, ...this.#rules, ...this.#removals];
    return {
      drifts: this.#drifts,
      commands: commands.length === 0 ? '' : `${commands.join('\n')}\n`,
      deltas: this.#deltas,
    };
  }

  #report(kind: string, name: string, what: string): void {
    const object = `${kind} ${this.#name}${name && ` ${name}`}`;
    this.#drifts.push({ object, message: `${object}: ${what}`.replace(/: was missing$/, ' was missing') });
  }

  // --- sets ---

  #compareSet(set: FilterSet, actual: ListedTable): void {
    const found = actual.sets.get(set.name);
    if (!found) {
      this.#report('set', set.name, 'was missing');
      this.#additions.push(
        `add set ${this.#name} ${set.name} ${setSpec(set)}`,
        ...addElements(this.#desired, set),
      );
      return;
    }
    const { spec } = this.#template.sets.get(set.name)!;
    if (found.spec !== spec) {
      this.#report('set', set.name, `was ${found.spec} instead of ${spec}`);
      this.#replace = true; // rules refer to it: it cannot be made anew by itself
      return;
    }
    const { missing, extra } = elementDifference(set, found.elements);
    if (missing.length === 0 && extra.length === 0) return;
    const words: string[] = [];
    if (missing.length) words.push(`${enumerate(missing)} missing`);
    if (extra.length) words.push(`${enumerate(extra)} too many`);
    this.#report('set', set.name, words.join(', '));
    if (set.interval) {
      this.#additions.push(`flush set ${this.#name} ${set.name}`, ...addElements(this.#desired, set));
    } else this.#deltas.push({ set, missing, extra });
  }

  // --- chains ---

  #compareChain(chain: FilterChain, actual: ListedTable): void {
    const found = actual.chains.get(chain.name);
    const want = this.#template.chains.get(chain.name)!;
    const add = `add chain ${this.#name} ${chain.name} ${chainSpec(chain)}`.trimEnd();
    if (!found) {
      this.#report('chain', chain.name, 'was missing');
      this.#additions.push(add);
      this.#rules.push(...addRules(this.#desired, chain));
      return;
    }
    if (found.spec !== want.spec) {
      this.#report('chain', chain.name, `was ${found.spec} instead of ${want.spec}`);
      this.#replace = true;
      return;
    }
    if (found.policy !== want.policy) {
      this.#report('chain', chain.name, `the policy was ${found.policy} instead of ${want.policy}`);
      this.#additions.push(add);
    }
    const words = ruleDifference(chain, want, found);
    if (words.length === 0) return;
    for (const what of words) this.#report('chain', chain.name, what);
    this.#rules.push(`flush chain ${this.#name} ${chain.name}`, ...addRules(this.#desired, chain));
  }

  // --- what does not belong ---

  #removeStrangers(actual: ListedTable): void {
    const strangers = (names: Iterable<string>, own: ReadonlySet<string>): string[] =>
      [...names].filter((name) => !own.has(name));
    const chains = strangers(actual.chains.keys(), new Set(this.#desired.chains.map(({ name }) => name)));
    const sets = strangers(actual.sets.keys(), new Set(this.#desired.sets.map(({ name }) => name)));
    const counters = strangers(actual.counters.keys(), new Set(this.#desired.counters));
    // Rules first, then what they refer to; maps may refer to chains.
    for (const name of chains) this.#rules.push(`flush chain ${this.#name} ${name}`);
    const remove = (kind: string, name: string): void => {
      this.#report(kind, name, 'does not belong there');
      this.#removals.push(`delete ${kind} ${this.#name} ${name}`);
    };
    for (const name of sets) remove('set', name);
    for (const { kind, name } of actual.others) if (kind === 'map') remove(kind, name);
    for (const name of chains) remove('chain', name);
    for (const name of counters) remove('counter', name);
    for (const { kind, name } of actual.others) if (kind !== 'map') remove(kind, name);
  }
}

function elementDifference(set: FilterSet, elements: unknown[]): { missing: string[]; extra: string[] } {
  const want = elementIntervals(set.elements.map(parseElement));
  const have = elementIntervals(elements);
  if (!set.interval) {
    const wanted = new Set(set.elements);
    const found = new Set(
      elements.map((element) => formatInterval(elementIntervals([element])[0]!, set.family)),
    );
    return {
      missing: set.elements.filter((ip) => !found.has(ip)),
      extra: [...found].filter((ip) => !wanted.has(ip)).sort(compareIp),
    };
  }
  const texts = (intervals: Interval[]): string[] =>
    intervals.map((i) => formatInterval(i, set.family as Family));
  const wanted = texts(want);
  const found = texts(have);
  return {
    missing: wanted.filter((text) => !found.includes(text)),
    extra: found.filter((text) => !wanted.includes(text)),
  };
}

/** `a-b` in the listing's form. */
function parseElement(text: string): unknown {
  const dash = text.indexOf('-');
  return dash < 0 ? text : { range: [text.slice(0, dash), text.slice(dash + 1)] };
}

/** In words; empty when the rules are the same ones in the same order. */
function ruleDifference(chain: FilterChain, want: ListedChain, found: ListedChain): string[] {
  if (
    want.rules.length === found.rules.length &&
    want.rules.every((rule, i) => rule.text === found.rules[i]!.text)
  ) {
    return [];
  }
  const words: string[] = [];
  const unmatched = [...found.rules];
  want.rules.forEach((rule, i) => {
    const at = unmatched.findIndex(({ text }) => text === rule.text);
    if (at >= 0) unmatched.splice(at, 1);
    else words.push(`rule "${chain.rules[i]}" was missing`);
  });
  for (const { text, handle } of unmatched) words.push(`rule ${handle} does not belong there: ${text}`);
  return words.length > 0 ? words : ['the rules were in another order'];
}

function enumerate(values: string[]): string {
  const shown = values.slice(0, 5).join(', ');
  return values.length > 5 ? `${shown} and ${values.length - 5} more` : shown;
}
