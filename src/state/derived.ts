/**
 * Tables computed from tables, each change in time proportional to what it affects. The functions given must be pure:
 * a row's old results are found again by computing them again, so nothing but the results is kept.
 *
 * What every one of them promises, and the property tests check: after any changes in any order and any batches, the
 * derived table equals the one computed afresh from the sources as they are.
 */
import { KeyIndex, list, type Values } from './key-index.ts';
import { depthOf, type IndexedTable, KeyedTable } from './memory-table.ts';
import type { Change, ReadTable } from './table.ts';

export interface DerivedTable<R> extends IndexedTable<R>, Disposable {}

class Derived<R> extends KeyedTable<R> implements DerivedTable<R> {
  readonly #inputs = new DisposableStack();

  constructor(name: string, ...sources: ReadTable<unknown>[]) {
    super(name, 1 + Math.max(...sources.map((table) => (table instanceof KeyedTable ? table[depthOf] : 0))));
  }

  follow<T>(source: ReadTable<T>, listener: (changes: Change<T>[]) => void): void {
    this.#inputs.use(source.subscribe(listener, { initial: true }));
  }

  /** `undefined`: no such row. */
  set(key: string, row: R | undefined): void {
    if (row === undefined) this.remove(key);
    else this.put(key, row);
  }

  /** Stops following the sources; the rows stay. */
  [Symbol.dispose](): void {
    this.#inputs.dispose();
  }
}

/** One row per source row, under the same key; `undefined` leaves it out. */
export function mapTable<T, R>(
  source: ReadTable<T>,
  name: string,
  map: (row: T, key: string) => R | undefined,
): DerivedTable<R> {
  const derived = new Derived<R>(name, source);
  derived.follow(source, (changes) => {
    for (const { key, new: row } of changes) derived.set(key, row === undefined ? undefined : map(row, key));
  });
  return derived;
}

/** The rows that pass, under the same keys. */
export function filterTable<T>(
  source: ReadTable<T>,
  name: string,
  keep: (row: T, key: string) => boolean,
): DerivedTable<T> {
  return mapTable(source, name, (row, key) => (keep(row, key) ? row : undefined));
}

/**
 * Any number of rows per source row, each with its key. Should several source rows give rows with one key, that of the
 * source key that sorts first is in the table, whatever came first in time.
 */
export function flatMapTable<T, R>(
  source: ReadTable<T>,
  name: string,
  map: (row: T, key: string) => Iterable<[key: string, row: R]>,
): DerivedTable<R> {
  const derived = new Derived<R>(name, source);
  /** Result key → source keys of all that give it. */
  const givers = new KeyIndex();
  const resultsOf = (key: string, row = source.get(key)): Map<string, R> =>
    new Map(row === undefined ? [] : map(row, key));

  derived.follow(source, (changes) => {
    const touched = new Set<string>();
    for (const { key, old, new: now } of changes) {
      for (const [resultKey] of old === undefined ? [] : map(old, key)) {
        givers.remove(resultKey, key);
        touched.add(resultKey);
      }
      for (const [resultKey] of now === undefined ? [] : map(now, key)) {
        givers.add(resultKey, key);
        touched.add(resultKey);
      }
    }
    const computed = new Map<string, Map<string, R>>();
    for (const resultKey of touched) {
      const giver = least(givers.get(resultKey));
      let results: Map<string, R> | undefined;
      if (giver !== undefined) {
        results = computed.get(giver) ?? resultsOf(giver);
        computed.set(giver, results);
      }
      derived.set(resultKey, results?.get(resultKey));
    }
  });
  return derived;
}

function least(keys: Iterable<string>): string | undefined {
  let first: string | undefined;
  for (const key of keys) if (first === undefined || key < first) first = key;
  return first;
}

export interface JoinOptions<L, R, O> {
  /** What a left row looks for. */
  on: (left: L, key: string) => Values;
  /** What a right row is found by. */
  by: (right: R, key: string) => Values;
  /** `rights`: every right row that matches, once, in order of its key. Undefined: no row. */
  join: (left: L, rights: R[], key: string) => O | undefined;
}

/**
 * One row per left row, under the same key, computed with the right rows it refers to (pods with their nodes, Services
 * with their EndpointSlices). A change on the right recomputes only the left rows that look for it.
 */
export function joinTables<L, R, O>(
  left: ReadTable<L>,
  right: ReadTable<R>,
  name: string,
  options: JoinOptions<L, R, O>,
): DerivedTable<O> {
  const derived = new Derived<O>(name, left, right);
  const wanting = new KeyIndex();
  const offering = new KeyIndex();

  const recompute = (key: string): void => {
    const row = left.get(key);
    derived.set(key, row === undefined ? undefined : options.join(row, matches(row, key), key));
  };
  const matches = (row: L, leftKey: string): R[] => {
    const keys = new Set<string>();
    for (const value of list(options.on(row, leftKey))) for (const key of offering.get(value)) keys.add(key);
    const rights: R[] = [];
    for (const key of [...keys].sort()) {
      const match = right.get(key);
      if (match !== undefined) rights.push(match);
    }
    return rights;
  };

  derived.follow(left, (changes) => {
    for (const { key, old, new: now } of changes) {
      if (old !== undefined) wanting.remove(options.on(old, key), key);
      if (now !== undefined) wanting.add(options.on(now, key), key);
      recompute(key);
    }
  });
  derived.follow(right, (changes) => {
    const affected = new Set<string>();
    const touch = (values: Values): void => {
      for (const value of list(values)) for (const key of wanting.get(value)) affected.add(key);
    };
    for (const { key, old, new: now } of changes) {
      if (old !== undefined) {
        offering.remove(options.by(old, key), key);
        touch(options.by(old, key));
      }
      if (now !== undefined) {
        offering.add(options.by(now, key), key);
        touch(options.by(now, key));
      }
    }
    for (const key of affected) recompute(key);
  });
  return derived;
}
