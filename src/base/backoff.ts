export interface BackoffOptions {
  /** Milliseconds of the first delay, before jitter. */
  min: number;
  /** Milliseconds that no delay exceeds, before jitter. */
  max: number;
  /** Growth per attempt; default 2. */
  factor?: number;
  /** Source of randomness in [0, 1); default Math.random. */
  random?: () => number;
}

/**
 * The delay before attempt number `attempts` + 1 (attempts ≥ 1 failed so far): exponential, with jitter of ±50 %, so
 * that many clients that failed together do not come back together.
 */
export function backoffDelay(attempts: number, options: BackoffOptions): number {
  const { min, max, factor = 2, random = Math.random } = options;
  const delay = Math.min(max, min * factor ** Math.min(attempts - 1, 64));
  return delay * (0.5 + random());
}
