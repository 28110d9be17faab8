/** Amounts with units, as numbers. Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/ */
const FACTORS: Record<string, number> = {
  n: 1e-9,
  u: 1e-6,
  m: 1e-3,
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  E: 1e18,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
  Ei: 2 ** 60,
};

/** NaN when it is no quantity. Exact enough to compare amounts, not to add up bytes beyond 2^53. */
export function quantityValue(text: string): number {
  const match = /^([+-]?[0-9.]+)(?:([eE][+-]?\d+)|([A-Za-z]*))$/.exec(text);
  if (!match) return Number.NaN;
  if (match[2]) return Number(text);
  return Number(match[1]) * (FACTORS[match[3] ?? ''] ?? Number.NaN);
}
