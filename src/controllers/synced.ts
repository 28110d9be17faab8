/** Resolves when every source is filled, or there is nothing more to wait for: a source was closed, or the signal aborted. */
export async function syncedOrClosed(
  sources: ReadonlyArray<{ readonly synced: Promise<void> }>,
  signal: AbortSignal,
): Promise<void> {
  const { promise: aborted, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) return;
  const end = (): void => resolve();
  signal.addEventListener('abort', end, { once: true });
  const filled = Promise.all(sources.map((source) => source.synced)).then(end, end);
  await Promise.race([filled, aborted]);
  signal.removeEventListener('abort', end);
}
