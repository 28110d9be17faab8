import { execInPod } from '../../lab/lab.ts';

/** `weft exec POD -- PROGRAM`: with the terminal's own input and output; its exit code is ours. */
export async function exec(
  pod: string,
  argv: string[],
  options: { lab: string; namespace: string; container?: string },
): Promise<void> {
  const { code } = await execInPod(options.lab, pod, argv, {
    namespace: options.namespace,
    ...(options.container && { container: options.container }),
    stdio: 'inherit',
  });
  process.exitCode = code;
}
