import { structurallyEqual } from './equal.ts';
import { KeyIndex, type Values } from './key-index.ts';
import type { Change, ReadTable } from './table.ts';
import { type Deliverable, deliverAfterTurn } from './turn.ts';

/** Rows of a table by something other than their key. Always as current as the table itself. */
export interface Index<T> {
  /** Rows filed under `value`, in no particular order. */
  get(value: string): IterableIterator<T>;
  /** How many rows are filed under `value`. */
  count(value: string): number;
  /** All values that have rows. */
  values(): IterableIterator<string>;
}

export interface IndexedTable<T> extends ReadTable<T> {
  /** A secondary index, kept from now on. A row is filed under every value that `valuesOf` (pure) gives for it. */
  index(valuesOf: (row: T) => Values): Index<T>;
}

/** Distance from the sources; see turn.ts. Symbol-keyed: of no concern to users of a table. */
export const depthOf = Symbol('depth');

/** Rows by key, indexes and subscribers: what plain and derived tables have in common. */
export class KeyedTable<T> implements IndexedTable<T> {
  readonly name: string;
  readonly [depthOf]: number;
  readonly #rows = new Map<string, T>();
  readonly #subscriptions = new Set<Subscription<T>>();
  readonly #indexes = new Set<RowIndex<T>>();
  #revision = 0;

  constructor(name: string, depth: number) {
    this.name = name;
    this[depthOf] = depth;
  }

  get size(): number {
    return this.#rows.size;
  }

  get revision(): number {
    return this.#revision;
  }

  get(key: string): T | undefined {
    return this.#rows.get(key);
  }

  has(key: string): boolean {
    return this.#rows.has(key);
  }

  values(): IterableIterator<T> {
    return this.#rows.values();
  }

  keys(): IterableIterator<string> {
    return this.#rows.keys();
  }

  subscribe(listener: (changes: Change<T>[]) => void, options: { initial?: boolean } = {}): Disposable {
    const subscription = new Subscription(this, listener, () => this.#subscriptions.delete(subscription));
    this.#subscriptions.add(subscription);
    if (options.initial) for (const key of this.#rows.keys()) subscription.note(key, undefined);
    return subscription;
  }

  index(valuesOf: (row: T) => Values): Index<T> {
    const index = new RowIndex(this.#rows, valuesOf);
    this.#indexes.add(index);
    return index;
  }

  /** Insert or replace; whether anything changed. */
  protected put(key: string, row: T): boolean {
    const old = this.#rows.get(key);
    if (old !== undefined && structurallyEqual(old, row)) return false;
    this.#rows.set(key, row);
    this.#changed(key, old, row);
    return true;
  }

  /** Whether there was such a row. */
  protected remove(key: string): boolean {
    const old = this.#rows.get(key);
    if (old === undefined) return false;
    this.#rows.delete(key);
    this.#changed(key, old, undefined);
    return true;
  }

  #changed(key: string, old: T | undefined, row: T | undefined): void {
    this.#revision++;
    for (const index of this.#indexes) index.change(key, old, row);
    for (const subscription of this.#subscriptions) subscription.note(key, old);
  }
}

/**
 * The table: a map of rows with change sets. Rows are values: whoever wrote or read one does not change it.
 *
 * A write of a row that is structurally equal to the one in place changes nothing, and is told to nobody.
 */
export class MemoryTable<T> extends KeyedTable<T> {
  readonly keyOf: (row: T) => string;

  constructor(name: string, keyOf: (row: T) => string) {
    super(name, 0);
    this.keyOf = keyOf;
  }

  /** Insert or replace. Returns whether anything changed. */
  upsert(row: T): boolean {
    return this.put(this.keyOf(row), row);
  }

  /** Returns whether there was such a row. */
  delete(key: string): boolean {
    return this.remove(key);
  }

  /** Make the table hold exactly these rows; of two with one key the later counts. Returns how many changes it took. */
  replaceAll(rows: Iterable<T>): number {
    const before = this.revision;
    const wanted = new Map<string, T>();
    for (const row of rows) wanted.set(this.keyOf(row), row);
    for (const key of this.keys()) if (!wanted.has(key)) this.remove(key);
    for (const [key, row] of wanted) this.put(key, row);
    return this.revision - before;
  }
}

/** What one subscriber has not been told yet. */
class Subscription<T> implements Deliverable, Disposable {
  readonly depth: number;
  readonly #table: KeyedTable<T>;
  readonly #listener: (changes: Change<T>[]) => void;
  readonly #onClose: () => void;
  /** Key → the row as the subscriber knows it. */
  #unseen = new Map<string, T | undefined>();
  #scheduled = false;
  #closed = false;

  constructor(table: KeyedTable<T>, listener: (changes: Change<T>[]) => void, onClose: () => void) {
    this.#table = table;
    this.depth = table[depthOf];
    this.#listener = listener;
    this.#onClose = onClose;
  }

  note(key: string, old: T | undefined): void {
    if (!this.#unseen.has(key)) this.#unseen.set(key, old);
    if (this.#scheduled) return;
    this.#scheduled = true;
    deliverAfterTurn(this);
  }

  deliver(): void {
    this.#scheduled = false;
    if (this.#closed) return;
    const unseen = this.#unseen;
    this.#unseen = new Map();
    const changes: Change<T>[] = [];
    for (const [key, old] of unseen) {
      const now = this.#table.get(key);
      if (old === undefined) {
        if (now !== undefined) changes.push({ key, new: now });
      } else if (now === undefined) changes.push({ key, old });
      else if (!structurallyEqual(old, now)) changes.push({ key, old, new: now });
    }
    if (changes.length > 0) this.#listener(changes);
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    this.#unseen.clear();
    this.#onClose();
  }
}

class RowIndex<T> implements Index<T> {
  readonly #rows: ReadonlyMap<string, T>;
  readonly #valuesOf: (row: T) => Values;
  readonly #keys = new KeyIndex();

  constructor(rows: ReadonlyMap<string, T>, valuesOf: (row: T) => Values) {
    this.#rows = rows;
    this.#valuesOf = valuesOf;
    for (const [key, row] of rows) this.change(key, undefined, row);
  }

  *get(value: string): IterableIterator<T> {
    for (const key of this.#keys.get(value)) yield this.#rows.get(key)!;
  }

  count(value: string): number {
    return this.#keys.count(value);
  }

  values(): IterableIterator<string> {
    return this.#keys.values();
  }

  change(key: string, old: T | undefined, row: T | undefined): void {
    if (old !== undefined) this.#keys.remove(this.#valuesOf(old), key);
    if (row !== undefined) this.#keys.add(this.#valuesOf(row), key);
  }
}
