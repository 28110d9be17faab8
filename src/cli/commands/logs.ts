import { podLogs } from '../../lab/lab.ts';

/** `weft logs POD`: until the end, or with `--follow` until the container is over or Ctrl-C. */
export async function logs(
  pod: string,
  options: { lab: string; namespace: string; container?: string; follow?: boolean; previous?: boolean },
): Promise<void> {
  const abort = new AbortController();
  process.once('SIGINT', () => abort.abort());
  const pieces = podLogs(options.lab, pod, {
    namespace: options.namespace,
    ...(options.container && { container: options.container }),
    follow: options.follow === true,
    previous: options.previous === true,
    signal: abort.signal,
  });
  for await (const piece of pieces) {
    if (!process.stdout.write(piece)) await new Promise((resolve) => process.stdout.once('drain', resolve));
  }
}
