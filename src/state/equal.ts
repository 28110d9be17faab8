/**
 * Structural equality of JSON values (and bigints): key order does not matter, and a property that is `undefined` is
 * one that is absent, as it is in JSON.
 */
export function structurallyEqual(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (Array.isArray(a)) {
    if (!Array.isArray(b) || a.length !== b.length) return false;
    for (let i = 0; i < a.length; i++) if (!structurallyEqual(a[i], b[i])) return false;
    return true;
  }
  if (Array.isArray(b)) return false;
  const x = a as Record<string, unknown>;
  const y = b as Record<string, unknown>;
  let present = 0;
  for (const key in x) {
    const value = x[key];
    if (value === undefined) continue;
    present++;
    if (!Object.hasOwn(y, key) || !structurallyEqual(value, y[key])) return false;
  }
  for (const key in y) if (y[key] !== undefined) present--;
  return present === 0;
}
