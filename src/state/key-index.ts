/** Value → keys. A single key stands by itself: most values have one, and a Set costs 200 bytes. */
export class KeyIndex {
  readonly #keys = new Map<string, string | Set<string>>();

  get(value: string): Iterable<string> {
    const keys = this.#keys.get(value);
    return keys === undefined ? [] : typeof keys === 'string' ? [keys] : keys;
  }

  count(value: string): number {
    const keys = this.#keys.get(value);
    return keys === undefined ? 0 : typeof keys === 'string' ? 1 : keys.size;
  }

  values(): IterableIterator<string> {
    return this.#keys.keys();
  }

  add(values: Values, key: string): void {
    for (const value of list(values)) {
      const keys = this.#keys.get(value);
      if (keys === undefined) this.#keys.set(value, key);
      else if (typeof keys !== 'string') keys.add(key);
      else if (keys !== key) this.#keys.set(value, new Set([keys, key]));
    }
  }

  remove(values: Values, key: string): void {
    for (const value of list(values)) {
      const keys = this.#keys.get(value);
      if (keys === key) this.#keys.delete(value);
      else if (keys !== undefined && typeof keys !== 'string') {
        keys.delete(key);
        if (keys.size === 0) this.#keys.delete(value);
      }
    }
  }
}

/** What a row is filed under: nothing, one value or several. */
export type Values = string | Iterable<string> | undefined;

export function list(values: Values): Iterable<string> {
  return values === undefined ? [] : typeof values === 'string' ? [values] : values;
}
